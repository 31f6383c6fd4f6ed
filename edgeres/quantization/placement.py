"""Which tensors of a residual network are quantized, for which target, and why not the others.

Pure decisions over the graph; `tensorrt.py` and `cpu.py` carry them out.

TensorRT fuses conv + bias + add + relu into one INT8 kernel only when the main branch reaches
the Add unquantized, so of an Add's two inputs the shortcut alone gets Q/DQ. ONNX Runtime's CPU
has no such kernel: there an Add, and the convolution before it, are integer only when both
inputs are. Source: NVIDIA/TensorRT issue 1992; NVIDIA's pytorch-quantization ResNet-50 example.
Where both inputs come from 1x1 convolutions, as at a bottleneck's projection, the CPU adds them
in the accumulator: one convolution over both sources' channels, and one rounding for three.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx

from edgeres.core.artifacts import LayerPrecision
from edgeres.core.precision import Precision
from edgeres.quantization.graph import Graph, attribute, integers, is_pass_through

LAYER_OPS = frozenset(
    {"Conv", "Gemm", "MatMul", "Add", "MaxPool", "AveragePool", "GlobalAveragePool"}
    | {"BatchNormalization", "ConvTranspose", "ReduceMean"}
)
"""Operators that a report lists; the rest move or clamp values."""

CLASSIFIER_REASON = "the classifier decides the label, and in INT8 saved no time"
"""Measured on ResNet-50 on the CPU: the median latency was the same within the noise, and the
logits' error 0.1 dB less in float."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One input of one operator."""

    node: str
    index: int
    tensor: str


@dataclass(frozen=True, slots=True)
class Placement:
    """Which inputs are quantized, and the precision of each layer that follows from it."""

    edges: tuple[Edge, ...]
    """Activation inputs that are quantized."""
    weighted: frozenset[str]
    """Names of the operators whose weight is quantized per channel, on a grid of its own."""
    layers: tuple[LayerPrecision, ...]
    joint: frozenset[str] = frozenset()
    """Names of the convolutions whose weight shares a grid with another one's."""

    def with_floats(self, precision: Precision) -> Placement:
        """Returns the placement with `precision` for the layers that are not INT8."""
        layers = (
            layer if layer.precision is Precision.INT8 else replace(layer, precision=precision)
            for layer in self.layers
        )
        return replace(self, layers=tuple(layers))


def float_layers(graph: Graph, precision: Precision) -> tuple[LayerPrecision, ...]:
    """Returns the layers of a network that is not quantized at all."""
    return tuple(
        LayerPrecision(name=n.name, op_type=n.op_type, precision=precision)
        for n in graph.nodes
        if n.op_type in LAYER_OPS
    )


def place_for_tensorrt(graph: Graph) -> Placement:
    """Returns TensorRT's placement: the input of every convolution, and the shortcut of every Add."""
    convolutions = [n for n in graph.nodes if n.op_type == "Conv" and refusal(graph, n) is None]
    adds = [n for n in graph.nodes if n.op_type == "Add" and refusal(graph, n) is None]
    edges = [Edge(n.name, 0, n.input[0]) for n in convolutions]
    edges += [_shortcut_edge(graph, n) for n in adds]
    quantized = {n.name for n in (*convolutions, *adds)}
    layers = tuple(
        LayerPrecision(
            name=n.name,
            op_type=n.op_type,
            precision=Precision.INT8 if n.name in quantized else Precision.FP32,
            reason="" if n.name in quantized else _tensorrt_reason(graph, n),
        )
        for n in graph.nodes
        if n.op_type in LAYER_OPS
    )
    return Placement(tuple(edges), frozenset(n.name for n in convolutions), layers)


def place_for_cpu(graph: Graph) -> Placement:
    """Returns the CPU's placement: every input of every operator with an integer kernel."""
    joined = {node.name: add for add, convs in joined_convolutions(graph).items() for node in convs}
    integer = [
        n for n in graph.nodes if refusal(graph, n) is None and n.name not in joined.values()
    ]
    edges = [Edge(n.name, i, n.input[i]) for n in integer for i in activation_inputs(n)]
    held = held_tensors(graph)
    layers = tuple(
        replace(_cpu_layer(graph, n, held), joined=joined.get(n.name, ""))
        for n in graph.nodes
        if n.op_type in LAYER_OPS
    )
    weighted = {n.name for n in integer if n.op_type == "Conv"}
    own = frozenset(weighted - joined.keys())
    return Placement(tuple(edges), own, layers, joint=frozenset(joined))


def joined_convolutions(graph: Graph) -> dict[str, tuple[onnx.NodeProto, ...]]:
    """Returns, by name of addition, the two convolutions that the CPU computes as one with it.

    Both are 1x1 and read by nothing else, what they read has the same zero point, and what they
    make the same shape.
    """
    found: dict[str, tuple[onnx.NodeProto, ...]] = {}
    for node in graph.nodes:
        if refusal(graph, node) is not None or not adds_equals(graph, node):
            continue
        convs = tuple(graph.producers[name] for name in node.input if name in graph.producers)
        signs = {graph.is_non_negative(conv.input[0]) for conv in convs}
        if len(convs) == 2 and len(signs) == 1 and all(_joins(graph, conv) for conv in convs):
            found[str(node.name)] = convs
    return found


def adds_equals(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node is an addition of two tensors of one known shape: nothing is broadcast."""
    shapes = [graph.shapes.get(name) for name in node.input]
    return node.op_type == "Add" and None not in shapes and len(set(shapes)) == 1


def _joins(graph: Graph, conv: onnx.NodeProto) -> bool:
    return (
        conv.op_type == "Conv"
        and refusal(graph, conv) is None
        and is_pointwise(graph, conv)
        and attribute(conv, "group") in (None, 1)
        and graph.only_consumer(conv.output[0]) is not None
    )


def is_pointwise(graph: Graph, conv: onnx.NodeProto) -> bool:
    """Whether a convolution with constant weights reads no pixel but the one it writes."""
    window = tuple(graph.constants[conv.input[1]].dims[2:])
    return window == (1, 1) and not any(integers(conv, "pads", (0, 0, 0, 0)))


def calibrated_tensors(graph: Graph) -> tuple[str, ...]:
    """Returns every tensor that a target needs a range of, in topological order.

    That of a global mean is for TensorRT's calibration cache alone.
    """
    roots = {graph.root(tensor) for tensor in held_tensors(graph)}
    roots |= {n.output[0] for n in graph.nodes if n.op_type == "GlobalAveragePool"} - {graph.output}
    produced = [out for node in graph.nodes for out in node.output]
    return tuple(name for name in (graph.input, *produced) if name in roots)


def held_tensors(graph: Graph) -> frozenset[str]:
    """Returns the tensors that exist as integers in the CPU's placement.

    These are the inputs of integer operators, with every pass-through tensor on the way from
    their root, and what integer operators compute, unless that is the logits or a global mean:
    its sum is exact, and only what reads it may want it rounded.
    """
    held: set[str] = set()
    for node in graph.nodes:
        if refusal(graph, node) is None:
            for index in activation_inputs(node):
                held.update(_with_upstream(graph, node.input[index]))
            if node.op_type != "GlobalAveragePool":
                held.add(result_of(graph, node))
    return frozenset(held - {graph.output})


def result_of(graph: Graph, node: onnx.NodeProto) -> str:
    """Returns the tensor that holds what `node` computes: its output, or behind its ReLU."""
    output: str = node.output[0]
    after = graph.only_consumer(output)
    if after is not None and after.op_type == "Relu":
        return str(after.output[0])
    return output


def activation_inputs(node: onnx.NodeProto) -> range:
    """Returns the positions of an operator's inputs that are activations."""
    return range(2) if node.op_type == "Add" else range(1)


def refusal(graph: Graph, node: onnx.NodeProto) -> str | None:
    """Returns why an operator is not integer on any target; None where it can be."""
    if node.name in graph.kept:
        return graph.kept[node.name]
    if node.op_type == "Conv":
        constant = all(not name or name in graph.constants for name in node.input[1:])
        return None if constant else "its weight or bias is not constant"
    if node.op_type in {"Gemm", "MatMul"}:
        return CLASSIFIER_REASON
    if node.op_type == "Add":
        constant = any(name in graph.constants for name in node.input)
        return "it adds a constant, not a branch" if constant else None
    if node.op_type == "GlobalAveragePool":
        return None if node.input[0] in graph.shapes else "the size of its input is not known"
    return f"{node.op_type} has no integer kernel"


def shortcut_index(graph: Graph, add: onnx.NodeProto) -> int:
    """Returns which input of a residual Add is the shortcut: the one behind fewer convolutions.

    A tie, and two inputs that never meet, give the second input.
    """
    first, second = _branch_depths(graph, add)
    return 0 if first < second else 1


def _shortcut_edge(graph: Graph, add: onnx.NodeProto) -> Edge:
    index = shortcut_index(graph, add)
    return Edge(add.name, index, add.input[index])


def parting(graph: Graph, add: onnx.NodeProto) -> str | None:
    """Returns the tensor at which the branches into an Add part; None where they never meet."""
    return _walk(graph, add)[0]


def _branch_depths(graph: Graph, add: onnx.NodeProto) -> tuple[int, int]:
    """Returns how many convolutions lie on each branch between the Add and where they part.

    Branches that never meet give equal depths.
    """
    return _walk(graph, add)[1]


def _walk(graph: Graph, add: onnx.NodeProto) -> tuple[str | None, tuple[int, int]]:
    """Returns where an Add's branches part, and the convolutions on each from there.

    Tensors are visited from the latest produced to the earliest, so the first one that both
    branches reach is where they part.
    """
    depths: dict[str, dict[int, int]] = {}
    for branch, name in enumerate(add.input):
        depths.setdefault(name, {})[branch] = 0
    pending = set(depths)
    while pending:
        tensor = max(pending, key=lambda name: graph.positions.get(name, -1))
        pending.remove(tensor)
        here = depths[tensor]
        if len(here) == 2:
            return tensor, (here[0], here[1])
        node = graph.producers.get(tensor)
        if node is None:
            continue
        step = int(node.op_type == "Conv")
        for source in (name for name in node.input if name not in graph.constants):
            there = depths.setdefault(source, {})
            for branch, depth in here.items():
                there[branch] = min(depth + step, there.get(branch, depth + step))
            pending.add(source)
    return None, (0, 0)


def _with_upstream(graph: Graph, tensor: str) -> list[str]:
    """Returns `tensor` and every tensor between it and its root, the root too."""
    chain = [tensor]
    node = graph.producers.get(tensor)
    while node is not None and is_pass_through(graph, node):
        chain.append(node.input[0])
        node = graph.producers.get(node.input[0])
    return chain


def _tensorrt_reason(graph: Graph, node: onnx.NodeProto) -> str:
    reasons = {
        "MaxPool": "commutes with the quantization behind it: TensorRT moves it before the pool",
        "GlobalAveragePool": "rounding its few inputs' mean costs accuracy and buys no time",
    }
    return reasons.get(node.op_type) or refusal(graph, node) or ""


def _cpu_layer(graph: Graph, node: onnx.NodeProto, held: frozenset[str]) -> LayerPrecision:
    if is_pass_through(graph, node):
        integer = node.output[0] in held
        reason = "" if integer else "neither side of it is integer"
    else:
        refused = refusal(graph, node)
        integer, reason = refused is None, refused or ""
    precision = Precision.INT8 if integer else Precision.FP32
    return LayerPrecision(name=node.name, op_type=node.op_type, precision=precision, reason=reason)

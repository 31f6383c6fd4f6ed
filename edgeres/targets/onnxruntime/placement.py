"""The CPU's placement: every input of every operator with an integer kernel.

ONNX Runtime's CPU has no kernel that adds a float branch to an integer one: there an Add, and the
convolution before it, are integer only when both inputs are. Where both inputs come from 1x1
convolutions, as at a bottleneck's projection, the CPU adds them in the accumulator: one
convolution over both sources' channels, and one rounding for three.
"""

from __future__ import annotations

import onnx

from edgeres.quantization.graph import Graph, attribute, integers, is_pass_through
from edgeres.quantization.placement import LAYER_OPS, Edge, Placement, placed_layer, refusal


def place_for_cpu(graph: Graph) -> Placement:
    """Returns which inputs the CPU's lowering quantizes, and why not the others."""
    joined = {node.name: add for add, convs in joined_convolutions(graph).items() for node in convs}
    stored = integer_tensors(graph)
    # A joined Add sums in the accumulator: what it reads is never rounded.
    integer = [
        n for n in graph.nodes if refusal(graph, n) is None and n.name not in joined.values()
    ]
    layers = []
    for node in (n for n in graph.nodes if n.op_type in LAYER_OPS):
        if is_pass_through(graph, node):
            moves = node.output[0] in stored
            reason = "" if moves else "neither side of it is integer"
        else:
            reason = refusal(graph, node) or ""
        layers.append(placed_layer(node, reason, joined.get(node.name, "")))
    convolutions = {n.name for n in integer if n.op_type == "Conv"}
    return Placement(
        edges=tuple(Edge(n.name, i, n.input[i]) for n in integer for i in _activation_inputs(n)),
        weighted=frozenset(convolutions - joined.keys()),
        layers=tuple(layers),
        joint=frozenset(joined),
    )


def joined_convolutions(graph: Graph) -> dict[str, tuple[onnx.NodeProto, ...]]:
    """Returns, by name of addition, the two convolutions that the CPU computes as one with it.

    Both are 1x1 and read by nothing else, what they read has the same zero point, and what they
    write the same shape.
    """
    joined: dict[str, tuple[onnx.NodeProto, ...]] = {}
    for node in graph.nodes:
        if refusal(graph, node) is not None or not adds_equals(graph, node):
            continue
        convs = tuple(graph.producers[name] for name in node.input if name in graph.producers)
        # One zero point for both: the channels of both sources become one tensor.
        signs = {graph.is_non_negative(conv.input[0]) for conv in convs}
        if len(convs) == 2 and len(signs) == 1 and all(_joins(graph, conv) for conv in convs):
            joined[str(node.name)] = convs
    return joined


def adds_equals(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node is an addition of two tensors of one known shape: nothing is broadcast."""
    shapes = [graph.shapes.get(name) for name in node.input]
    return node.op_type == "Add" and None not in shapes and len(set(shapes)) == 1


def is_pointwise(graph: Graph, conv: onnx.NodeProto) -> bool:
    """Whether a convolution with constant weights reads no pixel but the one it writes."""
    window = tuple(graph.constants[conv.input[1]].dims[2:])
    return window == (1, 1) and not any(integers(conv, "pads", (0, 0, 0, 0)))


def integer_tensors(graph: Graph) -> frozenset[str]:
    """Returns the tensors that exist as integers in the CPU's placement.

    These are the inputs of integer operators, with every pass-through tensor on the way from
    their root, and what integer operators compute, unless that is the logits or a global mean:
    its sum is exact, and only what reads it may want it rounded.
    """
    stored: set[str] = set()
    for node in (n for n in graph.nodes if refusal(graph, n) is None):
        for index in _activation_inputs(node):
            tensor = node.input[index]
            stored.add(tensor)
            # What a pool, slice or pad moves are integers already, up to the tensor's root.
            before = graph.producers.get(tensor)
            while before is not None and is_pass_through(graph, before):
                stored.add(before.input[0])
                before = graph.producers.get(before.input[0])
        if node.op_type != "GlobalAveragePool":
            stored.add(result_of(graph, node))
    return frozenset(stored - {graph.output})


def result_of(graph: Graph, node: onnx.NodeProto) -> str:
    """Returns the tensor that holds what `node` computes: its output, or behind its ReLU."""
    output: str = node.output[0]
    after = graph.only_consumer(output)
    if after is not None and after.op_type == "Relu":
        return str(after.output[0])
    return output


def _activation_inputs(node: onnx.NodeProto) -> range:
    """Returns the positions of an operator's inputs that are activations."""
    return range(2) if node.op_type == "Add" else range(1)


def _joins(graph: Graph, conv: onnx.NodeProto) -> bool:
    return (
        conv.op_type == "Conv"
        and refusal(graph, conv) is None
        and is_pointwise(graph, conv)
        and attribute(conv, "group") in (None, 1)
        and graph.only_consumer(conv.output[0]) is not None
    )

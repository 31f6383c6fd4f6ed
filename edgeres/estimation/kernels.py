"""The kernels that a network becomes once a GPU's builder has fused it.

A convolution takes along what follows it value by value: bias, activation, and the Add of a
residual block together with the ReLU behind it; so does the classifier. Pools, and value-wise
operators that follow none of these, are kernels of their own. What only moves or renames values,
or pads for a convolution, is none. Source: NVIDIA TensorRT developer guide, "Layer fusion".

Read off a graph, whoever made it; no layer's name decides anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import onnx

from edgeres.core.blocks import locate
from edgeres.core.cost import OperatorCost
from edgeres.core.precision import Precision
from edgeres.names import Name
from edgeres.quantization.cost import operator_cost
from edgeres.quantization.graph import Graph

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean"})
_FREE = frozenset(
    {"Flatten", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Dropout", "Shape", "Gather", "Cast"}
    | {"QuantizeLinear", "DequantizeLinear", "Constant", "Concat", "Softmax"}
)
"""Operators that no kernel of their own is counted for: they rename values, or a few of them."""


class KernelKind(Name):
    """What a kernel does, as far as its speed depends on it."""

    CONVOLUTION = "convolution"
    CLASSIFIER = "classifier"
    POOL = "pool"
    POINTWISE = "pointwise"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One fused kernel, for one image."""

    name: str
    """Of the operator that it is built around."""
    stage: str
    """Part of the network, such as `layer1`, or `stem` and `head`."""
    kind: KernelKind
    cost: OperatorCost
    """Multiply-accumulates, weights, and the values read, with a residual, and written."""
    pixels: int
    """Height times width of its output; 1 for a classifier."""
    columns: int
    """Output channels of one group."""
    depth: int
    """Products that one output value sums over: input channels of a group times kernel size."""
    groups: int = 1
    reads_image: bool = False
    precision: Precision = Precision.FP32


def fused_kernels(
    graph: Graph, by_name: Mapping[str, Precision] = MappingProxyType({})
) -> tuple[Kernel, ...]:
    """Returns the kernels of a network in topological order.

    Args:
        graph: the network.
        by_name: precisions of its operators; those that are not in it are FP32. What is of another
            precision than the operator before it is no part of that one's kernel.
    """
    leaders: dict[str, str] = {}
    gathered: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.nodes:
        if node.op_type in _FREE or _is_passive(graph, node):
            continue
        leader = node.name
        if node.op_type not in _WEIGHTED | _POOLS:
            fused = _fused_into(graph, node, leaders, gathered) or node.name
            own = by_name.get(node.name)
            leader = fused if own in {None, by_name.get(fused)} else node.name
        leaders.update(dict.fromkeys(node.output, leader))
        gathered.setdefault(leader, []).append(node)
    kernels = (_kernel(graph, nodes) for nodes in gathered.values())
    return tuple(replace(k, precision=by_name.get(k.name, Precision.FP32)) for k in kernels)


def _is_passive(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether an operator works on constants alone."""
    return all(name in graph.constants for name in node.input if name)


def _fused_into(
    graph: Graph,
    node: onnx.NodeProto,
    leaders: Mapping[str, str],
    gathered: Mapping[str, list[onnx.NodeProto]],
) -> str | None:
    """Returns the operator whose kernel computes this value-wise one as well; None without one."""
    candidates = [
        leaders[tensor]
        for tensor in node.input
        if tensor in leaders and graph.only_consumer(tensor) is node
    ]
    # Of an Add's two branches the convolution that runs last can add: the other one is done by then.
    order = list(gathered)
    weighted = [c for c in candidates if gathered[c][0].op_type in _WEIGHTED]
    pointwise = [c for c in candidates if gathered[c][0].op_type not in _POOLS]
    return max(weighted or pointwise, key=order.index, default=None)


def _kernel(graph: Graph, nodes: list[onnx.NodeProto]) -> Kernel:
    """Returns the kernel of operators that run together, the first of which it is built around."""
    first = nodes[0]
    own = operator_cost(graph, first)
    produced = {name for node in nodes for name in node.output}
    # A residual, or whatever else joins behind the first operator, is read once more.
    joined = {name for node in nodes[1:] for name in node.input} - produced - set(graph.constants)
    values = {
        name: math.prod(graph.shapes.get(name, (0,))) for name in (*joined, nodes[-1].output[0])
    }
    cost = replace(
        own,
        inputs=own.inputs + sum(values[name] for name in joined),
        outputs=values[nodes[-1].output[0]] or own.outputs,
    )
    shape = graph.shapes.get(nodes[-1].output[0], ())
    groups = max(1, own.channels and _groups(first))
    return Kernel(
        name=first.name,
        stage=_stage(first),
        kind=_kind(first, own),
        cost=cost,
        pixels=math.prod(shape[1:]) if len(shape) == 3 else 1,
        columns=max(1, own.channels // groups),
        depth=max(1, own.weights // max(1, own.channels)),
        groups=groups,
        reads_image=graph.root(first.input[0]) == graph.input,
    )


def _groups(node: onnx.NodeProto) -> int:
    return next((int(a.i) for a in node.attribute if a.name == "group"), 1)


def _kind(node: onnx.NodeProto, own: OperatorCost) -> KernelKind:
    if node.op_type in {"Gemm", "MatMul"}:
        return KernelKind.CLASSIFIER
    if own.macs:
        return KernelKind.CONVOLUTION
    return KernelKind.POOL if node.op_type in _POOLS else KernelKind.POINTWISE


def _stage(node: onnx.NodeProto) -> str:
    block = locate(node.name, node.op_type).block
    return block.split(".")[0] if block else ""

"""What every target's placement shares: which operators can be integer, and why the others cannot.

Pure decisions over the graph. Each placement stands with its lowering.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx

from edgeres.core.artifacts import LayerPrecision
from edgeres.core.precision import Precision
from edgeres.quantization.graph import Graph

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

    def with_precisions(self, quantized: Precision, floats: Precision) -> Placement:
        """Returns the placement with these precisions for layers on a grid, and for the others."""
        layers = (
            replace(layer, precision=quantized if layer.precision is Precision.INT8 else floats)
            for layer in self.layers
        )
        return replace(self, layers=tuple(layers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Branches:
    """The two branches that an Add joins."""

    start: str | None
    """The tensor at which they part; None where they never meet."""
    convolutions: tuple[int, int]
    """Convolutions on each branch from there to the Add; both 0 where they never meet."""


def float_layers(graph: Graph, precision: Precision) -> tuple[LayerPrecision, ...]:
    """Returns the layers of a network that is not quantized at all."""
    return tuple(
        LayerPrecision(name=n.name, op_type=n.op_type, precision=precision)
        for n in graph.nodes
        if n.op_type in LAYER_OPS
    )


def placed_layer(node: onnx.NodeProto, reason: str, joined: str = "") -> LayerPrecision:
    """Returns a layer that is INT8, or in float where there is a reason for it.

    Args:
        node: the operator.
        reason: why it stays in float; empty where it does not.
        joined: name of the addition that it is computed with, if any.
    """
    return LayerPrecision(
        name=node.name,
        op_type=node.op_type,
        precision=Precision.FP32 if reason else Precision.INT8,
        reason=reason,
        joined=joined,
    )


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


def branches_of(graph: Graph, add: onnx.NodeProto) -> Branches:
    """Returns where an Add's branches part, and how many convolutions each has from there."""
    depths: dict[str, dict[int, int]] = {}
    for branch, name in enumerate(add.input):
        depths.setdefault(name, {})[branch] = 0
    pending = set(depths)
    while pending:
        # From the latest produced tensor to the earliest, so that the first one that both
        # branches reach is where they part.
        tensor = max(pending, key=lambda name: graph.positions.get(name, -1))
        pending.remove(tensor)
        here = depths[tensor]
        if len(here) == 2:
            return Branches(start=tensor, convolutions=(here[0], here[1]))
        node = graph.producers.get(tensor)
        if node is None:
            continue
        step = int(node.op_type == "Conv")
        for source in (name for name in node.input if name not in graph.constants):
            there = depths.setdefault(source, {})
            # The shortest way counts where a branch has inner shortcuts of its own.
            for branch, depth in here.items():
                there[branch] = min(depth + step, there.get(branch, depth + step))
            pending.add(source)
    return Branches(start=None, convolutions=(0, 0))

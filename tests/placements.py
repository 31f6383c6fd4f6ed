"""Networks with where each target quantizes them, for the tests of the placements."""

from __future__ import annotations

from dataclasses import dataclass

from edgeres.core.precision import Precision
from edgeres.quantization.graph import Graph
from edgeres.quantization.placement import Placement

Edges = dict[str, set[str]]


@dataclass(frozen=True)
class Case:
    """A network, its Adds with their shortcuts, and the tensors that feed convolutions."""

    name: str
    shortcuts: Edges
    convolutions: Edges


_MAIN: Edges = {"stem": {"image"}, "hidden": {"entry"}, "main": {"hidden_relu"}}


CASES = [
    Case("identity", {"sum": {"entry"}}, _MAIN),
    Case("grouped", {"sum": {"entry"}}, _MAIN),
    Case("two-layer head", {"sum": {"entry"}}, _MAIN),
    Case("max-pooled stem", {"sum": {"entry"}}, _MAIN),
    Case("down-sampling", {"sum": {"shortcut"}}, {**_MAIN, "shortcut": {"entry"}}),
    Case("option A", {"sum": {"shortcut"}}, _MAIN),
    Case(
        "bottleneck",
        {"sum": {"shortcut"}},
        {**_MAIN, "reduced": {"entry"}, "hidden": {"reduced_relu"}, "shortcut": {"entry"}},
    ),
    Case(
        "pre-activation",
        {"sum": {"entry"}, "sum2": {"sum"}},
        {
            "entry": {"image"},
            "hidden1": {"active1"},
            "main": {"hidden1_relu"},
            "hidden2": {"active2"},
            "deep": {"hidden2_relu"},
        },
    ),
]


def edges_of(graph: Graph, placement: Placement) -> Edges:
    """Returns the quantized tensors of each operator, which is named by its output."""
    outputs = {node.name: node.output[0] for node in graph.nodes}
    found: Edges = {}
    for edge in placement.edges:
        found.setdefault(outputs[edge.node], set()).add(edge.tensor)
    return found


def reasons_of(graph: Graph, placement: Placement) -> dict[str, str]:
    """Returns why each layer stays in float, by the layer's output."""
    outputs = {node.name: node.output[0] for node in graph.nodes}
    return {
        outputs[layer.name]: layer.reason
        for layer in placement.layers
        if layer.precision is not Precision.INT8
    }


REST = """
  pooled = GlobalAveragePool(feature)
  flat = Flatten(pooled)
  logits = Gemm<transB = 1>(flat, fc_w, fc_b)
"""

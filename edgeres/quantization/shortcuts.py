"""Which residual additions of a lowered network read a branch that was never quantized."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from edgeres.quantization.graph import Graph, view

_AFTER_PAIR = "DequantizeLinear"


def float_branches(model: onnx.ModelProto) -> Mapping[str, tuple[str, ...]]:
    """Returns, by the name of each residual addition, its inputs that no Q/DQ pair stands before.

    TensorRT's placement leaves one, the main branch; the CPU's leaves none. An addition with more
    runs in float. Source: NVIDIA/TensorRT issue 1992.
    """
    graph = view(model)
    found = {node.name: _floats(graph, node) for node in graph.nodes if _is_residual(graph, node)}
    return {name: inputs for name, inputs in found.items() if inputs}


def _is_residual(graph: Graph, node: onnx.NodeProto) -> bool:
    return node.op_type == "Add" and not any(name in graph.constants for name in node.input)


def _floats(graph: Graph, node: onnx.NodeProto) -> tuple[str, ...]:
    makers = ((name, graph.producers.get(name)) for name in node.input)
    return tuple(
        str(name) for name, maker in makers if maker is None or maker.op_type != _AFTER_PAIR
    )

"""Which residual additions of a lowered network read a branch that was never quantized."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from edgeres.quantization.graph import view


def float_branches(model: onnx.ModelProto) -> Mapping[str, tuple[str, ...]]:
    """Returns, by the name of each residual addition, its inputs that no Q/DQ pair stands before.

    TensorRT's placement leaves one, the main branch; the CPU's leaves none. An addition with more
    runs in float. Source: NVIDIA/TensorRT issue 1992.
    """
    graph = view(model)
    branches: dict[str, tuple[str, ...]] = {}
    for node in graph.nodes:
        # An Add of a constant is a bias and joins no branches.
        if node.op_type != "Add" or any(name in graph.constants for name in node.input):
            continue
        producers = ((str(name), graph.producers.get(name)) for name in node.input)
        floats = tuple(n for n, p in producers if p is None or p.op_type != "DequantizeLinear")
        if floats:
            branches[node.name] = floats
    return branches

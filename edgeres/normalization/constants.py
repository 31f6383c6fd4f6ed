"""What a graph computes from constants alone, evaluated once."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import onnx
from onnx import numpy_helper

from edgeres.session import open_session, run_session


def evaluate_constants(model: onnx.ModelProto) -> int:
    """Replaces, in place, every node that no input reaches by its value; returns how many.

    A zero padding reaches ONNX as a dozen nodes that compute its widths; this leaves one Pad.

    Raises:
        RunnerError: ONNX Runtime cannot evaluate such a node.
    """
    graph = model.graph
    known = {"", *(tensor.name for tensor in graph.initializer)}
    constant, live = [], []
    for node in graph.node:
        if is_constant(node, known):
            constant.append(node)
            known.update(node.output)
        else:
            live.append(node)
    if not constant:
        return 0
    read = {name for node in live for name in node.input} | {out.name for out in graph.output}
    wanted = [name for node in constant for name in node.output if name in read]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    put(probe.graph.node, constant)
    put(probe.graph.input, [])
    put(probe.graph.output, [onnx.ValueInfoProto(name=name) for name in wanted])
    values = run_session(open_session(probe.SerializeToString()), wanted, {}) if wanted else []
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    evaluated = [numpy_helper.from_array(v, n) for n, v in zip(wanted, values, strict=True)]
    put(graph.node, live)
    put(graph.initializer, kept + evaluated)
    return len(constant)


def is_constant(node: onnx.NodeProto, known: set[str]) -> bool:
    """Whether a node computes from values in `known` alone."""
    # A subgraph may read tensors that the node's own inputs do not name.
    nested = any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute)
    return not nested and known.issuperset(node.input)


def put(field: Any, values: Iterable[Any]) -> None:
    """Puts `values` in the place of a repeated protobuf field."""
    # Copied first: `values` may be parts of the field.
    copied = [copy.deepcopy(value) for value in values]
    del field[:]
    field.extend(copied)

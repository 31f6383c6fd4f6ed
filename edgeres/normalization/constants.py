"""What a graph computes from constants alone, evaluated once."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import onnx
from onnx import numpy_helper

from edgeres.session import open_session, run_session

Weights = dict[str, onnx.TensorProto]
"""The stored tensors of a network by name, beside its graph: what a protobuf message once held is
freed with the message alone, so a weight that is replaced within one is kept twice."""


def take_weights(model: onnx.ModelProto) -> Weights:
    """Returns the stored tensors of a model, and leaves its graph without them."""
    weights = {tensor.name: copy.deepcopy(tensor) for tensor in model.graph.initializer}
    del model.graph.initializer[:]
    return weights


def put_weights(model: onnx.ModelProto, weights: Weights) -> None:
    """Stores tensors in a model, and leaves the mapping without them."""
    for name in list(weights):
        model.graph.initializer.append(weights.pop(name))


def evaluate_constants(model: onnx.ModelProto, weights: Weights) -> int:
    """Replaces, in place, every node that no input reaches by its value; returns how many.

    A zero padding reaches ONNX as a dozen nodes that compute its widths; this leaves one Pad.

    Args:
        model: the graph, without stored tensors.
        weights: these; those that nothing reads any more are removed.

    Raises:
        RunnerError: ONNX Runtime cannot evaluate such a node.
    """
    graph = model.graph
    known = {"", *weights}
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
    evaluated = _evaluated(model, constant, wanted, weights) if wanted else {}
    put(graph.node, live)
    for name in weights.keys() - read:
        del weights[name]
    weights.update(evaluated)
    return len(constant)


def _evaluated(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], wanted: list[str], weights: Weights
) -> Weights:
    """Returns the tensors of those names, which nodes compute from weights alone."""
    read = {name for node in nodes for name in node.input}
    graph = onnx.GraphProto(
        name="constants",
        node=nodes,
        initializer=[tensor for name, tensor in weights.items() if name in read],
        output=[onnx.ValueInfoProto(name=name) for name in wanted],
    )
    probe = onnx.ModelProto(
        ir_version=model.ir_version,
        opset_import=model.opset_import,
        functions=model.functions,
        graph=graph,
    )
    values = run_session(open_session(probe.SerializeToString()), wanted, {})
    return {n: numpy_helper.from_array(v, n) for n, v in zip(wanted, values, strict=True)}


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

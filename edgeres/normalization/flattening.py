"""The way from a global mean to the classifier in its one form, Flatten.

Exporters write it as anything from one Reshape to a Gather by indices that are computed from the
batch. What a chain of operators does to the values is found by running it on numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from edgeres.errors import RunnerError
from edgeres.normalization.interface import dims_of, image_input
from edgeres.normalization.pools import inferred_shapes
from edgeres.session import open_session, run_session

_CLASSIFIERS = frozenset({"Gemm", "MatMul"})

_MOVES = frozenset(
    {"Add", "Cast", "Concat", "Expand", "Flatten", "Gather", "Identity", "Mul", "Range", "Reshape"}
    | {"Shape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators that move values, or compute the sizes and indices by which they are moved."""


@dataclass(frozen=True, slots=True)
class Way:
    """Operators that move a global mean, (N, C, 1, 1), to what a classifier reads."""

    mean: str
    nodes: tuple[onnx.NodeProto, ...]
    """First to last."""
    features: str


def unify_flattening(model: onnx.ModelProto) -> int:
    """Replaces, in place, what moves a global mean as Flatten does; returns how often."""
    graph = model.graph
    unified = [way for way in _ways(graph) if _flattens(model, way)]
    for way in unified:
        last = next(node for node in way.nodes if way.features in node.output)
        position = list(graph.node).index(last)
        graph.node.remove(last)
        graph.node.insert(position, helper.make_node("Flatten", [way.mean], [way.features], axis=1))
        for node in reversed(way.nodes):
            # Another reader of a part of the way keeps it.
            read = {name for other in graph.node for name in other.input}
            if node is not last and read.isdisjoint(node.output):
                graph.node.remove(node)
    return len(unified)


def _ways(graph: onnx.GraphProto) -> Iterator[Way]:
    """Yields what several operators move from one global mean to a classifier."""
    producers = {name: node for node in graph.node for name in node.output}
    for classifier in graph.node:
        if classifier.op_type not in _CLASSIFIERS:
            continue
        pending, reached = [classifier.input[0]], set[str]()
        while pending:
            name = pending.pop()
            node = producers.get(name)
            if node is None or name in reached:
                continue
            reached.add(name)
            if node.op_type in _MOVES:
                pending.extend(node.input)
        nodes = tuple(n for n in graph.node if not reached.isdisjoint(n.output))
        moves = tuple(n for n in nodes if n.op_type in _MOVES)
        others = [n for n in nodes if n.op_type not in _MOVES]
        if len(moves) > 1 and [n.op_type for n in others] == ["GlobalAveragePool"]:
            yield Way(others[0].output[0], moves, classifier.input[0])


def _flattens(model: onnx.ModelProto, way: Way) -> bool:
    """Whether these operators make (N, C) of (N, C, 1, 1), in that order."""
    image, shape = image_input(model.graph), inferred_shapes(model).get(way.mean, ())
    own, *dims = dims_of(image)
    sides = [size for size in dims if size is not None]
    if len(shape) != 4 or not shape[1] or len(sides) != len(dims):
        return False
    kind, read = onnx.TensorProto.FLOAT, {name for node in way.nodes for name in node.input}
    probe = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    probe.graph.name = "way"
    probe.graph.node.extend(way.nodes)
    probe.graph.initializer.extend(t for t in model.graph.initializer if t.name in read)
    probe.graph.input.append(helper.make_tensor_value_info(way.mean, kind, [None, *shape[1:]]))
    probe.graph.output.append(helper.make_tensor_value_info(way.features, kind, None))
    if image.name in read:
        probe.graph.input.append(image)
    random = np.random.default_rng(0)
    try:
        session = open_session(probe.SerializeToString())
        for batch in (1, 3) if own is None else (own,):
            mean = random.standard_normal((batch, *shape[1:])).astype(np.float32)
            # The image is read for its batch size; its values would not be the mean's.
            images = np.zeros((batch, *sides), np.float32)
            feed = {way.mean: mean} | ({image.name: images} if image.name in read else {})
            (moved,) = run_session(session, [way.features], feed)
            if not np.array_equal(moved, mean.reshape(batch, -1)):
                return False
    except RunnerError:
        return False
    return True

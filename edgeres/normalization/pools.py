"""A mean over all of an image's positions in its one form, GlobalAveragePool.

Exporters write it as ReduceMean over height and width, over one after the other, or as an
AveragePool whose window is the whole image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeres.graph_structure import infer_shapes, skeleton

_SPATIAL = {2, 3}


@dataclass(frozen=True, slots=True)
class GlobalMean:
    """Nodes that together take the mean over height and width."""

    nodes: tuple[onnx.NodeProto, ...]
    keeps_axes: bool
    """Whether the result is (N, C, 1, 1); else (N, C)."""


def unify_global_means(model: onnx.ModelProto) -> int:
    """Replaces, in place, every mean over all positions by GlobalAveragePool; returns how many."""
    graph = model.graph
    found = list(global_means(model))
    for mean in found:
        first, last = mean.nodes[0], mean.nodes[-1]
        position = list(graph.node).index(first)
        pooled = last.output[0] if mean.keeps_axes else f"{last.output[0]}_pooled"
        pool = helper.make_node("GlobalAveragePool", [first.input[0]], [pooled], name=last.name)
        nodes = [pool]
        if not mean.keeps_axes:
            nodes.append(helper.make_node("Flatten", [pooled], [last.output[0]], axis=1))
        for node in mean.nodes:
            graph.node.remove(node)
        for node in reversed(nodes):
            graph.node.insert(position, node)
    return len(found)


def global_means(model: onnx.ModelProto) -> Iterator[GlobalMean]:
    """Yields what takes the mean over height and width of an image, and is no GlobalAveragePool."""
    graph = model.graph
    if not any(node.op_type in {"ReduceMean", "AveragePool"} for node in graph.node):
        return
    stored = {tensor.name: tensor for tensor in graph.initializer}
    shapes = inferred_shapes(model)
    producers = {name: node for node in graph.node for name in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    for node in graph.node:
        shape = shapes.get(node.input[0], ()) if node.input else ()
        if node.op_type == "AveragePool" and _is_whole(node, shape):
            yield GlobalMean((node,), keeps_axes=True)
        if node.op_type != "ReduceMean":
            continue
        if len(shape) == 4 and _axes(node, stored, 4) == _SPATIAL:
            yield GlobalMean((node,), keeps_axes=_keeps_axes(node))
            continue
        # Over one side, and then over the other.
        before = producers.get(node.input[0])
        if before is None or before.op_type != "ReduceMean" or readers[node.input[0]] != 1:
            continue
        inner = _axes(before, stored, 4)
        if len(shapes.get(before.input[0], ())) != 4 or _keeps_axes(before) != _keeps_axes(node):
            continue
        # Without the axis before it, height has the place of the last one.
        outer = _axes(node, stored, len(shape))
        both = inner | outer if _keeps_axes(node) else _SPATIAL if outer == {2} else set()
        if inner <= _SPATIAL and len(inner) == 1 and both == _SPATIAL:
            yield GlobalMean((before, node), keeps_axes=_keeps_axes(node))


def inferred_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Returns the inferred shapes, 0 for an open dimension; weights need no values for them."""
    inferred = infer_shapes(skeleton(model)).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    return {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}


def _axes(node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto], rank: int) -> set[int]:
    axes: list[int] = next((list(a.ints) for a in node.attribute if a.name == "axes"), [])
    if not axes and len(node.input) > 1 and node.input[1] in stored:
        axes = np.ravel(numpy_helper.to_array(stored[node.input[1]])).tolist()
    return {axis % rank for axis in axes} if rank else set()


def _keeps_axes(node: onnx.NodeProto) -> bool:
    return all(a.i for a in node.attribute if a.name == "keepdims")


def _is_whole(node: onnx.NodeProto, shape: tuple[int, ...]) -> bool:
    """Whether the window of a pool is all of the image."""
    lists = {a.name: list(a.ints) for a in node.attribute}
    padded = any(lists.get("pads", ())) or any(
        a.name == "auto_pad" and a.s not in {b"NOTSET", b"VALID"} for a in node.attribute
    )
    return len(shape) == 4 and lists.get("kernel_shape") == list(shape[2:]) and not padded

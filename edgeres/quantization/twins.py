"""Networks whose weights have the same shapes: a stride or a shortcut moved in the graph.

A stride has no weights, and neither has a shortcut of option A. So a checkpoint trained as one
architecture can be exported as another, and nothing but its accuracy shows it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeres.quantization.graph import Graph, integers, view
from edgeres.quantization.placement import branches_of


def twins(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yields what the network may have been trained with, and the network with that."""
    graph = view(model)
    if (moved := _moved_strides(graph)) is not None:
        yield moved
    adds = [n for n in graph.nodes if n.op_type == "Add"]
    if adds and all(0 in branches_of(graph, add).convolutions for add in adds):
        yield "no shortcuts, as a plain net", _without_shortcuts(graph, adds)
    if not adds and (added := _with_shortcuts(graph)) is not None:
        yield "shortcuts of option A, as a residual net", added


def _moved_strides(graph: Graph) -> tuple[str, onnx.ModelProto] | None:
    """Exchanges the strides of each bottleneck's first two convolutions.

    Source: He et al. 2016a have the stride in the 1x1 (v1), torchvision in the 3x3 (v1.5).
    """
    pairs = []
    for conv in (n for n in graph.nodes if n.op_type == "Conv"):
        relu = graph.only_consumer(conv.output[0])
        after = None if relu is None else graph.only_consumer(relu.output[0])
        if relu is None or relu.op_type != "Relu" or after is None or after.op_type != "Conv":
            continue
        windows = [tuple(graph.constants[c.input[1]].dims[2:]) for c in (conv, after)]
        strides = [integers(c, "strides", (1, 1)) for c in (conv, after)]
        if windows == [(1, 1), (3, 3)] and sorted(strides) == [(1, 1), (2, 2)]:
            pairs.append((conv.name, after.name, strides[0] == (2, 2)))
    if not pairs or len({is_first for *_, is_first in pairs}) != 1:
        return None
    is_first = pairs[0][2]
    copied, nodes = _copied(graph)
    for first, second, _ in pairs:
        for name, stride in ((first, 1 if is_first else 2), (second, 2 if is_first else 1)):
            kept = [a for a in nodes[name].attribute if a.name != "strides"]
            del nodes[name].attribute[:]
            nodes[name].attribute.extend([*kept, helper.make_attribute("strides", [stride] * 2)])
    return f"the stride in its {'3x3' if is_first else '1x1'} convolutions", copied


def _without_shortcuts(graph: Graph, adds: list[onnx.NodeProto]) -> onnx.ModelProto:
    """Reads the main branch where it was added to a shortcut."""
    copied, _ = _copied(graph)
    main = {a.output[0]: a.input[int(np.argmax(branches_of(graph, a).convolutions))] for a in adds}
    for node in copied.graph.node:
        node.input[:] = [main.get(name, name) for name in node.input]
    return copied


def _with_shortcuts(graph: Graph) -> onnx.ModelProto | None:
    """Adds a block's input behind every second convolution after the stem, in option A."""
    convolutions = [n for n in graph.nodes if n.op_type == "Conv"]
    relus = [graph.only_consumer(conv.output[0]) for conv in convolutions]
    ends = [relu.output[0] for relu in relus if relu is not None and relu.op_type == "Relu"]
    follows = all(c.input[0] == end for c, end in zip(convolutions[1:], ends, strict=False))
    if len(ends) != len(convolutions) or len(ends) % 2 == 0 or not follows:
        return None
    copied, nodes = _copied(graph)
    for index in range(2, len(convolutions), 2):
        start, relu, conv = ends[index - 2], relus[index], convolutions[index]
        before, after = graph.shapes.get(start, ()), graph.shapes.get(conv.output[0], ())
        if relu is None or len(before) != 3 or len(after) != 3:
            return None
        added = _shortcut(copied.graph, start, before, after)
        total = f"{start}_twin_sum"
        added.append(helper.make_node("Add", [conv.output[0], added[-1].output[0]], [total]))
        nodes[relu.name].input[0] = total
        position = list(copied.graph.node).index(nodes[relu.name])
        for node in reversed(added):
            copied.graph.node.insert(position, node)
        nodes = {node.name: node for node in copied.graph.node}
    return copied


def _shortcut(
    graph: onnx.GraphProto, start: str, before: tuple[int, ...], after: tuple[int, ...]
) -> list[onnx.NodeProto]:
    """Returns what thins a block's input out and pads its channels with zeros."""
    stride, more = -(-before[1] // after[1]), after[0] - before[0]
    constants = {
        "starts": [0, 0],
        "ends": list(before[1:]),
        "axes": [2, 3],
        "steps": [stride, stride],
        "pads": [0, more // 2, 0, 0, 0, more - more // 2, 0, 0],
    }
    names = {key: f"{start}_twin_{key}" for key in constants}
    for key, value in constants.items():
        array = np.array(value, np.int64)
        graph.initializer.append(numpy_helper.from_array(array, names[key]))
    thin, padded = f"{start}_twin_thin", f"{start}_twin_padded"
    slices = [names[key] for key in ("starts", "ends", "axes", "steps")]
    return [
        helper.make_node("Slice", [start, *slices], [thin]),
        helper.make_node("Pad", [thin, names["pads"]], [padded]),
    ]


def _copied(graph: Graph) -> tuple[onnx.ModelProto, dict[str, onnx.NodeProto]]:
    copied = onnx.ModelProto()
    copied.CopyFrom(graph.model)
    # Shapes that were inferred for the other network.
    del copied.graph.value_info[:]
    return copied, {node.name: node for node in copied.graph.node}

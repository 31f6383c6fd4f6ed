"""Strides moved to where they save work: what no reader looks at is not computed.

In the original ResNet the first 1x1 convolution of a stage and the projection beside it both
have stride 2: they read every second row and column of what the stage before makes. So the Add
in front of them, its 3x3 convolution and everything between can have that stride instead, and
the values that are left are the same. OpenVINO's StridesOptimization does so too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx
from onnx import helper

from edgeres.quantization.graph import Graph, attribute, integers, normalized, skeleton, view
from edgeres.quantization.placement import refusal
from edgeres.targets.onnxruntime.placement import adds_equals, is_pointwise, result_of

Pair = tuple[int, int]
"""Rows and columns."""

DENSE: Pair = (1, 1)


@dataclass(frozen=True, slots=True)
class Strides:
    """The strides of a network whose values are the same where they are read."""

    convolutions: Mapping[str, Pair] = field(default_factory=dict)
    """Strides by name of convolution, of those that have others than in the model."""
    additions: Mapping[tuple[str, int], Pair] = field(default_factory=dict)
    """Strides at which an addition, by name, reads one of its inputs, by index."""

    def of(self, convolution: onnx.NodeProto) -> Pair:
        """Returns the strides of a convolution."""
        return self.convolutions.get(convolution.name, _own(convolution))


def moved_strides(graph: Graph) -> Strides:
    """Returns the strides, each moved as far towards the image as it goes.

    A tensor is thinned out to every n-th row and column where an integer convolution or addition
    makes it and all that read it do so at stride n.
    """
    demands: dict[str, list[Pair]] = {graph.output: [DENSE]}
    thinned: dict[str, Pair] = {}
    strides: dict[str, Pair] = {}
    for node in reversed(graph.nodes):
        made = result_of(graph, node) if _can_skip(graph, node) else node.output[0]
        agreed = set(demands.get(made, ()))
        thinned[made] = agreed.pop() if len(agreed) == 1 and _can_skip(graph, node) else DENSE
        if node.op_type == "Conv":
            strides[node.name] = _times(_own(node), thinned[made])
        demand = _demand(graph, node, strides, thinned[made])
        for source in node.input:
            demands.setdefault(source, []).append(demand)
    return _settled(graph, thinned, strides)


def thinned_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a model with the same logits that computes no value which nothing reads.

    Tensors keep their names; those that are thinned out have fewer rows and columns.
    """
    made = normalized(model)
    strides = moved_strides(view(skeleton(made)))
    nodes = []
    for node in made.graph.node:
        for index, source in enumerate(node.input):
            read = strides.additions.get((node.name, index))
            if read is not None:
                thinned = f"{source}/{node.name}/thinned"
                nodes.append(
                    helper.make_node(
                        "MaxPool", [source], [thinned], kernel_shape=DENSE, strides=read
                    )
                )
                node.input[index] = thinned
        if node.name in strides.convolutions:
            kept = [a for a in node.attribute if a.name != "strides"]
            moved = helper.make_attribute("strides", strides.convolutions[node.name])
            del node.attribute[:]
            node.attribute.extend([*kept, moved])
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del made.graph.node[:], made.graph.value_info[:]
    made.graph.node.extend(copies)
    return made


def _can_skip(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node can make every n-th row and column alone.

    Not the first convolution, whose stride `stem.py` folds, and none whose padding depends on it.
    """
    if refusal(graph, node) is not None or graph.input in node.input:
        return False
    padded = attribute(node, "auto_pad") in (None, b"NOTSET", b"VALID")
    return adds_equals(graph, node) or (node.op_type == "Conv" and padded)


def _demand(graph: Graph, node: onnx.NodeProto, strides: Mapping[str, Pair], thinned: Pair) -> Pair:
    """Returns the stride at which a node reads its inputs."""
    if node.op_type == "Add":
        return thinned
    if node.op_type != "Conv" or refusal(graph, node) is not None:
        return DENSE
    return strides[node.name] if is_pointwise(graph, node) else DENSE


def _settled(graph: Graph, thinned: Mapping[str, Pair], strides: Mapping[str, Pair]) -> Strides:
    """Returns what is left for each reader to do once the tensors are thinned out."""
    convolutions, additions = {}, {}
    for node in graph.nodes:
        if node.op_type == "Conv":
            left = _over(strides[node.name], thinned.get(node.input[0], DENSE))
            if left != _own(node):
                convolutions[node.name] = left
        elif node.op_type == "Add":
            wanted = thinned.get(result_of(graph, node), DENSE)
            for index, source in enumerate(node.input):
                left = _over(wanted, thinned.get(source, DENSE))
                if left != DENSE:
                    additions[node.name, index] = left
    return Strides(convolutions, additions)


def _own(conv: onnx.NodeProto) -> Pair:
    rows, columns = integers(conv, "strides", DENSE)
    return rows, columns


def _times(strides: Pair, more: Pair) -> Pair:
    return strides[0] * more[0], strides[1] * more[1]


def _over(strides: Pair, done: Pair) -> Pair:
    return strides[0] // done[0], strides[1] // done[1]

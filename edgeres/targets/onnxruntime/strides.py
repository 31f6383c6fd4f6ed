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

from edgeres.graph_structure import skeleton
from edgeres.quantization.graph import Graph, attribute, integers, normalized, view
from edgeres.quantization.image import image_of
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
        return self.convolutions.get(convolution.name, _strides_of(convolution))


def moved_strides(graph: Graph) -> Strides:
    """Returns the strides, each moved as far towards the image as it goes.

    A tensor is thinned out to every n-th row and column where an integer convolution or addition
    makes it and all that read it do so at stride n.
    """
    image = image_of(graph).tensor
    demands: dict[str, list[Pair]] = {graph.output: [DENSE]}
    thinned: dict[str, Pair] = {}
    strides: dict[str, Pair] = {}
    # From the logits back, so that all readers of a tensor come before what computes it.
    for node in reversed(graph.nodes):
        # Not the first convolution, whose stride `stem.py` folds, and none whose padding depends
        # on its stride.
        movable = adds_equals(graph, node) or (
            node.op_type == "Conv" and attribute(node, "auto_pad") in (None, b"NOTSET", b"VALID")
        )
        skips = movable and refusal(graph, node) is None and image not in node.input
        result = result_of(graph, node) if skips else node.output[0]
        agreed = set(demands.get(result, ()))
        thinned[result] = agreed.pop() if skips and len(agreed) == 1 else DENSE
        demand = DENSE
        if node.op_type == "Conv":
            own, moved = _strides_of(node), thinned[result]
            strides[node.name] = own[0] * moved[0], own[1] * moved[1]
            # A larger window reads the rows and columns between, so its input has to be dense.
            if refusal(graph, node) is None and is_pointwise(graph, node):
                demand = strides[node.name]
        elif node.op_type == "Add":
            demand = thinned[result]
        for source in node.input:
            demands.setdefault(source, []).append(demand)
    convolutions, additions = {}, {}
    for node in graph.nodes:
        if node.op_type == "Conv":
            left = _divided(strides[node.name], thinned.get(node.input[0], DENSE))
            if left != _strides_of(node):
                convolutions[node.name] = left
        elif node.op_type == "Add":
            # An input that other readers need dense is thinned out in front of the addition.
            wanted = thinned.get(result_of(graph, node), DENSE)
            for index, source in enumerate(node.input):
                left = _divided(wanted, thinned.get(source, DENSE))
                if left != DENSE:
                    additions[node.name, index] = left
    return Strides(convolutions, additions)


def thinned_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a model with the same logits that computes no value which nothing reads.

    Tensors keep their names; those that are thinned out have fewer rows and columns.
    """
    thin = normalized(model)
    strides = moved_strides(view(skeleton(thin)))
    nodes = []
    for node in thin.graph.node:
        for index, source in enumerate(node.input):
            read = strides.additions.get((node.name, index))
            if read is not None:
                # A pool over one pixel takes every n-th row and column; Slice has no NCHWc kernel.
                node.input[index] = f"{source}/{node.name}/thinned"
                nodes.append(
                    helper.make_node(
                        "MaxPool", [source], [node.input[index]], kernel_shape=DENSE, strides=read
                    )
                )
        if node.name in strides.convolutions:
            kept = [a for a in node.attribute if a.name != "strides"]
            moved = helper.make_attribute("strides", strides.convolutions[node.name])
            del node.attribute[:]
            node.attribute.extend([*kept, moved])
        nodes.append(node)
    # Copies, because clearing the list below would empty nodes that still belong to the graph.
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del thin.graph.node[:], thin.graph.value_info[:]
    thin.graph.node.extend(copies)
    return thin


def _strides_of(conv: onnx.NodeProto) -> Pair:
    rows, columns = integers(conv, "strides", DENSE)
    return rows, columns


def _divided(strides: Pair, done: Pair) -> Pair:
    return strides[0] // done[0], strides[1] // done[1]

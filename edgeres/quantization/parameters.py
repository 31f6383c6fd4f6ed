"""Weights and biases of a graph, and a graph with others in their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeres.quantization.graph import Graph, emptied, view_of_normalized

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Parameters:
    """Weight and bias of one convolution."""

    weight: Array
    """(O, C / groups, kh, kw)."""
    bias: Array
    """(O,); zeros where the convolution has none."""


def parameters_of(graph: Graph, node: onnx.NodeProto) -> Parameters:
    """Returns a convolution's weight and bias as float32."""
    weight = np.asarray(graph.constant(node.input[1]), np.float32)
    bias = np.zeros(len(weight), np.float32)
    if len(node.input) > 2 and node.input[2]:
        bias = np.asarray(graph.constant(node.input[2]), np.float32)
    return Parameters(weight, bias)


def with_parameters(graph: Graph, parameters: Mapping[str, Parameters]) -> Graph:
    """Returns a graph whose named convolutions have these weights and biases, each its own."""
    if not parameters:
        return graph
    model, old = emptied(graph.model), graph.model.graph
    model.graph.node.extend(old.node)
    model.graph.value_info.extend(old.value_info)
    values: dict[str, Array] = {}
    for node in model.graph.node:
        if node.name in parameters:
            # Names of its own: ONNX lets two convolutions share a weight.
            weight, bias = node.name + "/recovered_weight", node.name + "/recovered_bias"
            values[weight], values[bias] = parameters[node.name].weight, parameters[node.name].bias
            node.input[:] = [node.input[0], weight, bias]
    # A network may be changed twice: what it was changed to first is overwritten, and what
    # nothing reads any more leaves the file.
    read = {name for node in model.graph.node for name in node.input}
    kept = {tensor.name: tensor for tensor in old.initializer if tensor.name in read}
    # One at a time: weights in memory once more are the largest part of what a search takes.
    for name in dict.fromkeys([*kept, *values]):
        is_new = name in values
        tensor = numpy_helper.from_array(values[name], name) if is_new else kept[name]
        model.graph.initializer.append(tensor)
    return view_of_normalized(model).keeping(graph.kept)

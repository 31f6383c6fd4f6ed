"""Weights and biases of a graph, and a graph with others in their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeres.quantization.graph import Graph, view

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
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
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
    old = [t for t in model.graph.initializer if t.name in read]
    new = {name: numpy_helper.from_array(value, name) for name, value in values.items()}
    del model.graph.initializer[:]
    model.graph.initializer.extend([new.pop(t.name, t) for t in old])
    model.graph.initializer.extend(new.values())
    return view(model).keeping(graph.kept)

"""Which convolutions have 2:4 sparse weights, the only ones that sparse kernels help.

Source: NVIDIA TensorRT developer guide, "Structured Sparsity": of every four consecutive input
channels at most two weights are not zero, for each output channel and kernel position.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

_GROUP = 4
_KEPT = 2


def sparse_layers(model: onnx.ModelProto) -> dict[str, bool]:
    """Returns whether each convolution's weights are 2:4 sparse, by its name.

    Args:
        model: in float, or with the weights behind DequantizeLinear.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    sources = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
    }
    found = {}
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        tensor = constants.get(sources.get(node.input[1], node.input[1]))
        found[node.name] = tensor is not None and is_sparse(numpy_helper.to_array(tensor))
    return found


def is_sparse(weight: NDArray[Any]) -> bool:
    """Returns whether a weight, (output channels, input channels, ...), is 2:4 sparse."""
    channels = weight.shape[1]
    if channels % _GROUP:
        return False
    groups = weight.reshape(weight.shape[0], channels // _GROUP, _GROUP, -1)
    return bool((np.count_nonzero(groups, axis=2) <= _KEPT).all())

"""Which convolutions have 2:4 sparse weights, the only ones that sparse kernels help.

Source: NVIDIA TensorRT developer guide, "Structured Sparsity": of every four consecutive input
channels at most two weights are not zero, for each output channel and kernel position.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeres.errors import ConfigError
from edgeres.plurals import counted

_GROUP = 4
_NON_ZERO = 2
_LOG = logging.getLogger("edgeres.targets")


def check_sparsity(model: onnx.ModelProto) -> None:
    """Checks that sparse kernels have something to run, and logs which convolutions do not.

    Args:
        model: in float, or with the weights behind DequantizeLinear.

    Raises:
        ConfigError: no convolution has 2:4 sparse weights.
    """
    layers = sparse_layers(model)
    dense = [name for name, sparse in layers.items() if not sparse]
    if len(dense) == len(layers):
        raise ConfigError(
            "--sparsity is for 2:4 sparse weights, and none of the "
            f"{counted(len(layers), 'convolution')} has them: at most two of every four input "
            "channels may be non-zero. Prune and retrain the network, or leave --sparsity out."
        )
    sparse, of_all = len(layers) - len(dense), counted(len(layers), "convolution")
    _LOG.info("2:4 sparse weights: %d of %s", sparse, of_all)
    if dense:
        _LOG.warning("no 2:4 sparse weights in %s", ", ".join(dense))


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
    sparse = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            # INT8 weights stand behind DequantizeLinear; symmetric rounding keeps zeros at zero.
            tensor = constants.get(sources.get(node.input[1], node.input[1]))
            sparse[node.name] = tensor is not None and is_sparse(numpy_helper.to_array(tensor))
    return sparse


def is_sparse(weight: NDArray[Any]) -> bool:
    """Returns whether a weight, (output channels, input channels, ...), is 2:4 sparse."""
    channels = weight.shape[1]
    # Such as the stem's three: NVIDIA has no sparse kernel for a group that is not whole.
    if channels % _GROUP:
        return False
    groups = weight.reshape(weight.shape[0], channels // _GROUP, _GROUP, -1)
    return bool((np.count_nonzero(groups, axis=2) <= _NON_ZERO).all())

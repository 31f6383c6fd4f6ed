"""Batch normalisation folded into the convolution before it.

W' = W * g, b' = (b - mean) * g + beta with g = gamma / sqrt(variance + eps).
Source: Jacob et al. 2018 (arXiv 1712.05877), section 3.2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeres.normalization.constants import Weights, put

_DEFAULT_EPSILON = 1e-5
"""Source: ONNX operator BatchNormalization, version 15."""


def fold_batch_norms(model: onnx.ModelProto, weights: Weights) -> int:
    """Folds, in place and in float64, each BatchNormalization that can be; returns how many.

    Left as they are: one that follows anything but a Conv (the Add of a pre-activation block),
    and one whose convolution something else reads too. A weight or bias that several convolutions
    share, as exporters write equal constants, gets a copy for each.

    Args:
        model: the graph, without stored tensors.
        weights: these; the folded ones are put in their place.
    """
    graph = model.graph
    pairs = list(foldable(graph, weights))
    if not pairs:
        return 0
    readers = Counter(name for node in graph.node for name in node.input)
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    folded: dict[str, str] = {}
    for conv, norm in pairs:
        for index, name in enumerate(conv.input[1:], start=1):
            if readers[name] > 1:
                readers[name] -= 1
                conv.input[index] = _free_name(name, taken)
                weights[conv.input[index]] = weights[name]
        _fold(conv, norm, weights, taken)
        folded[norm.output[0]] = conv.output[0]
    # What read a normalisation reads its convolution instead; both have the same shape.
    for node in graph.node:
        put(node.input, [folded.get(name, name) for name in node.input])
    put(graph.node, [node for node in graph.node if node.output[0] not in folded])
    read = {name for node in graph.node for name in node.input}
    for name in weights.keys() - read:
        del weights[name]
    return len(folded)


def foldable(
    graph: onnx.GraphProto, stored: Collection[str]
) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """Yields each convolution with the normalisation that can be folded into it.

    Args:
        graph: whose nodes.
        stored: names of the tensors that are.
    """
    constants = frozenset(stored)
    producers = {name: node for node in graph.node for name in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    outputs = {value.name for value in graph.output}
    # An output of the graph is read outside of it.
    readers.update(outputs)
    for norm in graph.node:
        if norm.op_type != "BatchNormalization" or norm.output[0] in outputs:
            continue
        conv = producers.get(norm.input[0])
        if conv is None or conv.op_type != "Conv" or not constants.issuperset(norm.input[1:]):
            continue
        parameters = [name for name in conv.input[1:] if name]
        if readers[conv.output[0]] == 1 and constants.issuperset(parameters):
            yield conv, norm


def _fold(
    conv: onnx.NodeProto,
    norm: onnx.NodeProto,
    weights: Weights,
    taken: set[str],
) -> None:
    """Writes the folded weight and bias of `conv` into `weights`."""
    # In float64, so that a product is rounded once, to the float32 that is stored.
    gamma, beta, mean, variance = (_float64(weights[name]) for name in norm.input[1:])
    epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), _DEFAULT_EPSILON)
    gain = gamma / np.sqrt(variance + epsilon)
    weight_name, bias_name = conv.input[1], "".join(conv.input[2:])
    weight = numpy_helper.to_array(weights[weight_name]).astype(np.float32, copy=False)
    bias = _float64(weights[bias_name]) if bias_name else np.zeros_like(mean)
    if not bias_name:
        bias_name = _free_name(weight_name.removesuffix(".weight") + ".bias", taken)
    gains = gain.reshape(-1, *[1] * (weight.ndim - 1))
    # Through NumPy's own buffer: all of a weight in float64 would be the export's largest array.
    folded = np.multiply(
        weight, gains, dtype=np.float64, casting="same_kind", out=np.empty_like(weight)
    )
    weights[weight_name] = numpy_helper.from_array(folded, weight_name)
    shifted = ((bias - mean) * gain + beta).astype(np.float32)
    weights[bias_name] = numpy_helper.from_array(shifted, bias_name)
    put(conv.input, [conv.input[0], weight_name, bias_name])


def _free_name(wanted: str, taken: set[str]) -> str:
    """Returns a name that no tensor has, and takes it."""
    while wanted in taken:
        wanted += "_"
    taken.add(wanted)
    return wanted


def _float64(tensor: onnx.TensorProto) -> NDArray[np.float64]:
    return numpy_helper.to_array(tensor).astype(np.float64)

"""Equalization: which factor each channel is divided by, so that one scale serves all of them.

A tensor is rounded in steps of its largest channel. A channel of smaller range that is widened to
it loses less, and its readers' weights carry what it was widened by, which costs them some of
theirs: so activations are evened out by a part of their ratio only, and less where weights are
large. Source: Xiao et al. 2023, SmoothQuant (arXiv 2211.10438), equation 4; by these strengths a
ResNet-32 gains 0.4 dB on images that nothing has seen, and a ResNet-50 loses as much, so that
held-out images decide.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgeres.core.recovery import LARGEST_FACTOR
from edgeres.quantization.equalized import Groups, channel_groups, has_constant_parameters
from edgeres.quantization.graph import Graph

Array = NDArray[np.float32]

_ACTIVATIONS, _WEIGHTS = 0.7, 0.5
"""Exponents of the relative ranges of a channel's activations, and of the weights that read it."""

_LEAST = 1e-3
"""Relative range below which a channel counts as this small: a dead one has no range."""


def equalization_of(graph: Graph, peaks: Mapping[str, Array]) -> dict[str, tuple[float, ...]]:
    """Returns, by activation that a convolution makes, what each channel is to be divided by.

    Channels of one group have one factor: by the largest relative range that any of their tensors
    has in them.

    Args:
        graph: the FP32 model.
        peaks: of its activations that are rounded, the range of each channel, (C,).
    """
    groups = channel_groups(graph)
    count = 1 + max(int(each.max(initial=0)) for each in groups.values())
    ranges, weights = np.zeros(count), np.zeros(count)
    for tensor, peak in peaks.items():
        largest = peak.max(initial=0.0)
        if tensor in groups and largest > 0:
            np.maximum.at(ranges, groups[tensor], np.maximum(peak / largest, _LEAST))
    for tensor, share in _weight_shares(graph):
        np.maximum.at(weights, groups[tensor], np.maximum(share, _LEAST))
    # A group without a rounded tensor, or that nobody reads, is at its own scale.
    logs = _ACTIVATIONS * np.log(np.where(ranges > 0, ranges, 1))
    logs -= _WEIGHTS * np.log(np.where(weights > 0, weights, 1))
    logs[0] = 0
    factors = np.exp(logs).clip(1 / LARGEST_FACTOR, LARGEST_FACTOR).astype(np.float32)
    return {
        tensor: tuple(float(factor) for factor in factors[groups[tensor]])
        for tensor in _results(graph, groups)
        if (factors[groups[tensor]] != 1).any()
    }


def _weight_shares(graph: Graph) -> list[tuple[str, Array]]:
    """Returns what each convolution reads, with the range of each channel's weights, (C,).

    Relative to the largest weight of the same filter, whose scale they share.
    """
    shares = []
    for node in graph.nodes:
        if node.op_type != "Conv" or not has_constant_parameters(graph, node):
            continue
        largest = np.abs(np.asarray(graph.constant(node.input[1]), np.float32)).max(axis=(2, 3))
        rows = largest.max(axis=1, keepdims=True)
        relative = largest / np.where(rows > 0, rows, 1)
        # A group's filters read its channels alone: (groups, filters, channels of a group).
        channels = (graph.shapes.get(node.input[0]) or (0,))[0]
        by_group = relative.reshape(channels // relative.shape[1], -1, relative.shape[1])
        shares.append((str(node.input[0]), by_group.max(axis=1).reshape(-1)))
    return shares


def _results(graph: Graph, groups: Groups) -> list[str]:
    """Returns the tensor that holds what each convolution makes, behind its ReLU."""
    results = []
    for node in (n for n in graph.nodes if n.op_type == "Conv" and n.output[0] in groups):
        after = graph.only_consumer(node.output[0])
        is_relu = after is not None and after.op_type == "Relu"
        results.append(str(after.output[0] if after is not None and is_relu else node.output[0]))
    return results

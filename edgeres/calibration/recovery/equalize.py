"""Cross-layer equalization: channels of one range on both sides of a ReLU.

Source: Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias
Correction, section 4.1, equation 11.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeres.core.recovery import LARGEST_FACTOR
from edgeres.quantization.graph import Graph
from edgeres.quantization.recovered import Parameters, equalizable, parameters_of, scaled_inputs

Array = NDArray[np.float32]


def equalization_of(graph: Graph) -> dict[str, tuple[float, ...]]:
    """Returns, by activation between two convolutions, what each channel is to be divided by.

    With r1 the range of the weights that make a channel and r2 of those that read it, the
    factor sqrt(r1 / r2) gives both the same range; a dead channel keeps its own. Factors are
    taken relative to their geometric mean: one that all channels share changes nothing.
    """
    changed: dict[str, Parameters] = {}
    found = {}
    for tensor, (before, after) in equalizable(graph).items():
        first = changed.get(before.name) or parameters_of(graph, before)
        second = changed.get(after.name) or parameters_of(graph, after)
        factors = _factors(_output_ranges(first.weight), _input_ranges(second, len(first.bias)))
        changed[after.name] = Parameters(scaled_inputs(second.weight, factors), second.bias)
        found[tensor] = tuple(float(factor) for factor in factors)
    return found


def _factors(made: Array, read: Array) -> Array:
    alive = (made > 0) & (read > 0)
    if not alive.any():
        return np.ones(len(made), np.float32)
    logs = np.log(np.where(alive, made, 1)) / 2 - np.log(np.where(alive, read, 1)) / 2
    relative = np.where(alive, np.exp(logs - logs[alive].mean()), 1)
    return relative.clip(1 / LARGEST_FACTOR, LARGEST_FACTOR).astype(np.float32)


def _output_ranges(weight: Array) -> Array:
    ranges: Array = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    return ranges


def _input_ranges(reader: Parameters, channels: int) -> Array:
    """Returns the largest weight that reads each channel, (channels,)."""
    largest = np.abs(reader.weight).max(axis=(2, 3))
    grouped = largest.reshape(channels // largest.shape[1], -1, largest.shape[1])
    ranges: Array = grouped.max(axis=1).reshape(-1)
    return ranges

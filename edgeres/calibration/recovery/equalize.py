"""Cross-layer equalization: channels of one range on both sides of a ReLU.

Source: Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias
Correction, section 4.1, equation 11.
"""

from __future__ import annotations

import numpy as np

from edgeres.core.recovery import LARGEST_FACTOR
from edgeres.quantization.graph import Graph
from edgeres.quantization.recovered import Parameters, equalizable, parameters_of, scaled_inputs


def equalization_of(graph: Graph) -> dict[str, tuple[float, ...]]:
    """Returns, by activation between two convolutions, what each channel is to be divided by.

    With r1 the range of the weights that make a channel and r2 of those that read it, the
    factor sqrt(r1 / r2) gives both the same range; a dead channel keeps its own. Factors are
    taken relative to their geometric mean: one that all channels share changes nothing.
    """
    changed: dict[str, Parameters] = {}
    equalization = {}
    for tensor, (before, after) in equalizable(graph).items():
        first = changed.get(before.name) or parameters_of(graph, before)
        second = changed.get(after.name) or parameters_of(graph, after)
        written = np.abs(first.weight).reshape(len(first.weight), -1).max(axis=1)
        # A group's outputs read its channels alone: (groups, outputs, channels of a group).
        largest = np.abs(second.weight).max(axis=(2, 3))
        grouped = largest.reshape(len(first.bias) // largest.shape[1], -1, largest.shape[1])
        read = grouped.max(axis=1).reshape(-1)
        alive = (written > 0) & (read > 0)
        factors = np.ones(len(written), np.float32)
        if alive.any():
            # In logarithms, so that the ratio of extreme ranges does not overflow.
            logs = np.log(np.where(alive, written, 1)) / 2 - np.log(np.where(alive, read, 1)) / 2
            relative = np.where(alive, np.exp(logs - logs[alive].mean()), 1)
            factors = relative.clip(1 / LARGEST_FACTOR, LARGEST_FACTOR).astype(np.float32)
        # A convolution between two such activations is changed by both, first on its inputs.
        changed[after.name] = Parameters(scaled_inputs(second.weight, factors), second.bias)
        equalization[tensor] = tuple(float(factor) for factor in factors)
    return equalization

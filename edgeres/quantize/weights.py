"""Weights and biases as integers: per channel, symmetric, zero point 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeres.quantize.methods import SIGNED_LEVELS, scale_of

_BIAS_LIMIT = float(2**30)
"""Largest integer bias, half of int32: the accumulator needs the other half."""


@dataclass(frozen=True, slots=True)
class QuantizedWeight:
    """An INT8 weight with a scale for each output channel."""

    values: NDArray[np.int8]
    """Same shape as the weight, in [-127, 127]."""
    scales: NDArray[np.float32]
    """Shape (channels,), positive."""
    axis: int


def quantize_weight(
    weight: NDArray[np.float32], scales: NDArray[np.float32], axis: int
) -> QuantizedWeight:
    """Returns the weight in units of its channels' scales, half to even, within [-127, 127].

    Args:
        weight: any shape; float32.
        scales: shape (channels,), positive.
        axis: dimension of the output channels.
    """
    shaped = scales.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    steps = np.rint(weight / shaped).clip(-SIGNED_LEVELS, SIGNED_LEVELS)
    return QuantizedWeight(steps.astype(np.int8), scales, axis)


def weight_scales(weight: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Returns amax / 127 of each channel along `axis`, shape (channels,)."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    amax = np.abs(weight).max(axis=others)
    return np.array([scale_of(float(a), SIGNED_LEVELS) for a in amax], np.float32)


def least_weight_scales(bias: NDArray[np.float32], input_scale: float) -> NDArray[np.float32]:
    """Returns the scales below which a channel's bias would not fit its int32.

    A bias is stored in units of input scale times weight scale. A nearly dead channel has so
    small a weight scale that its bias overflows; a coarser scale costs that channel nothing.
    """
    return (np.abs(bias) / (input_scale * _BIAS_LIMIT)).astype(np.float32)


def quantize_bias(bias: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.int32]:
    """Returns the bias in units of `scales` (input scale times weight scale), half to even."""
    return np.rint(bias.astype(np.float64) / scales.astype(np.float64)).astype(np.int32)

"""Weights and biases as integers: per channel, symmetric, zero point 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeres.quantization.grids import INT8, Grid

_FRACTIONS = np.arange(256, 231, -1, dtype=np.float32) / 256
"""Fractions of a channel's largest magnitude a that the mse search tries: 1 to 0.9.

At the best fraction s the error that clipping a alone adds, 2 a (1 - s) a step of s, is no more
than what rounding n weights gains, 2 n s (a / 127)^2 / 12: s is at least 1 / (1 + n / 193,548),
which is 0.95 for the widest 3x3 convolution of a Wide ResNet, up to the chance with which few
weights fall on a grid.
"""

_WITHIN_OCTAVE = (2.0 ** (np.arange(8) / 8)).astype(np.float32)
"""Multiples of the least scale that clips nothing, which the mse search tries for numbers whose step
doubles at each power of two: beyond an octave the same steps come again."""

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
    steps = INT8.nearest(weight / by_channel(scales, weight.ndim, axis))
    return QuantizedWeight(steps.astype(np.int8), scales, axis)


class WeightMemory:
    """The weights of one network on their grids, shared by lowerings that differ in thresholds."""

    def __init__(self) -> None:
        """Starts with none."""
        self._known: dict[str, tuple[NDArray[np.float32], QuantizedWeight]] = {}
        self._mse_scales: dict[str, NDArray[np.float32]] = {}

    def mse_scales(self, name: str, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the scales of a weight, (O, ...), with the least squared error, (O,).

        Args:
            name: of the operator.
            weight: its weight, always the same.
        """
        if name not in self._mse_scales:
            self._mse_scales[name] = mse_weight_scales(weight, axis=0)
        return self._mse_scales[name]

    def quantized(
        self,
        name: str,
        read: Callable[[], NDArray[np.float32]],
        adjusted: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    ) -> QuantizedWeight:
        """Returns a weight, (O, ...), on its grid; it is read only where it is not known so.

        Args:
            name: of the operator.
            read: returns its weight, always the same.
            adjusted: the scales to take, (O,), of those by which nothing is clipped.
        """
        if name in self._known:
            largest, quantized = self._known[name]
            scales = adjusted(largest)
            if np.array_equal(scales, quantized.scales):
                return quantized
            weight = read()
        else:
            weight = read()
            largest = weight_scales(weight, axis=0)
            scales = adjusted(largest)
        quantized = quantize_weight(weight, scales, axis=0)
        self._known[name] = largest, quantized
        return quantized


def by_channel(values: NDArray[np.float32], ndim: int, axis: int = 0) -> NDArray[np.float32]:
    """Returns values, (channels,), shaped to broadcast along `axis` of `ndim` dimensions."""
    return values.reshape([-1 if i == axis else 1 for i in range(ndim)])


def weight_scales(weight: NDArray[np.float32], axis: int, grid: Grid = INT8) -> NDArray[np.float32]:
    """Returns amax / qmax of each channel along `axis`, shape (channels,)."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    amax = np.abs(weight).max(axis=others)
    return np.array([grid.scale_from_amax(float(a)) for a in amax], np.float32)


def mse_weight_scales(
    weight: NDArray[np.float32], axis: int, grid: Grid = INT8
) -> NDArray[np.float32]:
    """Returns the scale of each channel along `axis`, (channels,), with the least squared error.

    A search over `_FRACTIONS` of the largest magnitude, or for floating-point numbers over
    `_WITHIN_OCTAVE`; the first of two that are as good.
    """
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    largest = weight_scales(weight, axis, grid)
    # One pass over the weights for each fraction: all at once would take 25 times their memory.
    best: NDArray[np.float32] = largest.copy()
    least = np.full(len(rows), np.inf, np.float32)
    for fraction in _FRACTIONS if grid.mantissa_bits is None else _WITHIN_OCTAVE:
        scales = largest * fraction
        steps = (rows / scales[:, None]).astype(np.float32)
        errors = steps - grid.nearest(steps)
        # Errors are in steps of this scale; in units of the largest one they compare.
        squared = np.einsum("ij,ij->i", errors, errors) * np.square(scales / largest)
        # Strictly less, from the widest on: of two that are as good the wider one stays.
        better = squared < least
        best[better], least[better] = scales[better], squared[better]
    return best


def clipped(weight: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns a weight, (O, ...), within 127 steps of its channels' scales, (O,).

    `weight_scales` of the result are these scales, so every lowering uses them.
    """
    limits = by_channel(INT8.qmax * scales, weight.ndim)
    return np.clip(weight, -limits, limits)


def least_weight_scales(bias: NDArray[np.float32], input_scale: float) -> NDArray[np.float32]:
    """Returns the scales below which a channel's bias would not fit its int32.

    A bias is stored in units of input scale times weight scale. A nearly dead channel has so
    small a weight scale that its bias overflows; a coarser scale costs that channel nothing.
    """
    return (np.abs(bias) / (input_scale * _BIAS_LIMIT)).astype(np.float32)


def bias_fits(bias: NDArray[np.float32], scales: NDArray[np.float32]) -> bool:
    """Whether a bias fits its int32 in units of `scales` (input scale times weight scale)."""
    return bool((np.abs(bias) <= scales.astype(np.float64) * _BIAS_LIMIT).all())


def quantize_bias(bias: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.int32]:
    """Returns the bias in units of `scales` (input scale times weight scale), half to even."""
    # float32 has 24 bits, fewer than a bias of 2^30 needs.
    return np.rint(bias.astype(np.float64) / scales.astype(np.float64)).astype(np.int32)

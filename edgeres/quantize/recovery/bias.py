"""Bias correction: each channel's bias takes up the mean by which quantization moves its output.

The means are of what the layer makes in the FP32 and in the quantized network, layers before
it corrected already, so what earlier layers left behind is corrected too.
Source: Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias
Correction, section 4.2 and appendix D (empirical form); Finkelstein et al. 2019.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeres.quantize.recovery.apply import Parameters
from edgeres.quantize.recovery.layers import Fitted, Layer
from edgeres.quantize.recovery.replay import Replay

Array = NDArray[np.float32]


def fit_bias(
    layer: Layer, nearest: Parameters, replays: tuple[Replay, Replay], fitted: int
) -> Fitted:
    """Returns the bias that takes the mean error of a layer to zero.

    Args:
        layer: the convolution, as `nearest` in the second replay.
        nearest: its weight rounded to the nearest, and its bias as trained.
        replays: the FP32 network and the simulated one.
        fitted: number of images to fit on; the rest judge.
    """
    exact, twin = replays
    means = _Means(len(nearest.bias))
    errors = _Errors(layer.relu)
    start = 0
    for (wanted,), (made,) in zip(
        exact.read([layer.target]), twin.read([layer.target]), strict=True
    ):
        inside = min(len(made), max(0, fitted - start))
        means.add(wanted[:inside] - made[:inside])
        errors.add(wanted[inside:], made[inside:], means.value)
        start += len(made)
    return Fitted(
        weight=nearest.weight,
        shift=means.value,
        up=None,
        before=errors.before,
        after=errors.after,
    )


class _Means:
    """Running mean of each channel."""

    def __init__(self, channels: int) -> None:
        self._sums = np.zeros(channels)
        self._count = 0

    def add(self, values: Array) -> None:
        """Adds (n, channels, h, w) values."""
        self._sums += values.sum(axis=(0, 2, 3), dtype=np.float64)
        self._count += values[:, 0].size

    @property
    def value(self) -> Array:
        """(channels,) float32."""
        return (self._sums / max(self._count, 1)).astype(np.float32)


class _Errors:
    """Mean squared error behind the ReLU, without and with a shift of the channels."""

    def __init__(self, relu: bool) -> None:
        self._least = 0.0 if relu else -np.inf
        self._sums = np.zeros(2)
        self._count = 0

    def add(self, wanted: Array, made: Array, shift: Array) -> None:
        """Adds (n, channels, h, w) outputs before the ReLU."""
        right = np.maximum(wanted, self._least)
        for index, values in enumerate((made, made + shift.reshape(-1, 1, 1))):
            error = np.maximum(values, self._least) - right
            self._sums[index] += np.square(error).sum(dtype=np.float64)
        self._count += wanted.size

    @property
    def before(self) -> float:
        return float(self._sums[0] / self._count)

    @property
    def after(self) -> float:
        return float(self._sums[1] / self._count)

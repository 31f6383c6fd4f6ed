"""Whether FP32 weights are rounded ones: multiples of a step in 10 bits or fewer, or values of FP8.

What quantization and its inverse leave when their operators are taken out, as a fake-quantized
network that was exported without them. A scale per output channel, and batch normalisation folded
since, keep each channel on a grid of its own. Weights that were kept in FP16 or BF16 lie on none:
their steps grow with the value, and a network that was trained or published in one of these is its
own FP32 reference once they are widened. Knows arrays and no model.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

_FP16_ROUNDING = 2.0**-10
"""Rounding of what was kept in FP16 since, as a fraction of its value."""

_STEPS = ((255, _FP16_ROUNDING), (1023, 2.0**-20))
"""Steps between a weight and its zero point in 8 and in 10 bits without sign, with the rounding
that weights had since. Of more than 8 bits FP16 would leave no trace; 11 bits are FP16's own."""

_EVIDENCE = 64
"""Distinct sizes in a channel, beside its first, of all channels: below it a grid may be chance, or
weights that were written by hand."""

_FP8_RANGE = 2.0**-14
"""Smallest normal number of E4M3 over its largest, 2**-6 / 448, rounded up."""

_LARGEST_KERNEL = 11
"""An axis that is no longer holds the places of a kernel, and no output channels."""

_SAMPLE = 16
"""Weights of a channel that are looked at first, which is all of them where they were trained."""


def are_rounded(weights: NDArray[np.floating]) -> bool:
    """Returns whether weights, output channels first or last, lie on grids of 10 bits or fewer."""
    if weights.ndim < 2:
        return False
    axes = (0,) if weights.ndim > 2 and weights.shape[-1] <= _LARGEST_KERNEL else (0, -1)
    return any(_all_on_grids(np.moveaxis(weights, axis, 0)) for axis in axes)


def _all_on_grids(channels: NDArray[np.floating]) -> bool:
    """Whether each of the weights along the first axis lies on a grid of its own."""
    evidence = 0
    for channel in channels:
        sizes = np.abs(channel[channel != 0])
        # The first channel that is not zero already shows weights that were left as trained.
        if sizes.size and not (_on_steps(sizes) or _on_fp8(sizes)):
            return False
        evidence += max(0, np.unique(sizes).size - 1)
    # One filter for all channels, as that of a blur, is a constant of its author's.
    return evidence >= _EVIDENCE and bool((channels != channels[:1]).any())


def _on_steps(sizes: NDArray[np.floating]) -> bool:
    """Whether numbers above 0 are multiples of one step, of which the largest has 1023 at most."""
    largest = sizes.max()
    return any(
        _any_fits(
            sizes,
            np.arange(1, most + 1, dtype=np.float64) / largest,
            partial(_are_integers, rounding=rounding),
        )
        for most, rounding in _STEPS
    )


def _on_fp8(sizes: NDArray[np.floating]) -> bool:
    """Whether numbers above 0 have four significant bits with one scale, as those of E4M3."""
    largest = float(sizes.max())
    # The largest has one of the eight significands from 8 to 15.
    return _any_fits(
        sizes[sizes >= largest * _FP8_RANGE],
        np.arange(8, 16) / largest,
        lambda numbers: _are_integers(16 * np.frexp(numbers)[0], _FP16_ROUNDING),
    )


def _any_fits(
    sizes: NDArray[np.floating],
    candidates: NDArray[np.float64],
    on_grid: Callable[[NDArray[np.float64]], NDArray[np.bool_]],
) -> bool:
    """Whether one of the factors puts all of the numbers on a grid."""
    for some in (sizes[:_SAMPLE], np.unique(sizes)):
        candidates = candidates[on_grid(some * candidates[:, None]).all(axis=1)]
        if not candidates.size:
            return False
    return True


def _are_integers(numbers: NDArray[np.float64], rounding: float) -> NDArray[np.bool_]:
    """Returns which of the numbers are integers, but for the rounding that weights had."""
    near: NDArray[np.bool_] = np.abs(numbers - np.rint(numbers)) <= numbers * rounding
    return near

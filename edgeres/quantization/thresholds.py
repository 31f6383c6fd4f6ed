"""Thresholds (amax) from the distribution of an activation, by four methods.

All work on a histogram of |x|, since the grids are symmetric or begin at zero: signed INT8 has
127 steps above zero, the unsigned grid behind a ReLU 255. Exact zeros are counted apart: zero maps to zero on every grid, so they carry no error
and would only drown the distribution that they are not part of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from edgeres.core.methods import Method
from edgeres.core.table import CalibrationTable, Threshold
from edgeres.errors import ArtifactError
from edgeres.quantization.grids import E4M3, INT8, UINT8, Grid

SEARCH_BINS = 2048
"""Bins over [0, amax] in the entropy and mse searches. Source: Migacz 2017, 8-bit Inference
with TensorRT, slide 38."""

_MSE_CANDIDATES = 192
_FLOAT_STRIDE = 8
"""One in so many of these candidates is tried for a grid of floating-point numbers."""

_CACHED_CANDIDATES = 128
_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, slots=True)
class Distribution:
    """Histogram of the absolute values of one activation."""

    counts: NDArray[np.int64]
    """Number of values in each bin; bin i covers [i, i + 1) * `bin_width`, zeros left out."""
    bin_width: float
    zeros: int
    """Number of values that are exactly zero."""
    amax: float
    """Largest absolute value, exact."""


def merged(first: Distribution, second: Distribution) -> Distribution:
    """Returns the distribution of all values of two, whose bins are powers of two wide.

    The one with the finer bins is coarsened by pairs, so nothing is lost but resolution.
    """
    if not first.bin_width or not second.bin_width:
        wide, narrow = (first, second) if first.bin_width else (second, first)
        return replace(wide, zeros=wide.zeros + narrow.zeros)
    narrow, wide = sorted((first, second), key=lambda each: each.bin_width)
    counts = narrow.counts
    for _ in range(round(np.log2(wide.bin_width / narrow.bin_width))):
        half = counts.reshape(-1, 2).sum(axis=1)
        counts = np.concatenate([half, np.zeros_like(half)])
    return Distribution(
        counts=counts + wide.counts,
        bin_width=wide.bin_width,
        zeros=first.zeros + second.zeros,
        amax=max(first.amax, second.amax),
    )


def thresholds(
    distribution: Distribution, *, signed: bool, percentile: float
) -> dict[Method, Threshold]:
    """Returns the threshold of every method, for the signed and (unless `signed`) unsigned grid.

    A tensor that was never anything but zero gets 0 everywhere, of which a grid makes a positive
    scale all the same.
    """
    at_percentile = percentile_amax(distribution, percentile)

    def threshold(amax: Callable[[Grid], float]) -> Threshold:
        u8 = None if signed else amax(UINT8)
        return Threshold(s8=amax(INT8), u8=u8, e4m3=amax(E4M3))

    return {
        Method.MAX: threshold(lambda _: distribution.amax),
        Method.PERCENTILE: threshold(lambda _: at_percentile),
        Method.ENTROPY: threshold(partial(entropy_amax, distribution)),
        Method.MSE: threshold(partial(mse_amax, distribution)),
    }


def threshold_of(table: CalibrationTable, tensor: str, method: Method | None, grid: Grid) -> float:
    """Returns the threshold of a tensor for a grid.

    Raises:
        ArtifactError: the table lacks the tensor, or was made before FP8.
    """
    threshold = table.threshold(tensor, method)
    amax = {INT8: threshold.s8, UINT8: threshold.u8, E4M3: threshold.e4m3}[grid]
    if amax is None:
        raise ArtifactError(
            f"The calibration table has no {grid.precision} threshold of '{tensor}': an earlier "
            "edgeres wrote it. Run calibrate again."
        )
    return amax


def percentile_amax(distribution: Distribution, percentile: float) -> float:
    """Returns the smallest amax that leaves `percentile` % of all values, zeros too, unclipped.

    Linear within a bin; never above the exact maximum.
    """
    counts, zeros = distribution.counts, distribution.zeros
    wanted = percentile / 100 * (zeros + int(counts.sum()))
    cumulative = zeros + np.cumsum(counts)
    # Where zeros alone are that fraction, the rule would clip every other value, so it clips none.
    if wanted >= cumulative[-1] or wanted <= zeros:
        return distribution.amax
    index = int(np.searchsorted(cumulative, wanted))
    before = cumulative[index] - counts[index]
    inside = (wanted - before) / counts[index]
    return float(min(distribution.amax, (index + inside) * distribution.bin_width))


def entropy_amax(distribution: Distribution, grid: Grid) -> float:
    """Returns the amax whose quantized distribution loses the least information (KL divergence).

    For each candidate of i bins, P is the histogram's first i bins with everything beyond put
    in the last, Q the same bins without that, merged into qmax + 1 groups and spread evenly
    over the bins of each group that are not empty; the candidate with the least KL(P || Q)
    wins. With prefix sums one candidate costs O(qmax), not O(bins).

    Source: Migacz 2017, 8-bit Inference with TensorRT, slides 28 to 39.
    """
    counts, width = rebinned(distribution, SEARCH_BINS)
    if distribution.amax == 0 or not counts.any():
        return distribution.amax
    # Fewer bins than groups cannot be merged, so the search begins at one bin a group.
    candidates = np.arange(len(grid.fractions) - 1, len(counts) + 1)
    best = candidates[int(np.argmin(_divergences(counts, candidates, grid)))]
    return float(min(distribution.amax, best * width))


def mse_amax(distribution: Distribution, grid: Grid) -> float:
    """Returns the amax with the least mean squared error of rounding and clipping.

    A search over candidates from 1/192 of the maximum to the maximum; the error of each is that
    of the centres of the histogram's bins, weighted by their counts.
    """
    counts, width = rebinned(distribution, SEARCH_BINS)
    if distribution.amax == 0 or not counts.any():
        return distribution.amax
    centres = (np.arange(len(counts)) + 0.5) * width
    # Numbers whose step grows with them err alike at most scales: fewer are as good.
    stride = 1 if grid.mantissa_bits is None else _FLOAT_STRIDE
    fractions = np.arange(stride, _MSE_CANDIDATES + 1, stride) / _MSE_CANDIDATES
    candidates = distribution.amax * fractions
    errors = []
    for scale in candidates / grid.qmax:
        restored = grid.nearest(centres / scale) * scale
        errors.append(np.dot(counts, (centres - restored) ** 2))
    return float(candidates[int(np.argmin(errors))])


def rebinned(distribution: Distribution, bins: int) -> tuple[NDArray[np.float64], float]:
    """Returns `bins` counts over exactly [0, amax] and their width in the tensor's unit.

    A bin of the histogram is split among the new bins by overlap, so counts become fractions.
    """
    width = distribution.amax / bins
    if width == 0:
        return np.zeros(bins), width
    edges = np.arange(len(distribution.counts) + 1) * distribution.bin_width
    cumulative = np.concatenate([[0.0], np.cumsum(distribution.counts)])
    at_new_edges = np.interp(np.arange(bins + 1) * width, edges, cumulative)
    # Rounding may leave the last edge short of the maximum; no value may be lost.
    at_new_edges[-1] = cumulative[-1]
    return np.diff(at_new_edges), width


def _divergences(
    counts: NDArray[np.float64], candidates: NDArray[np.int64], grid: Grid
) -> NDArray[np.float64]:
    """Returns KL(P || Q) of each candidate number of bins, infinite where Q cannot explain P.

    With p the counts and n the number of filled bins in a group of sum S, q = S / n on each
    of them, so that sum(p log q) needs only the groups' sums: prefix sums give them at once.
    """
    total = _prefix(counts)
    filled = _prefix((counts > 0).astype(float))
    inside = total[candidates]
    outliers = total[-1] - inside
    last = counts[candidates - 1]
    last_log, p_log_q = np.empty(len(candidates)), np.empty(len(candidates))
    edges = _edges(int(candidates[0]), len(counts), grid)
    # As many at a time as the processor's cache holds: a quarter of the time of all at once.
    for first in range(0, len(candidates), _CACHED_CANDIDATES):
        rows = slice(first, first + _CACHED_CANDIDATES)
        sums = np.diff(total.take(edges[rows]), axis=1)
        spread = sums / np.maximum(np.diff(filled.take(edges[rows]), axis=1), 1)
        log_spread = np.log(np.maximum(spread, _TINY))
        last_log[rows] = log_spread[:, -1]
        p_log_q[rows] = (sums * log_spread).sum(axis=1)
    p_log_q += outliers * last_log
    p_log_p = _prefix(_x_log_x(counts))[candidates - 1] + _x_log_x(last + outliers)
    divergence = (
        (p_log_p - p_log_q) / total[-1] - np.log(total[-1]) + np.log(np.maximum(inside, _TINY))
    )
    # Q has no mass in an empty last bin, where P has the outliers.
    return np.where((last == 0) & (outliers > 0), np.inf, divergence)


@cache
def _edges(fewest: int, most: int, grid: Grid) -> NDArray[np.intp]:
    """Returns the bounds of the groups of `fewest` to `most` bins, a row for each number of bins.

    Group k of i bins covers what is rounded to the grid's number k. On integers that is
    [k * i // groups, (k + 1) * i // groups): sizes differ by one at most.
    """
    candidates = np.arange(fewest, most + 1)[:, None]
    if grid.mantissa_bits is None:
        groups = grid.qmax + 1
        return (candidates * np.arange(groups + 1) // groups).astype(np.intp)
    return np.floor(candidates * grid.fractions).astype(np.intp)


def _prefix(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(values)])


def _x_log_x(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values * np.log(np.maximum(values, _TINY))

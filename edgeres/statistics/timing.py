"""What chance does to latencies that were taken in blocks.

Latencies close in time resemble each other: a clock that dips slows a whole block. So a block,
not a sample, is what is drawn when intervals are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import scipy
from numpy.typing import NDArray

FEWEST_BLOCKS = 5
"""Fewer blocks than this make no interval and no trend. From here on the intervals of simulated
latencies cover the truth in 93 % of runs or more, and Kendall's test can reach 5 %."""

DRAWS = 2000
"""Times that the blocks are drawn anew for an interval. Source: Efron and Tibshirani 1993, an
Introduction to the Bootstrap, section 14.3: 1000 or more."""

_TAIL = 0.025
_CELLS_AT_ONCE = 1 << 22
"""Bounds the memory of a bootstrap, in numbers."""

MLPERF_CONFIDENCE = 0.99
"""Source: MLPerf inference rules, early stopping; LoadGen's results.cc."""


@cache
def samples_needed(percentile: int) -> int:
    """Returns the samples from which MLPerf accepts a statement on a percentile.

    The smallest n at which at most one of n samples above the percentile has a chance of
    1 - `MLPERF_CONFIDENCE` or less: 64 for the 90th, 662 for the 99th percentile.

    Source: MLPerf inference rules, early stopping, with one sample over the latency.
    """
    share = 1 - percentile / 100
    count = 2
    # The binomial distribution of none and of one, which scipy takes a millisecond for.
    while (1 - share) ** (count - 1) * (1 + (count - 1) * share) > 1 - MLPERF_CONFIDENCE:
        count += 1
    return count


def percentiles(samples: Sequence[float], wanted: Sequence[int]) -> tuple[float, ...]:
    """Returns percentiles, linear between the samples (Hyndman and Fan's type 7)."""
    values: list[float] = np.percentile(np.asarray(samples), wanted, method="linear").tolist()
    return tuple(values)


class BlockBootstrap:
    """Percentiles and means of samples whose blocks are drawn anew, with replacement.

    Two networks that were timed interleaved are given the same `choices`, so that their ratio keeps
    what a block did to both.

    Source: Davison and Hinkley 1997, Bootstrap Methods, section 3.8 (groups as units); the
    percentile interval is Efron and Tibshirani 1993, section 13.3.
    """

    def __init__(
        self, samples: Sequence[float], blocks: Sequence[int], choices: NDArray[np.int64]
    ) -> None:
        """Sorts the samples once.

        Args:
            samples: (n,), in any unit.
            blocks: (n,), block of each sample, 0 to below the number of blocks.
            choices: (draws, blocks), how often each block was drawn.
        """
        order = np.argsort(samples, kind="stable")
        self._sorted = np.asarray(samples, dtype=np.float64)[order]
        self._blocks = np.asarray(blocks)[order]
        self._choices = choices

    def percentile(self, percentile: int) -> NDArray[np.float64]:
        """Returns the percentile, type 7, of every draw, (draws,)."""
        step = max(1, _CELLS_AT_ONCE // len(self._sorted))
        starts = range(0, len(self._choices), step)
        parts = [self._percentile(self._choices[at : at + step], percentile) for at in starts]
        return np.concatenate(parts)

    def mean(self) -> NDArray[np.float64]:
        """Returns the mean of every draw, (draws,)."""
        count = self._choices.shape[1]
        sums = np.bincount(self._blocks, weights=self._sorted, minlength=count)
        sizes = np.bincount(self._blocks, minlength=count)
        means: NDArray[np.float64] = (self._choices @ sums) / (self._choices @ sizes)
        return means

    def _percentile(self, choices: NDArray[np.int64], percentile: int) -> NDArray[np.float64]:
        # A draw repeats each sample as often as its block was drawn. The repeats are not sorted but
        # counted up in the samples' order: a rank's value is the first whose count exceeds it.
        ranks = choices[:, self._blocks].cumsum(axis=1)
        wanted = (ranks[:, -1] - 1) * percentile / 100
        below = np.floor(wanted).astype(np.int64)
        low = self._sorted[(ranks > below[:, None]).argmax(axis=1)]
        above = np.minimum(below + 1, ranks[:, -1] - 1)
        high = self._sorted[(ranks > above[:, None]).argmax(axis=1)]
        values: NDArray[np.float64] = low + (high - low) * (wanted - below)
        return values


def draw_blocks(count: int, draws: int = DRAWS, seed: int = 0) -> NDArray[np.int64]:
    """Returns how often each of `count` blocks is drawn in each draw, (draws, count)."""
    shares = np.full(count, 1 / count)
    drawn: NDArray[np.int64] = np.random.default_rng(seed).multinomial(count, shares, size=draws)
    return drawn


def interval95(
    replicates: NDArray[np.float64], estimate: float, blocks: int
) -> tuple[float, float]:
    """Returns the 95 % interval of a latency, or of a ratio of latencies.

    The middle 95 % of the draws' figures, its distances from the estimate widened for few blocks:
    1.82 times for 5, 1.27 for 10, 1.05 for 35.

    Args:
        replicates: (draws,), the figure of every draw, above zero.
        estimate: the figure of the samples themselves, above zero.
        blocks: number that were drawn from, 3 or more; of two independent runs the smaller number.

    Source: Hesterberg 2015, What Teachers Should Know About the Bootstrap, The American
    Statistician 69: the percentile interval of n units is too narrow by sqrt((n - 1) / n), and by
    the normal quantile in place of Student's.
    """
    # One degree of freedom less than for a mean, whose spread is better known than a median's.
    # Chosen by simulation: 5 and 6 blocks then cover 95 % of the time, with n - 1 they cover 94.
    wider = float(scipy.stats.t.ppf(1 - _TAIL, blocks - 2) / scipy.stats.norm.ppf(1 - _TAIL))
    wider *= float(np.sqrt(blocks / (blocks - 1)))
    # As factors, not differences: a latency's lower end then stays above zero, and the interval of
    # a ratio is that of its inverse turned round.
    low, high = estimate * (np.quantile(replicates, (_TAIL, 1 - _TAIL)) / estimate) ** wider
    return float(low), float(high)


def trend(values: Sequence[float]) -> tuple[float, float]:
    """Returns the change of `values` from first to last as a fraction of their median, and its p.

    Source: slope of Theil 1950 and Sen 1968; test of Mann 1945 and Kendall 1975.
    """
    places = np.arange(len(values))
    # All slopes of a constant are zero, and its ties leave Kendall's test without a value.
    if len(set(values)) == 1:
        return 0.0, 1.0
    slope = scipy.stats.theilslopes(values, places).slope
    change = slope * (len(values) - 1) / float(np.median(values))
    return float(change), float(scipy.stats.kendalltau(places, values).pvalue)


def outer_fence(samples: Sequence[float]) -> float:
    """Returns what a sample must exceed to be called an outlier.

    Source: Tukey 1977, Exploratory Data Analysis: third quartile plus 3 interquartile ranges.
    """
    first, third = percentiles(samples, (25, 75))
    return third + 3 * (third - first)


def far_from_others(values: Sequence[float], least: float) -> tuple[bool, ...]:
    """Returns which of several values lies beyond the spread of the others; of two, none does.

    Args:
        values: one for each of those that are compared.
        least: distance from the median that a value must exceed, however close the others are.

    Source: Iglewicz and Hoaglin 1993, How to Detect and Handle Outliers: a modified z-score,
    0.6745 times the distance over the median absolute deviation, above 3.5.
    """
    if len(values) < 3:
        return (False,) * len(values)
    distances = np.abs(np.asarray(values) - np.median(values))
    limit = max(least, 3.5 / 0.6745 * float(np.median(distances)))
    return tuple(bool(distance > limit) for distance in distances)

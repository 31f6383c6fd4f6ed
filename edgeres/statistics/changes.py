"""Where the level of a series changed, if a test finds that it did.

The statistic is the largest standardized difference of the mean rank between a stretch of runs and
all others: of a stretch that begins the series, which is one change, and where there is none of any
stretch, a change there and one back. Ranks, so that one slow run is no change. Its distribution
without a change is that of the same values in random orders, which needs no assumption but that
runs of a steady series could have come in any order.

Source: Pettitt 1979, A Non-Parametric Approach to the Change-Point Problem; the permutation test
of the maximum is Antoch and Huskova 2001; stretches, and the search within the parts, are Olshen et
al. 2004, Circular binary segmentation.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

FALSE_ALARMS = 0.05
"""Chance that a steady series is taken for changed anywhere."""

FEWEST_RUNS = 10
"""Shorter series are not tested: of 10 values 2 in 252 orders have the five low ones first or last,
of 8 values 2 in 70, which chance would bring too often."""

_LEAST = 2
"""Runs on either side of a change: one alone is an outlier."""

_ORDERS = 999
"""Random orders. Source: Davison and Hinkley 1997, Bootstrap Methods, section 4.2.5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelChange:
    """A place where the level changed."""

    at: int
    """Position of the first value of the new level."""
    p_value: float


def level_changes(
    values: Sequence[float], false_alarms: float = FALSE_ALARMS
) -> tuple[LevelChange, ...]:
    """Returns where the level changed, in order; none for fewer than `FEWEST_RUNS` values.

    Parts before and behind a change are tested too, and only then, so that a steady series is
    tested once.

    Args:
        values: in the order of time.
        false_alarms: chance that a steady series is taken for changed.
    """
    series = np.asarray(values, np.float64)
    pending, changes = [(0, len(series))], list[LevelChange]()
    while pending:
        start, end = pending.pop()
        # One change first, there and back only where there is none: each with half of the chance.
        tried = (_likeliest(series[start:end], inner=inner) for inner in (False, True))
        stretch = next((one for one in tried if one and one.p_value <= false_alarms / 2), None)
        if stretch is None:
            continue
        inside = [at for at in (stretch.start, stretch.end) if 0 < at < end - start]
        changes += [LevelChange(at=start + at, p_value=stretch.p_value) for at in inside]
        pending += itertools.pairwise([start, *(start + at for at in inside), end])
    return tuple(sorted(changes, key=lambda change: change.at))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stretch:
    start: int
    end: int
    p_value: float


def _likeliest(values: NDArray[np.float64], *, inner: bool) -> _Stretch | None:
    """Returns the stretch that differs most from the rest; None in a short or a constant series.

    Args:
        values: in the order of time.
        inner: whether it may begin anywhere, or only at the first value.
    """
    count = len(values)
    if count < FEWEST_RUNS or np.ptp(values) == 0:
        return None
    ranks = scipy.stats.rankdata(values)
    # The same orders for the same series: a verdict on a file does not depend on the day.
    orders = np.random.default_rng(count).permuted(np.tile(ranks, (_ORDERS, 1)), axis=1)
    rows = np.vstack([ranks, orders]) - ranks.mean()
    sums = np.concatenate([np.zeros((len(rows), 1)), rows.cumsum(axis=1)], axis=1)
    # A run alone at an end is an outlier, whether the stretch or the rest has it.
    places = [0, *range(_LEAST, count - _LEAST + 1), count]
    best, likeliest = np.zeros(len(rows)), (0, 0)
    for start in places if inner else [0]:
        ends = np.array([e for e in places if _LEAST <= e - start <= count - _LEAST], np.int64)
        if not len(ends):
            continue
        lengths = ends - start
        scale = np.sqrt(count / (lengths * (count - lengths)))
        sizes = np.abs(sums[:, ends] - sums[:, [start]]) * scale
        largest = sizes.max(axis=1)
        if largest[0] > best[0] * (1 + 1e-12):
            likeliest = (start, int(ends[sizes[0].argmax()]))
        best = np.maximum(best, largest)
    # Equal to rounding counts as reached, or ties would make the test too lenient.
    reached = int((best[1:] >= best[0] * (1 - 1e-12)).sum())
    start, end = likeliest
    return _Stretch(start=start, end=end, p_value=(1 + reached) / (1 + _ORDERS))

"""Intervals, trends and counts of latencies against plain recomputation."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeres.statistics import (
    FEWEST_BLOCKS,
    BlockBootstrap,
    draw_blocks,
    interval95,
    outer_fence,
    percentiles,
    samples_needed,
    timing,
    trend,
)


@pytest.mark.parametrize(("percentile", "needed"), [(90, 64), (99, 662), (95, 130), (50, 11)])
def test_as_many_samples_as_mlperf_asks_for(percentile: int, needed: int) -> None:
    """The 64 of its single stream and the 662 of its multi-stream; and the binomial in integers."""

    def chance(count: int) -> float:
        over, under = 100 - percentile, percentile
        accepted = sum(comb(count, k) * over**k * under ** (count - k) for k in (0, 1))
        return float(accepted / 100**count)

    assert samples_needed(percentile) == needed
    assert chance(needed) <= 0.01 < chance(needed - 1)


BLOCKED = st.lists(
    st.lists(st.integers(1, 9).map(float), min_size=1, max_size=4), min_size=2, max_size=5
)


@given(groups=BLOCKED, percentile=st.sampled_from([0, 50, 90, 99, 100]), data=st.data())
def test_a_draw_is_summarised_as_its_samples_would_be(
    groups: list[list[float]], percentile: int, data: st.DataObject
) -> None:
    """By numpy's percentile and mean of the drawn blocks put one after the other."""
    count = len(groups)
    picked = data.draw(st.lists(st.integers(0, count - 1), min_size=count, max_size=count))
    choices = np.bincount(picked, minlength=count)[np.newaxis]
    samples = [sample for group in groups for sample in group]
    blocks = [number for number, group in enumerate(groups) for _ in group]
    drawn = BlockBootstrap(samples, blocks, choices)
    expected = [sample for number in picked for sample in groups[number]]
    (value,) = drawn.percentile(percentile)
    assert value == pytest.approx(np.percentile(expected, percentile))
    assert drawn.mean() == pytest.approx([np.mean(expected)])


def test_memory_is_bounded_without_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts of a few draws, the same figures."""
    samples, blocks = list(range(60)), [number // 5 for number in range(60)]
    drawn = BlockBootstrap(samples, blocks, draw_blocks(12, draws=50))
    at_once = drawn.percentile(90)
    monkeypatch.setattr(timing, "_CELLS_AT_ONCE", 200)
    assert drawn.percentile(90).tolist() == at_once.tolist()


def test_blocks_are_drawn_with_replacement_and_by_seed() -> None:
    """As many as there are each time, every block as often as another, the same by the same seed."""
    choices = draw_blocks(20, draws=4000)
    assert (choices.sum(axis=1) == 20).all()
    assert choices.mean(axis=0) == pytest.approx(np.ones(20), abs=0.06)
    assert choices.tolist() == draw_blocks(20, draws=4000).tolist()


@pytest.mark.parametrize(
    ("blocks", "student"), [(5, 3.182), (10, 2.306), (35, 2.035), (10**6, 1.960)]
)
def test_the_interval_is_the_middle_of_the_draws_widened(blocks: int, student: float) -> None:
    """By Student's tabulated quantile, n - 2, over the normal one, and by Bessel's correction."""
    replicates = np.exp(np.linspace(-1, 1, 1001))
    wider = student / 1.960 * (blocks / (blocks - 1)) ** 0.5
    ends = np.exp([-0.95 * wider, 0.95 * wider])
    assert interval95(replicates, 1.0, blocks) == pytest.approx(ends, rel=1e-3)


def test_the_interval_of_a_ratio_is_that_of_its_inverse_turned_round() -> None:
    """Whichever network is named first, nothing else is stated; and no end falls below zero."""
    replicates = np.random.default_rng(0).lognormal(0.7, 0.8, 4001)
    low, high = interval95(replicates, 2.0, 5)
    assert interval95(1 / replicates, 0.5, 5) == pytest.approx((1 / high, 1 / low))
    assert 0 < low < 2 < high


def runs(count: int) -> NDArray[np.float64]:
    """Returns latencies of 35 blocks of 20, each block shifted as one, (count, 35, 20)."""
    rng = np.random.default_rng(3)
    shift = rng.normal(0, 0.5, (count, 35, 1))
    return 10 + shift + rng.exponential(1.0, (count, 35, 20))


def test_intervals_hold_the_truth_although_blocks_differ() -> None:
    """400 seeded runs: about 95 % of the medians' intervals; drawing samples holds far fewer."""
    truth = float(np.median(runs(4000)))
    blocks = [number // 20 for number in range(700)]

    def covered(of: list[int], count: int) -> float:
        choices = draw_blocks(count, draws=400)
        ends = (
            interval95(
                BlockBootstrap(run.ravel(), of, choices).percentile(50),
                float(np.median(run)),
                count,
            )
            for run in runs(400)
        )
        return float(np.mean([low <= truth <= high for low, high in ends]))

    assert 0.91 <= covered(blocks, 35) <= 0.98
    assert covered(list(range(700)), 700) < 0.75


@dataclass(frozen=True, kw_only=True)
class Wander:
    """How the logarithm of a latency varies; its median is that of the latency in any case."""

    between: float
    """Standard deviation of the blocks."""
    within: float
    """And of the samples of one."""
    correlation: float
    """Of neighbouring samples of a block."""

    def latencies(
        self, generator: np.random.Generator, blocks: int, median: float
    ) -> NDArray[np.float64]:
        """Returns a run of blocks of 20, (blocks, 20)."""
        steps = generator.normal(size=(blocks, 20))
        for n in range(1, 20):
            steps[:, n] *= (1 - self.correlation**2) ** 0.5
            steps[:, n] += self.correlation * steps[:, n - 1]
        shifts = self.between * generator.normal(size=(blocks, 1))
        run: NDArray[np.float64] = median * np.exp(shifts + self.within * steps)
        return run


WANDERS = {
    "blocks and samples alike": Wander(between=0.05, within=0.05, correlation=0.6),
    "blocks more than samples": Wander(between=0.2, within=0.04, correlation=0.3),
    "samples alone": Wander(between=0.0, within=0.1, correlation=0.8),
    "a heavy tail": Wander(between=0.1, within=0.8, correlation=0.5),
}


def covering(wander: Wander, blocks: int, *, ratio: bool) -> float:
    """Returns how many of 400 seeded runs have the true median, 10, or ratio of medians, 2."""
    generator, numbers = np.random.default_rng(blocks), [n // 20 for n in range(20 * blocks)]
    choices, covered = draw_blocks(blocks, draws=500), []
    for _ in range(400):
        run = wander.latencies(generator, blocks, 10.0).ravel()
        drawn = BlockBootstrap(run.tolist(), numbers, choices).percentile(50)
        estimate, truth = float(np.median(run)), 10.0
        if ratio:
            other = wander.latencies(generator, blocks, 5.0).ravel()
            drawn = drawn / BlockBootstrap(other.tolist(), numbers, choices).percentile(50)
            estimate, truth = estimate / float(np.median(other)), 2.0
        low, high = interval95(drawn, estimate, blocks)
        covered.append(low <= truth <= high)
    return float(np.mean(covered))


@pytest.mark.parametrize("ratio", [False, True], ids=["median", "speedup"])
@pytest.mark.parametrize("blocks", [FEWEST_BLOCKS, 7, 10, 20])
@pytest.mark.parametrize("wander", WANDERS.values(), ids=WANDERS)
def test_few_blocks_cover_the_truth_as_often_as_many(
    wander: Wander, blocks: int, ratio: bool
) -> None:
    """93 % or more of 400 seeded runs from 5 blocks on, and not by intervals that hold anything."""
    assert 0.93 <= covering(wander, blocks, ratio=ratio) <= 0.985


def test_the_draws_alone_are_too_narrow_for_few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the normal quantile instead of Student's 5 blocks miss the truth every ninth time."""
    monkeypatch.setattr("scipy.stats.t.ppf", lambda *_: 1.96)
    assert covering(WANDERS["blocks and samples alike"], FEWEST_BLOCKS, ratio=False) < 0.91


def test_a_trend_is_that_of_the_line() -> None:
    """From 10 to 12 around a median of 11; no trend in a constant, none in noise."""
    change, p_value = trend(np.linspace(10, 12, 30).tolist())
    assert change == pytest.approx(2 / 11)
    assert p_value < 1e-6
    assert trend([3.0] * 20) == (0.0, 1.0)
    assert trend(np.random.default_rng(0).normal(10, 1, 35).tolist())[1] > 0.05


def test_an_outlier_does_not_make_a_trend() -> None:
    """One block of a hundred times the time leaves the slope at zero."""
    assert trend([1.0] * 19 + [100.0])[0] == 0.0


def test_the_fence_is_three_interquartile_ranges_above() -> None:
    """Quartiles of 1 to 5 are 2 and 4."""
    assert outer_fence([5.0, 1.0, 4.0, 2.0, 3.0]) == 4 + 3 * 2


def test_percentiles_are_linear() -> None:
    """Type 7 of Hyndman and Fan: rank (n - 1) p."""
    assert percentiles([4.0, 1.0, 3.0, 2.0], (0, 50, 90)) == pytest.approx((1.0, 2.5, 3.7))

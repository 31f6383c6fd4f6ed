"""Changes of level: found where they are, and rarely where there are none."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeres.statistics import FALSE_ALARMS, FEWEST_RUNS, level_changes


def test_a_steady_series_rarely_changes() -> None:
    """At most 5 % of 300 steady histories, of several lengths and shapes, with ties and tails."""
    rng = np.random.default_rng(7)
    shapes = (
        lambda n: rng.normal(size=n),
        lambda n: rng.standard_t(2, size=n),
        lambda n: rng.integers(0, 3, size=n).astype(float),
        lambda n: np.exp(rng.normal(size=n)),
    )
    alarms = sum(
        bool(level_changes(list(np.asarray(shapes[number % 4](10 + 7 * (number % 5))))))
        for number in range(300)
    )
    # 5 % of 300 are 15; beyond 24 a rate of 5 % has a chance of 1 in 100.
    assert alarms <= 24


@pytest.mark.parametrize("at", [5, 12, 20])
@pytest.mark.parametrize("size", [1.5, 4.0])
def test_a_shift_is_found_at_its_place(at: int, size: float) -> None:
    """Noise of one, and a shift of several times that, up or down."""
    rng = np.random.default_rng(at)
    for sign in (1, -1):
        values = 0.3 * rng.normal(size=25)
        values[at:] += sign * size
        (change,) = level_changes(values.tolist())
        assert abs(change.at - at) <= 1
        assert change.p_value <= FALSE_ALARMS


def test_there_and_back_is_two_changes() -> None:
    """An engine that was slow for a week."""
    values = [1.0 + 0.01 * (i % 3) for i in range(30)]
    values[10:20] = [2.0 + 0.01 * (i % 3) for i in range(10)]
    assert [change.at for change in level_changes(values)] == [10, 20]


@pytest.mark.parametrize(
    "values",
    [
        [1.0] * 40,
        [*[1.0] * 20, 50.0, *[1.0] * 20],
        [1.0] * 4 + [9.0] * (FEWEST_RUNS - 5),
        [],
    ],
    ids=["constant", "one outlier", "short", "empty"],
)
def test_what_is_no_change(values: list[float]) -> None:
    """A constant, one slow run, and too few runs to know."""
    assert level_changes(values) == ()


def test_the_chance_is_that_of_all_orders() -> None:
    """Ten values, half of them higher, beside a plain simulation of the definition."""
    values = [3.0, 1.0, 4.0, 2.0, 5.0, 13.0, 11.0, 14.0, 12.0, 15.0]
    ranks = (np.argsort(np.argsort(values)) + 1).astype(np.float64)

    def largest(row: NDArray[np.float64]) -> float:
        return max(
            float(abs(row[:k].mean() - row[k:].mean()) / np.sqrt(1 / k + 1 / (10 - k)))
            for k in range(2, 9)
        )

    own = largest(ranks)
    (change,) = level_changes(values)
    assert change.at == 5
    rng = np.random.default_rng(1)
    simulated = np.mean([largest(rng.permutation(ranks)) >= own - 1e-9 for _ in range(4000)])
    assert change.p_value == pytest.approx(simulated, abs=0.015)


def test_the_same_series_has_the_same_answer() -> None:
    """Whatever was tested before."""
    values = np.random.default_rng(3).normal(size=20).tolist()
    first = level_changes(values, 1.0)
    level_changes(list(range(30)))
    assert level_changes(values, 1.0) == first

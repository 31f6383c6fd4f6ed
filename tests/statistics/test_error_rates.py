"""How often the interval holds the true drop and the gate lets a bad engine pass.

Exact sums over every outcome, with the score statistic written down a second time for arrays;
and 10,000 seeded draws through the functions themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, norm

from edgeres.statistics import GATE_CONFIDENCE, Z95, drop_bound, drop_interval

DRAWS = 10_000
SAMPLES = (500, 2000, 10_000)
DROPS = (0.0, 0.003, 0.01)
AGREEMENTS = (0.9, 0.95, 0.98, 0.99, 0.995)
LIMITS = (0.0, 0.001, 0.003, 0.005, 0.01, 0.02)
BEYOND = 0.001
"""How far over the limit a bad engine's true drop is."""

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Truth:
    """A number of images, and how the two networks really differ."""

    samples: int
    drop: float
    agreement: float
    """Chance that both are correct or both are wrong."""

    @property
    def shares(self) -> tuple[float, float]:
        """Chances that an image is newly_correct, and that it is newly_wrong."""
        changed = 1 - self.agreement
        return (changed - self.drop) / 2, (changed + self.drop) / 2

    @property
    def possible(self) -> bool:
        """Whether so few images change that the drop cannot come about."""
        return self.shares[0] > -1e-12

    def outcomes(self) -> Iterator[tuple[Counts, Counts, NDArray[np.float64]]]:
        """Yields (newly_correct, newly_wrong, chance) until all but 1e-9 of the chance is covered."""
        changed = 1 - self.agreement
        fewest, most = binom.ppf([5e-10, 1 - 5e-10], self.samples, changed).astype(int)
        part = min(self.shares[1] / changed, 1.0)
        for flips in range(fewest, most + 1):
            first, last = binom.ppf([1e-12, 1 - 1e-12], flips, part).astype(int)
            newly_wrong = np.arange(max(first, 0), last + 1)
            weight = binom.pmf(flips, self.samples, changed) * binom.pmf(newly_wrong, flips, part)
            yield flips - newly_wrong, newly_wrong, weight


def statistic(
    newly_correct: Counts, newly_wrong: Counts, samples: int, drop: float
) -> NDArray[np.float64]:
    """Returns Tango's score statistic against a drop, positive where the drop is too large."""
    a = 2 * samples
    b = -newly_wrong - newly_correct + (2 * samples - newly_wrong + newly_correct) * drop
    c = -newly_correct * drop * (1 - drop)
    share = (np.sqrt(np.maximum(b * b - 4 * a * c, 0)) - b) / (2 * a)
    spread = np.sqrt(np.maximum(samples * (2 * share + drop * (1 - drop)), 0))
    distance = samples * drop - (newly_wrong - newly_correct)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.abs(distance) < 1e-9, 0.0, distance / spread)


GRID = [
    truth
    for samples in SAMPLES
    for drop in DROPS
    for agreement in AGREEMENTS
    if (truth := Truth(samples, drop, agreement)).possible
]


@pytest.mark.parametrize("truth", GRID, ids=str)
def test_the_interval_covers_exactly_as_often_as_it_should(truth: Truth) -> None:
    """At least 94.5 % everywhere; at most 96.5 % where 20 changed labels are expected."""
    covered = sum(
        weight[
            np.abs(statistic(newly_correct, newly_wrong, truth.samples, truth.drop)) <= Z95
        ].sum()
        for newly_correct, newly_wrong, weight in truth.outcomes()
    )
    assert covered >= 0.945
    if truth.samples * (1 - truth.agreement) > 20 - 1e-9:
        assert covered <= 0.965


@pytest.mark.parametrize("limit", LIMITS)
def test_the_gate_lets_one_bad_engine_in_twenty_pass_at_most(limit: float) -> None:
    """Engines 0.1 pp over the limit, at every size and agreement, by exact sums."""
    z = norm.ppf(GATE_CONFIDENCE)
    truths = [Truth(n, limit + BEYOND, agreement) for n in SAMPLES for agreement in AGREEMENTS]
    passed = {
        truth: sum(
            weight[statistic(newly_correct, newly_wrong, truth.samples, limit) > z].sum()
            for newly_correct, newly_wrong, weight in truth.outcomes()
        )
        for truth in truths
        if truth.possible
    }
    assert max(passed.values()) <= 0.05


def test_a_gate_by_the_measured_drop_would_let_many_pass() -> None:
    """The same count for the point rule: a third of 2000 images' verdicts is wrong."""
    truth = Truth(2000, 0.005 + BEYOND, 0.98)
    passed = sum(
        weight[newly_wrong - newly_correct <= 0.005 * truth.samples].sum()
        for newly_correct, newly_wrong, weight in truth.outcomes()
    )
    assert passed > 0.33


@cache
def interval(newly_correct: int, newly_wrong: int, samples: int) -> tuple[float, float]:
    """Returns the interval of an outcome, once."""
    return drop_interval(newly_correct, newly_wrong, samples)


@cache
def bound(newly_correct: int, newly_wrong: int, samples: int) -> float:
    """Returns the bound of an outcome, once."""
    return drop_bound(newly_correct, newly_wrong, samples)


def drawn(truth: Truth) -> tuple[Counts, Counts]:
    """Returns the distinct (newly_correct, newly_wrong) of 10,000 seeded draws, and how often each came."""
    newly_correct, newly_wrong = np.abs(truth.shares)
    draws = np.random.default_rng(5).multinomial(
        truth.samples, [newly_correct, newly_wrong, 1 - newly_correct - newly_wrong], size=DRAWS
    )
    return np.unique(draws[:, :2], axis=0, return_counts=True)


DRAWN = [
    Truth(500, 0.0, 0.995),
    Truth(500, 0.003, 0.95),
    Truth(500, 0.01, 0.98),
    Truth(2000, 0.0, 0.98),
    Truth(2000, 0.01, 0.99),
    Truth(10_000, 0.003, 0.99),
]


@pytest.mark.parametrize("truth", DRAWN, ids=str)
def test_the_interval_covers_in_a_simulation(truth: Truth) -> None:
    """With bounds that are three standard errors of the simulation wider."""
    outcomes, times = drawn(truth)
    ends = np.array([interval(int(a), int(b), truth.samples) for a, b in outcomes])
    holds = (ends[:, 0] <= truth.drop) & (truth.drop <= ends[:, 1])
    covered = times[holds].sum() / DRAWS
    assert covered >= 0.945 - 3 * 0.0023
    if truth.samples * (1 - truth.agreement) > 20 - 1e-9:
        assert covered <= 0.965 + 3 * 0.0018


@pytest.mark.parametrize("truth", DRAWN, ids=str)
def test_interval_and_statistic_agree(truth: Truth) -> None:
    """A drop is within the interval where the statistic does not reject it, and nowhere else."""
    outcomes, _ = drawn(truth)
    newly_correct, newly_wrong = outcomes[:200].T
    accepted = np.abs(statistic(newly_correct, newly_wrong, truth.samples, truth.drop)) <= Z95
    ends = np.array([interval(int(a), int(b), truth.samples) for a, b in outcomes[:200]])
    assert ((ends[:, 0] <= truth.drop) & (truth.drop <= ends[:, 1])).tolist() == accepted.tolist()


@pytest.mark.parametrize("limit", [0.003, 0.005])
@pytest.mark.parametrize("samples", [500, 2000, 10_000])
def test_the_gate_holds_in_a_simulation(samples: int, limit: float) -> None:
    """10,000 engines that are 0.1 pp over the limit, decided by the bound."""
    truth = Truth(samples, limit + BEYOND, 0.98)
    outcomes, times = drawn(truth)
    passed = [bound(int(a), int(b), samples) < limit for a, b in outcomes]
    assert times[passed].sum() / DRAWS <= 0.05

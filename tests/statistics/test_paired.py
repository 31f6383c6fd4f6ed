"""The statistics of a paired difference against independent references."""

from __future__ import annotations

from math import comb, log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from edgeres.statistics import (
    GATE_CONFIDENCE,
    Z95,
    class_q_values,
    drop_bound,
    drop_interval,
    images_needed,
    mcnemar_p,
)


@given(flips=st.integers(1, 60), data=st.data())
def test_mcnemar_is_the_exact_binomial_tail(flips: int, data: st.DataObject) -> None:
    """Twice the smaller tail of a fair coin, at most 1, in integers."""
    newly_wrong = data.draw(st.integers(0, flips))
    tail = sum(comb(flips, k) for k in range(min(newly_wrong, flips - newly_wrong) + 1))
    assert mcnemar_p(flips - newly_wrong, newly_wrong) == pytest.approx(
        min(1.0, 2 * tail / 2**flips)
    )


def test_without_flips_nothing_speaks_against_equality() -> None:
    """The p value is 1 and the interval is that of no event: z^2 / (n + z^2) on each side."""
    bound = Z95**2 / (500 + Z95**2)
    assert mcnemar_p(0, 0) == 1.0
    assert drop_interval(0, 0, 500) == pytest.approx((-bound, bound))


def test_the_interval_is_that_of_a_published_example() -> None:
    """Airway hyper-responsiveness, 21 pairs: -0.517 to -0.026.

    Source: Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33, 2850-2875, on the
    data of Bentur et al. 2009.
    """
    assert drop_interval(7, 1, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


CASES = [(0, 1, 20), (1, 0, 20), (3, 9, 500), (12, 12, 2000), (250, 310, 10000), (0, 7, 7)]


@pytest.mark.parametrize(("newly_correct", "newly_wrong", "samples"), CASES)
def test_the_interval_solves_tangos_quartic(
    newly_correct: int, newly_wrong: int, samples: int
) -> None:
    """Its ends are roots of the polynomial that the score equation becomes.

    Source: Yang, Sun and Hardin 2013, Statistics in Medicine 32, 1336-1342.
    """
    g, n, d, m = Z95**2, samples, newly_wrong - newly_correct, newly_wrong + newly_correct
    quartic = [
        n**2 * (n / g + 1) ** 2,
        -n * d * (n / g + 1) * (4 * n / g + 1),
        2 * n * d**2 * (3 * n / g + 2) / g - n**2 * (m / g + 1),
        n * d * (2 * m / g + 1) - d**3 * (4 * n / g + 1) / g,
        d**2 * (d**2 / g - m) / g,
    ]
    roots = [root.real for root in np.roots(quartic) if abs(root.imag) < 1e-7]
    for end in drop_interval(newly_correct, newly_wrong, samples):
        assert min(abs(root - end) for root in roots) < 1e-6


@pytest.mark.parametrize(("newly_correct", "newly_wrong", "samples"), CASES[:-1])
def test_the_ends_are_where_the_score_test_begins_to_reject(
    newly_correct: int, newly_wrong: int, samples: int
) -> None:
    """The likelihood is maximised numerically here, not by the closed form."""
    for end in drop_interval(newly_correct, newly_wrong, samples):
        low, high = max(0.0, -end), (1 - end) / 2
        both = samples - newly_correct - newly_wrong

        def cost(share: float, end: float = end, both: int = both) -> float:
            parts = (
                (newly_wrong, share + end),
                (newly_correct, share),
                (both, 1 - 2 * share - end),
            )
            return -sum(k * log(max(p, 1e-300)) for k, p in parts if k)

        share = minimize_scalar(cost, bounds=(low, high), options={"xatol": 1e-12}).x
        spread = np.sqrt(samples * (2 * share + end * (1 - end)))
        assert abs(newly_wrong - newly_correct - samples * end) / spread == pytest.approx(
            Z95, rel=2e-3
        )


@given(samples=st.integers(1, 5000), data=st.data())
def test_the_interval_holds_the_estimate_and_turns_with_the_sign(
    samples: int, data: st.DataObject
) -> None:
    """Within [-1, 1], around the drop; exchanging the networks mirrors it."""
    newly_wrong = data.draw(st.integers(0, samples))
    newly_correct = data.draw(st.integers(0, samples - newly_wrong))
    low, high = drop_interval(newly_correct, newly_wrong, samples)
    assert -1 <= low <= (newly_wrong - newly_correct) / samples <= high <= 1
    assert drop_interval(newly_wrong, newly_correct, samples) == pytest.approx((-high, -low))


@given(samples=st.integers(1, 5000), data=st.data())
def test_the_bound_is_that_of_the_one_sided_score_test(samples: int, data: st.DataObject) -> None:
    """By the statistic itself: what it rejects is above the bound, what it does not is below."""
    newly_wrong = data.draw(st.integers(0, samples))
    newly_correct = data.draw(st.integers(0, samples - newly_wrong))
    bound = drop_bound(newly_correct, newly_wrong, samples)
    z = norm.ppf(GATE_CONFIDENCE)
    for drop in (bound + 1e-6, bound - 1e-6):
        if not (newly_wrong - newly_correct) / samples < drop < 1:
            continue
        a, b = (
            2 * samples,
            -newly_wrong - newly_correct + (2 * samples - newly_wrong + newly_correct) * drop,
        )
        share = (sqrt(max(b * b + 8 * samples * newly_correct * drop * (1 - drop), 0)) - b) / (
            2 * a
        )
        spread = sqrt(samples * (2 * share + drop * (1 - drop)))
        assert ((samples * drop - newly_wrong + newly_correct) / spread > z) == (drop > bound)


def test_the_bound_of_no_flips_is_known() -> None:
    """z^2 / (n + z^2)."""
    z = norm.ppf(GATE_CONFIDENCE)
    assert drop_bound(0, 0, 1000) == pytest.approx(z**2 / (1000 + z**2))


@pytest.mark.parametrize(
    ("newly_correct", "newly_wrong", "samples", "limit"),
    [(9, 12, 1300, 0.005), (0, 2, 500, 0.01), (40, 44, 2000, 0.01), (5, 18, 1000, 0.01)],
)
def test_as_many_images_as_are_named_decide_in_four_of_five_runs(
    newly_correct: int, newly_wrong: int, samples: int, limit: float
) -> None:
    """5000 seeded runs with the shares that were measured, on either side of the limit."""
    needed = images_needed(newly_correct, newly_wrong, samples, limit)
    assert needed is not None
    assert needed > samples
    shares = [
        newly_correct / samples,
        newly_wrong / samples,
        1 - (newly_correct + newly_wrong) / samples,
    ]
    runs = np.random.default_rng(1).multinomial(needed, shares, size=5000)[:, :2]
    over = newly_wrong - newly_correct > limit * samples
    counts, times = np.unique(runs, axis=0, return_counts=True)
    decided = [
        -drop_bound(int(b), int(a), needed) > limit
        if over
        else drop_bound(int(a), int(b), needed) < limit
        for a, b in counts
    ]
    assert (times * decided).sum() / times.sum() == pytest.approx(0.8, abs=0.05)


def test_without_flips_the_images_needed_follow_from_the_limit() -> None:
    """z^2 / (n + z^2) is below the limit from n = z^2 (1 - limit) / limit on."""
    needed = images_needed(0, 0, 100, 0.005)
    assert needed == np.ceil(norm.ppf(0.95) ** 2 * 0.995 / 0.005)
    assert needed is not None
    assert drop_bound(0, 0, needed) < 0.005 < drop_bound(0, 0, needed - 1)


@given(samples=st.integers(1, 5000), thousandths=st.integers(-50, 200), data=st.data())
def test_undecided_images_are_never_said_to_be_enough(
    samples: int, thousandths: int, data: st.DataObject
) -> None:
    """Where the limit is between the two bounds, more images are named than there are."""
    newly_wrong = data.draw(st.integers(0, samples))
    newly_correct = data.draw(st.integers(0, samples - newly_wrong))
    limit = thousandths / 1000
    if (
        -drop_bound(newly_wrong, newly_correct, samples)
        <= limit
        <= drop_bound(newly_correct, newly_wrong, samples)
    ):
        needed = images_needed(newly_correct, newly_wrong, samples, limit)
        assert needed is None or needed >= samples


def test_no_number_of_images_decides_a_drop_at_the_limit() -> None:
    """Where the shares measured are those of the limit itself, and one image from it."""
    assert images_needed(5, 15, 1000, 0.01) is None
    assert images_needed(5, 16, 1000, 0.01) is not None


def test_classes_are_corrected_for_their_number() -> None:
    """By hand: of four p values, each times four over its rank, from the largest down."""
    flips = [(0, 10), (4, 4), (0, 6), (3, 5)]
    p_values = [2 / 2**10, 1.0, 2 / 2**6, mcnemar_p(3, 5)]
    q_values = [4 * p_values[0], 1.0, 2 * p_values[2], p_values[3] * 4 / 3]
    pairs = class_q_values(flips)
    assert [p for p, _ in pairs] == pytest.approx(p_values)
    assert [q for _, q in pairs] == pytest.approx([min(q, 1.0) for q in q_values])
    assert class_q_values([]) == ()

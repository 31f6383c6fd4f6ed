"""The statistics of a paired difference against independent references, and the verdict."""

from __future__ import annotations

from functools import cache
from math import comb, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from edgeres.compare import compare, paired_accuracy
from edgeres.errors import ConfigError
from edgeres.evaluate import Distances, Outcomes, Predictions
from edgeres.results import Accuracy, LatencyStats, PairedAccuracy, PairedLatency
from edgeres.spec import BenchConfig
from edgeres.statistics import Z95, drop_interval, mcnemar_p


def predictions(rank: list[int]) -> Predictions:
    """Returns the answers of a network of ten classes with these ranks of the label."""
    size = len(rank)
    return Predictions(
        classes=10,
        top1=np.zeros(size, np.int64),
        rank=np.array(rank, np.int64),
        confidence=np.ones(size, np.float32),
    )


def outcomes(reference: list[int], engine: list[int]) -> Outcomes:
    """Returns a pair of answers to the same images."""
    size = len(reference)
    return Outcomes(
        indices=np.arange(size),
        labels=np.zeros(size, np.int64),
        hashes=("",) * size,
        reference=predictions(reference),
        engine=predictions(engine),
        distances=Distances(cosine=np.ones(size), error=np.zeros(size), signal=np.ones(size)),
    )


def accuracy_of(gained: int, lost: int, samples: int, both: int = 0) -> PairedAccuracy:
    """Returns the accuracy of a pair with these flips and `both` images right in both."""
    neither = samples - gained - lost - both
    return paired_accuracy(
        outcomes(
            [1] * gained + [0] * lost + [0] * both + [1] * neither,
            [0] * gained + [1] * lost + [0] * both + [1] * neither,
        )
    )


def latency_of(engine_ms: float, reference_ms: float) -> PairedLatency:
    """Returns a pair of constant latencies."""
    engine, reference = (
        LatencyStats(samples_ms=(ms,), p50_ms=ms, p90_ms=ms, p95_ms=ms, p99_ms=ms, mean_ms=ms)
        for ms in (engine_ms, reference_ms)
    )
    return PairedLatency(mode="test", batch_size=1, engine=engine, reference=reference)


def test_flips_and_drop_are_counted() -> None:
    """By hand: eight images, three lost, one gained, two right in both."""
    found = paired_accuracy(outcomes([0, 0, 0, 0, 0, 1, 5, 4], [0, 0, 1, 5, 2, 0, 9, 4]))
    assert found.reference == Accuracy(samples=8, correct=5, correct_top5=7)
    assert found.engine == Accuracy(samples=8, correct=3, correct_top5=6)
    assert (found.gained, found.lost, found.drop_pp) == (1, 3, 25.0)
    assert found.p_value == pytest.approx(2 * (1 + 4) / 16)


@given(flips=st.integers(1, 60), data=st.data())
def test_mcnemar_is_the_exact_binomial_tail(flips: int, data: st.DataObject) -> None:
    """Twice the smaller tail of a fair coin, at most 1, in integers."""
    lost = data.draw(st.integers(0, flips))
    tail = sum(comb(flips, k) for k in range(min(lost, flips - lost) + 1))
    assert mcnemar_p(flips - lost, lost) == pytest.approx(min(1.0, 2 * tail / 2**flips))


def test_without_flips_nothing_speaks_against_equality() -> None:
    """The p value is 1 and the interval is that of no event: z^2 / (n + z^2) on each side."""
    found = accuracy_of(0, 0, 500)
    bound = 100 * Z95**2 / (500 + Z95**2)
    assert found.p_value == 1.0
    assert found.drop_pp == 0.0
    assert found.ci95_pp == pytest.approx((-bound, bound))


def test_the_interval_is_that_of_a_published_example() -> None:
    """Airway hyper-responsiveness, 21 pairs: -0.517 to -0.026.

    Source: Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33, 2850-2875, on the
    data of Bentur et al. 2009.
    """
    assert drop_interval(7, 1, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


CASES = [(0, 1, 20), (1, 0, 20), (3, 9, 500), (12, 12, 2000), (250, 310, 10000), (0, 7, 7)]


@pytest.mark.parametrize(("gained", "lost", "samples"), CASES)
def test_the_interval_solves_tangos_quartic(gained: int, lost: int, samples: int) -> None:
    """Its ends are roots of the polynomial that the score equation becomes.

    Source: Yang, Sun and Hardin 2013, Statistics in Medicine 32, 1336-1342.
    """
    g, n, d, m = Z95**2, samples, lost - gained, lost + gained
    quartic = [
        n**2 * (n / g + 1) ** 2,
        -n * d * (n / g + 1) * (4 * n / g + 1),
        2 * n * d**2 * (3 * n / g + 2) / g - n**2 * (m / g + 1),
        n * d * (2 * m / g + 1) - d**3 * (4 * n / g + 1) / g,
        d**2 * (d**2 / g - m) / g,
    ]
    roots = [root.real for root in np.roots(quartic) if abs(root.imag) < 1e-7]
    for end in drop_interval(gained, lost, samples):
        assert min(abs(root - end) for root in roots) < 1e-6


@pytest.mark.parametrize(("gained", "lost", "samples"), CASES[:-1])
def test_the_ends_are_where_the_score_test_begins_to_reject(
    gained: int, lost: int, samples: int
) -> None:
    """The likelihood is maximised numerically here, not by the closed form."""
    for end in drop_interval(gained, lost, samples):
        low, high = max(0.0, -end), (1 - end) / 2
        both = samples - gained - lost

        def cost(share: float, end: float = end, both: int = both) -> float:
            parts = ((lost, share + end), (gained, share), (both, 1 - 2 * share - end))
            return -sum(k * log(max(p, 1e-300)) for k, p in parts if k)

        share = minimize_scalar(cost, bounds=(low, high), options={"xatol": 1e-12}).x
        spread = np.sqrt(samples * (2 * share + end * (1 - end)))
        assert abs(lost - gained - samples * end) / spread == pytest.approx(Z95, rel=2e-3)


@given(samples=st.integers(1, 5000), data=st.data())
def test_the_interval_holds_the_estimate_and_turns_with_the_sign(
    samples: int, data: st.DataObject
) -> None:
    """Within [-1, 1], around the drop; exchanging the networks mirrors it."""
    lost = data.draw(st.integers(0, samples))
    gained = data.draw(st.integers(0, samples - lost))
    low, high = drop_interval(gained, lost, samples)
    assert -1 <= low <= (lost - gained) / samples <= high <= 1
    assert drop_interval(lost, gained, samples) == pytest.approx((-high, -low))


@cache
def _interval(gained: int, lost: int, samples: int) -> tuple[float, float]:
    return drop_interval(gained, lost, samples)


@pytest.mark.parametrize(
    ("samples", "drop", "agreement"),
    [
        (500, 0.0, 0.995),
        (500, 0.003, 0.95),
        (500, 0.01, 0.98),
        (2000, 0.0, 0.98),
        (2000, 0.01, 0.99),
        (10000, 0.003, 0.99),
    ],
)
def test_the_interval_covers_as_often_as_it_says(
    samples: int, drop: float, agreement: float
) -> None:
    """20000 seeded experiments: 94.5 % at least, 96.5 % at most where 20 flips are expected.

    The bounds are widened by three standard errors of the simulation, 0.46 points.
    """
    changed = 1 - agreement
    shares = [(changed - drop) / 2, (changed + drop) / 2, agreement]
    draws = np.random.default_rng(0).multinomial(samples, np.abs(shares), size=20000)
    counts, times = np.unique(draws[:, :2], axis=0, return_counts=True)
    ends = np.array([_interval(int(gained), int(lost), samples) for gained, lost in counts])
    covered = times[(ends[:, 0] <= drop) & (drop <= ends[:, 1])].sum() / times.sum()
    assert covered >= 0.945 - 0.0046
    if samples * changed > 20 - 1e-9:
        assert covered <= 0.965 + 0.0046


def test_a_drop_at_the_limit_passes() -> None:
    """30 of 10000 images are 0.3 pp, not a float above it; one more image fails."""
    config = BenchConfig(max_drop_pp=0.3)
    at, above = (compare(accuracy_of(5, lost, 10000), None, config, {}) for lost in (35, 36))
    assert (at.checks[0].value, at.passed, at.exit_code) == (0.3, True, 0)
    assert (above.checks[0].value, above.passed, above.exit_code) == (0.31, False, 3)


@pytest.mark.parametrize(("lost", "samples", "limit"), [(7, 1000, 0.7), (57, 10000, 0.57)])
def test_a_drop_is_the_float_that_its_limit_is(lost: int, samples: int, limit: float) -> None:
    """Cases where the fraction times 100 would lie above the limit as it is typed."""
    assert 100 * (lost / samples) > limit
    verdict = compare(accuracy_of(0, lost, samples), None, BenchConfig(max_drop_pp=limit), {})
    assert (verdict.accuracy.drop_pp, verdict.passed) == (limit, True)


def test_an_engine_that_is_more_often_right_passes_any_limit() -> None:
    """A gain is a negative drop, below a limit of zero too."""
    verdict = compare(accuracy_of(9, 4, 1000), None, BenchConfig(max_drop_pp=0.0), {})
    assert (verdict.accuracy.drop_pp, verdict.passed) == (-0.5, True)


def test_speed_is_the_ratio_of_the_medians() -> None:
    """Three times as fast keeps a limit of 3 and misses one of 3.1."""
    accuracy, latency = accuracy_of(0, 0, 10), latency_of(2.0, 6.0)
    kept = compare(accuracy, latency, BenchConfig(min_speedup=3.0), {})
    missed = compare(accuracy, latency, BenchConfig(min_speedup=3.1), {})
    assert (kept.checks[0].name, kept.checks[0].value) == ("speedup", 3.0)
    assert (kept.exit_code, missed.exit_code) == (0, 4)


def test_accuracy_decides_the_exit_code_before_speed() -> None:
    """Both limits missed: the code of accuracy."""
    config = BenchConfig(max_drop_pp=0.1, min_speedup=9.0)
    verdict = compare(accuracy_of(0, 50, 1000), latency_of(1.0, 2.0), config, {})
    assert [(c.name, c.passed) for c in verdict.checks] == [
        ("accuracy_drop", False),
        ("speedup", False),
    ]
    assert verdict.exit_code == 3


def test_no_limits_make_no_checks() -> None:
    """Without limits there is nothing to miss; warnings and environment are handed on."""
    verdict = compare(accuracy_of(0, 9, 10), None, BenchConfig(), {"cpu": "x"}, ["beware"])
    assert (verdict.checks, verdict.exit_code) == ((), 0)
    assert (verdict.environment, verdict.warnings) == ({"cpu": "x"}, ("beware",))


def test_a_speed_limit_without_a_measurement_is_refused() -> None:
    """It does not pass in silence."""
    with pytest.raises(ConfigError) as refused:
        compare(accuracy_of(0, 0, 10), None, BenchConfig(min_speedup=2.5), {})
    assert str(refused.value) == (
        "--min-speedup 2.5 cannot be checked: no latency was measured, because the engine was "
        "not run on its target. Run bench there, or leave --min-speedup out."
    )

"""The statistics of a paired difference against independent references, and the verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from verdict_parts import ENVIRONMENT, PROVENANCE

from edgeres.core.bench_requests import BenchConfig, Decision
from edgeres.core.verdict import (
    Accuracy,
    Answer,
    Confidence,
    FlipKind,
    LatencyStats,
    LoadGenResult,
    PairedAccuracy,
    PairedLatency,
)
from edgeres.errors import ConfigError
from edgeres.evaluation.compare import compare, paired_accuracy, with_loadgen, with_stability
from edgeres.evaluation.evaluate import Distances, Outcomes, Predictions
from edgeres.machine import Severity, Stability, StabilityFinding
from edgeres.statistics import (
    drop_bound,
    drop_interval,
    expected_calibration_error,
    images_needed,
)


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


def by_point(limit: float) -> BenchConfig:
    """Returns a limit that the measured drop itself is held against."""
    return BenchConfig(max_drop_pp=limit, decide=Decision.POINT)


def test_flips_and_drop_are_counted() -> None:
    """By hand: eight images, three lost, one gained, two right in both."""
    found = paired_accuracy(outcomes([0, 0, 0, 0, 0, 1, 5, 4], [0, 0, 1, 5, 2, 0, 9, 4]))
    assert found.reference == Accuracy(samples=8, correct=5, correct_top5=7)
    assert found.engine == Accuracy(samples=8, correct=3, correct_top5=6)
    assert (found.gained, found.lost, found.drop_pp) == (1, 3, 25.0)
    assert found.p_value == pytest.approx(2 * (1 + 4) / 16)


def test_without_flips_nothing_speaks_against_equality() -> None:
    """The p value is 1 and the interval, in percentage points, is that of no event."""
    found = accuracy_of(0, 0, 500)
    assert (found.p_value, found.drop_pp) == (1.0, 0.0)
    low, high = drop_interval(0, 0, 500)
    assert found.ci95_pp == (100 * low, 100 * high)


def test_a_drop_at_the_limit_passes() -> None:
    """30 of 10000 images are 0.3 pp, not a float above it; one more image fails."""
    config = by_point(0.3)
    at, above = (
        compare(accuracy_of(5, lost, 10000), None, config, ENVIRONMENT, PROVENANCE)
        for lost in (35, 36)
    )
    assert (at.checks[0].value, at.passed, at.exit_code) == (0.3, True, 0)
    assert (above.checks[0].value, above.passed, above.exit_code) == (0.31, False, 3)


@pytest.mark.parametrize(("lost", "samples", "limit"), [(7, 1000, 0.7), (57, 10000, 0.57)])
def test_a_drop_is_the_float_that_its_limit_is(lost: int, samples: int, limit: float) -> None:
    """Cases where the fraction times 100 would lie above the limit as it is typed."""
    assert 100 * (lost / samples) > limit
    verdict = compare(accuracy_of(0, lost, samples), None, by_point(limit), ENVIRONMENT, PROVENANCE)
    assert (verdict.accuracy.drop_pp, verdict.passed) == (limit, True)


def test_an_engine_that_is_more_often_right_passes_any_limit() -> None:
    """A gain is a negative drop, below a limit of zero too."""
    verdict = compare(accuracy_of(9, 4, 1000), None, by_point(0.0), ENVIRONMENT, PROVENANCE)
    assert (verdict.accuracy.drop_pp, verdict.passed) == (-0.5, True)


def reason_of(accuracy: PairedAccuracy, config: BenchConfig) -> str:
    """Returns the sentence of the check on accuracy."""
    return compare(accuracy, None, config, ENVIRONMENT, PROVENANCE).checks[0].reason


def test_the_measured_drop_is_told_with_its_limit() -> None:
    """A drop, a gain, and one that three digits would put on the limit."""
    assert reason_of(accuracy_of(9, 12, 1300), by_point(0.3)) == (
        "accuracy drop 0.231 pp, within the drop limit of 0.3 pp"
    )
    assert reason_of(accuracy_of(12, 9, 1300), by_point(0.3)) == (
        "accuracy gain 0.231 pp, within the drop limit of 0.3 pp"
    )
    near = replace(accuracy_of(9, 12, 1300), drop_pp=0.30001)
    assert reason_of(near, by_point(0.3)) == (
        "accuracy drop 0.30001 pp, over the drop limit of 0.3 pp"
    )


def test_images_that_show_a_small_drop_pass() -> None:
    """By default the bound is held against the limit, and is told with the drop."""
    verdict = compare(
        accuracy_of(20, 24, 10000), None, BenchConfig(max_drop_pp=0.3), ENVIRONMENT, PROVENANCE
    )
    (check,) = verdict.checks
    assert check.value == 100 * drop_bound(20, 24, 10000)
    assert (check.rule, check.passed, check.images_needed) == ("bound", True, None)
    assert check.reason == (
        "accuracy drop 0.04 pp, at most 0.154 pp with 95 % confidence: below the drop limit of "
        "0.3 pp"
    )


def test_a_gain_is_told_with_the_drop_that_it_may_be() -> None:
    """The bound is one of the drop, although what was measured is a gain."""
    told = reason_of(accuracy_of(24, 20, 10000), BenchConfig(max_drop_pp=0.3))
    assert told == (
        "accuracy gain 0.04 pp, a drop of at most 0.0712 pp with 95 % confidence: below the drop "
        "limit of 0.3 pp"
    )


def test_images_that_show_a_large_drop_fail() -> None:
    """No further image is asked for."""
    (check,) = compare(
        accuracy_of(5, 60, 1000), None, BenchConfig(max_drop_pp=1.0), ENVIRONMENT, PROVENANCE
    ).checks
    assert (check.passed, check.images_needed, check.exit_code) == (False, None, 3)
    assert check.reason == (
        "accuracy drop 5.5 pp, at least 4.29 pp with 95 % confidence: over the drop limit of 1 pp"
    )


def test_too_few_images_to_decide_are_told_how_many_would_do() -> None:
    """The engine fails, with the number that would show it to be good or bad."""
    (below,) = compare(
        accuracy_of(9, 12, 1300), None, BenchConfig(max_drop_pp=0.5), ENVIRONMENT, PROVENANCE
    ).checks
    assert (below.passed, below.exit_code) == (False, 3)
    assert below.images_needed == images_needed(9, 12, 1300, 0.005)
    assert below.reason == (
        "1300 images cannot decide: accuracy drop 0.231 pp, -0.37 to 0.86 pp with 95 % confidence "
        "on each side, and the drop limit of 0.5 pp is within; about 14203 images in all, 12903 "
        "more, would show that it is below"
    )
    over = reason_of(accuracy_of(2, 12, 1300), BenchConfig(max_drop_pp=0.5))
    assert over.endswith("more, would show that it is over")


def test_a_drop_at_the_limit_cannot_be_decided() -> None:
    """No number of images is promised."""
    assert reason_of(accuracy_of(5, 15, 1000), BenchConfig(max_drop_pp=1.0)).endswith(
        "; the drop is too close to the limit for any number to decide"
    )


def test_the_bound_must_be_below_the_limit() -> None:
    """Without a flip the bound is known, and a limit of just that is not kept."""
    bound = 100 * drop_bound(0, 0, 1000)
    for limit, passed in ((bound, False), (bound + 1e-9, True)):
        verdict = compare(
            accuracy_of(0, 0, 1000), None, BenchConfig(max_drop_pp=limit), ENVIRONMENT, PROVENANCE
        )
        assert verdict.passed is passed


def test_every_changed_label_is_kept() -> None:
    """With its name, what both said and how sure they were; a common answer is left out."""
    pair = replace(
        outcomes([0, 1, 1, 0], [1, 0, 1, 0]),
        labels=np.array([3, 4, 5, 6]),
        indices=np.array([10, 11, 12, 13]),
        reference=Predictions(
            classes=10,
            top1=np.array([3, 9, 8, 6]),
            rank=np.array([0, 1, 1, 0]),
            confidence=np.array([0.5, 0.25, 0.75, 1.0], np.float32),
        ),
        engine=Predictions(
            classes=10,
            top1=np.array([2, 4, 7, 6]),
            rank=np.array([1, 0, 1, 0]),
            confidence=np.array([0.125, 1.0, 0.5, 1.0], np.float32),
        ),
    )
    found = paired_accuracy(pair, lambda index: f"{index}.png")
    assert [(f.index, f.name, f.label, f.kind) for f in found.flips] == [
        (10, "10.png", 3, FlipKind.LOST),
        (11, "11.png", 4, FlipKind.GAINED),
        (12, "12.png", 5, FlipKind.OTHER),
    ]
    assert found.flips[0].reference == Answer(label=3, probability=0.5)
    assert found.flips[0].engine == Answer(label=2, probability=0.125)
    assert found.agreement == 0.25
    assert found.images is not None
    assert (found.images.reference, found.images.engine) == ("1001", "0101")


def test_logits_are_compared_over_all_images() -> None:
    """By hand: squared errors of 1 and 3 against squared logits of 16 and 84."""
    distances = Distances(
        cosine=np.array([1.0, 0.5]), error=np.array([1.0, 3.0]), signal=np.array([16.0, 84.0])
    )
    found = paired_accuracy(replace(outcomes([0, 0], [0, 0]), distances=distances)).logits
    assert found is not None
    assert (found.cosine, found.lowest_cosine, found.relative_l2) == (0.75, 0.5, 0.2)
    assert found.sqnr_db == pytest.approx(10 * np.log10(25))


def test_classes_that_changed_are_listed_by_how_sure_that_is() -> None:
    """Three classes: one with eight lost, one untouched, one with one of each."""
    pair = outcomes([0] * 10 + [0] * 5 + [0, 1, 0], [1] * 8 + [0] * 2 + [0] * 5 + [1, 0, 0])
    labels = np.array([7] * 10 + [8] * 5 + [2] * 3)
    found = paired_accuracy(replace(pair, labels=labels)).by_class
    assert [(c.label, c.samples, c.gained, c.lost, c.drop_pp) for c in found] == [
        (7, 10, 0, 8, 80.0),
        (2, 3, 1, 1, 0.0),
    ]
    assert found[0].p_value == pytest.approx(2 / 2**8)
    assert found[0].q_value == pytest.approx(3 * 2 / 2**8)


def test_confidence_is_told_of_both() -> None:
    """Its mean and how far it is from the accuracy."""
    pair = outcomes([0, 0, 1, 1], [0, 0, 0, 1])
    sure = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    found = paired_accuracy(replace(pair, engine=replace(pair.engine, confidence=sure)))
    assert found.engine_confidence is not None
    assert found.engine_confidence.mean == pytest.approx(0.75)
    assert found.engine_confidence.ece == expected_calibration_error(sure, pair.engine.right)
    assert found.reference_confidence == Confidence(mean=1.0, ece=0.5)


def test_the_same_images_have_the_same_fingerprint() -> None:
    """Another image, another label or another order gives another one."""
    pair = replace(outcomes([0, 0], [0, 0]), hashes=("aa", "bb"), labels=np.array([1, 2]))
    others = [
        replace(pair, hashes=("aa", "bc")),
        replace(pair, labels=np.array([1, 3])),
        replace(pair, hashes=("bb", "aa"), labels=np.array([2, 1])),
    ]
    prints = {p.fingerprint for p in (pair, *others)}
    assert len(prints) == 4
    assert replace(pair, engine=predictions([1, 1])).fingerprint == pair.fingerprint


def stability(*severities: Severity) -> Stability:
    """Returns a measurement with findings of these severities."""
    findings = tuple(
        StabilityFinding(name="x", severity=severity, sentence=f"It was {severity}.")
        for severity in severities
    )
    return Stability(samples=(), findings=findings, unseen=())


@pytest.mark.parametrize("strict", [True, False])
def test_an_unsteady_machine_fails_when_that_is_asked(strict: bool) -> None:
    """Exit code 7, with what was found, before any other code; told in any case."""
    config = BenchConfig(max_drop_pp=0.1, strict=strict)
    verdict = compare(accuracy_of(0, 50, 1000), None, config, ENVIRONMENT, PROVENANCE)
    seen = stability(Severity.WARNING, Severity.UNSTABLE)
    found = with_stability(verdict, seen, config)
    assert found.stability is seen
    assert found.exit_code == (7 if strict else 3)
    told = [check.reason for check in found.checks if check.name == "stability"]
    assert told == ["the measurement cannot be trusted: It was unstable"] * strict


def test_a_warning_does_not_fail() -> None:
    """Only what makes the figures another machine's does."""
    config = BenchConfig(strict=True)
    verdict = compare(accuracy_of(0, 0, 10), None, config, ENVIRONMENT, PROVENANCE)
    found = with_stability(verdict, stability(Severity.WARNING), config)
    assert found.passed
    assert found.checks[0].reason == "the machine held still while it was measured on"


@pytest.mark.parametrize(
    ("valid", "strict", "code"), [(True, True, 0), (False, True, 7), (False, False, 0)]
)
def test_what_loadgen_calls_invalid_is_passed_on(valid: bool, strict: bool, code: int) -> None:
    """As a warning, and with `strict` as a failure."""
    found = LoadGenResult(
        scenario="offline",
        valid=valid,
        metric="throughput",
        value=9.0,
        unit="images/s",
        queries=1,
        seconds=60.0,
        reasons=() if valid else ("Too short.",),
        logs=None,
    )
    config = BenchConfig(strict=strict)
    verdict = with_loadgen(
        compare(accuracy_of(0, 0, 10), None, config, ENVIRONMENT, PROVENANCE), found, config
    )
    said = "LoadGen calls its offline run INVALID: Too short"
    assert (verdict.loadgen, verdict.exit_code) == (found, code)
    assert verdict.warnings == (() if valid else (f"{said}.",))
    assert [c.reason for c in verdict.checks if not c.passed] == [said] * (not valid and strict)


def test_speed_is_the_ratio_of_the_medians() -> None:
    """Three times as fast keeps a limit of 3 and misses one of 3.1."""
    accuracy, latency = accuracy_of(0, 0, 10), latency_of(2.0, 6.0)
    kept = compare(accuracy, latency, BenchConfig(min_speedup=3.0), ENVIRONMENT, PROVENANCE)
    missed = compare(accuracy, latency, BenchConfig(min_speedup=3.1), ENVIRONMENT, PROVENANCE)
    assert (kept.checks[0].name, kept.checks[0].value) == ("speedup", 3.0)
    assert (kept.exit_code, missed.exit_code) == (0, 4)


def test_accuracy_decides_the_exit_code_before_speed() -> None:
    """Both limits missed: the code of accuracy."""
    config = BenchConfig(max_drop_pp=0.1, min_speedup=9.0)
    verdict = compare(
        accuracy_of(0, 50, 1000), latency_of(1.0, 2.0), config, ENVIRONMENT, PROVENANCE
    )
    assert [(c.name, c.passed) for c in verdict.checks] == [
        ("accuracy_drop", False),
        ("speedup", False),
    ]
    assert verdict.exit_code == 3


@pytest.mark.parametrize(("overhead_ms", "told"), [(0.02, False), (0.03, True)])
def test_an_overhead_of_more_than_a_hundredth_is_told(overhead_ms: float, told: bool) -> None:
    """Of the engine's 2 ms."""
    latency = replace(latency_of(2.0, 6.0), overhead_ms=overhead_ms)
    found = compare(
        accuracy_of(0, 0, 10), latency, BenchConfig(), ENVIRONMENT, PROVENANCE, ["beware"]
    )
    said = (
        "The clock and the loop take 0.03 ms, 1.5% of the engine's median latency, and are in it. "
        "Take a larger --latency-batch."
    )
    assert found.warnings == ("beware", *[said] * told)


def test_no_limits_make_no_checks() -> None:
    """Without limits there is nothing to miss; warnings and environment are handed on."""
    verdict = compare(
        accuracy_of(0, 9, 10), None, BenchConfig(), ENVIRONMENT, PROVENANCE, ["beware"]
    )
    assert (verdict.checks, verdict.exit_code) == ((), 0)
    assert (verdict.environment, verdict.warnings) == (ENVIRONMENT, ("beware",))


def test_a_speed_limit_without_a_measurement_is_refused() -> None:
    """It does not pass in silence."""
    with pytest.raises(ConfigError) as refused:
        compare(accuracy_of(0, 0, 10), None, BenchConfig(min_speedup=2.5), ENVIRONMENT, PROVENANCE)
    assert str(refused.value) == (
        "--min-speedup 2.5 cannot be checked: no latency was measured, because the engine was "
        "not run on its target. Run bench there, or leave --min-speedup out."
    )

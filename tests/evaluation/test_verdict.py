"""The verdict: which checks it has, in which order, and what weakens it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from outcomes import accuracy_of, latency_of
from past_runs import RUN
from verdict_parts import ENVIRONMENT, PROVENANCE

from edgeres.core.bench_requests import BenchRequest, Decision
from edgeres.core.contract import PRESETS
from edgeres.core.verdict import (
    Check,
    LoadGenResult,
    Outcome,
    PairedAccuracy,
    PairedLatency,
    PastRun,
    Verdict,
)
from edgeres.errors import ConfigError
from edgeres.evaluation.mistakes import Candidate, Diagnosis, Finding, range_shift
from edgeres.evaluation.verdict import VALID, Validity, concluded
from edgeres.machine import Severity, Stability, StabilityFinding
from edgeres.statistics import drop_bound, images_needed


def verdict_of(
    accuracy: PairedAccuracy,
    config: BenchRequest,
    *,
    latency: PairedLatency | None = None,
    stability: Stability | None = None,
    loadgen: LoadGenResult | None = None,
    validity: Validity = VALID,
    baseline: PastRun | None = None,
    coverage: tuple[Check, ...] = (),
) -> Verdict:
    """Returns the verdict on these parts, on a machine and with a provenance made by hand."""
    measured = Verdict(
        accuracy=accuracy,
        environment=ENVIRONMENT,
        provenance=PROVENANCE,
        latency=latency,
        stability=stability,
        loadgen=loadgen,
    )
    return concluded(measured, config, validity=validity, baseline=baseline, coverage=coverage)


def by_point(limit: float) -> BenchRequest:
    """Returns a limit that the measured drop itself is compared with."""
    return BenchRequest(max_drop_pp=limit, decide=Decision.POINT)


def test_a_drop_at_the_limit_passes() -> None:
    """30 of 10000 images are 0.3 pp, not a float above it; one more image fails."""
    config = by_point(0.3)
    at, above = (verdict_of(accuracy_of(5, lost, 10000), config) for lost in (35, 36))
    assert (at.checks[0].value, at.passed, at.exit_code) == (0.3, True, 0)
    assert (above.checks[0].value, above.passed, above.exit_code) == (0.31, False, 3)


@pytest.mark.parametrize(("lost", "samples", "limit"), [(7, 1000, 0.7), (57, 10000, 0.57)])
def test_a_drop_is_the_float_that_its_limit_is(lost: int, samples: int, limit: float) -> None:
    """Cases where the fraction times 100 would lie above the limit as it is typed."""
    assert 100 * (lost / samples) > limit
    verdict = verdict_of(accuracy_of(0, lost, samples), by_point(limit))
    assert (verdict.accuracy.drop_pp, verdict.passed) == (limit, True)


def test_an_engine_that_is_more_often_correct_passes_any_limit() -> None:
    """A gain is a negative drop, below a limit of zero too."""
    verdict = verdict_of(accuracy_of(9, 4, 1000), by_point(0.0))
    assert (verdict.accuracy.drop_pp, verdict.passed) == (-0.5, True)


def reason_of(accuracy: PairedAccuracy, config: BenchRequest) -> str:
    """Returns the sentence of the check on accuracy."""
    return verdict_of(accuracy, config).checks[0].reason


def test_the_measured_drop_is_reported_with_its_limit() -> None:
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
    """By default the bound is compared with the limit, and is reported with the drop."""
    verdict = verdict_of(accuracy_of(20, 24, 10000), BenchRequest(max_drop_pp=0.3))
    (check,) = verdict.checks
    assert check.value == 100 * drop_bound(20, 24, 10000)
    assert (check.rule, check.passed, check.images_needed) == ("bound", True, None)
    assert check.reason == (
        "accuracy drop 0.04 pp, at most 0.154 pp (one-sided 95 % bound): below the drop limit of "
        "0.3 pp"
    )


def test_a_gain_is_reported_with_the_drop_that_it_may_be() -> None:
    """The bound is one of the drop, although what was measured is a gain."""
    told = reason_of(accuracy_of(24, 20, 10000), BenchRequest(max_drop_pp=0.3))
    assert told == (
        "accuracy gain 0.04 pp, a drop of at most 0.0712 pp (one-sided 95 % bound): below "
        "the drop limit of 0.3 pp"
    )


def test_images_that_show_a_large_drop_fail() -> None:
    """No further image is requested."""
    (check,) = verdict_of(accuracy_of(5, 60, 1000), BenchRequest(max_drop_pp=1.0)).checks
    assert (check.passed, check.images_needed, check.exit_code) == (False, None, 3)
    assert check.reason == (
        "accuracy drop 5.5 pp, at least 4.29 pp (one-sided 95 % bound): over the drop limit of 1 pp"
    )


def test_too_few_images_to_decide_report_how_many_would_do() -> None:
    """Neither passed nor failed, and the number that would decide stands by itself."""
    verdict = verdict_of(accuracy_of(9, 12, 1300), BenchRequest(max_drop_pp=0.5))
    (below,) = verdict.checks
    assert (verdict.outcome, verdict.exit_code) == ("INCONCLUSIVE", 3)
    assert (below.outcome, below.passed) == ("INCONCLUSIVE", False)
    assert below.images_needed == images_needed(9, 12, 1300, 0.005) == 14203
    assert below.reason == (
        "1300 images cannot decide: accuracy drop 0.231 pp, -0.37 to 0.86 pp (one-sided 95 % "
        "bounds), and the drop limit of 0.5 pp is within"
    )
    assert below.next_step == (
        "12,903 more images, about 14,203 in all, would show that the drop is below the limit"
    )
    (over,) = verdict_of(accuracy_of(2, 12, 1300), BenchRequest(max_drop_pp=0.5)).checks
    assert over.next_step.endswith(" in all, would show that the drop is over the limit")


def test_a_drop_at_the_limit_cannot_be_decided() -> None:
    """No number of images is promised."""
    (check,) = verdict_of(accuracy_of(5, 15, 1000), BenchRequest(max_drop_pp=1.0)).checks
    assert (check.outcome, check.images_needed) == ("INCONCLUSIVE", None)
    assert check.next_step == (
        "the drop is too close to the limit for any number of images to decide"
    )


def test_the_bound_must_be_below_the_limit() -> None:
    """Without a flip the bound is known, and a limit of just that is not kept."""
    bound = 100 * drop_bound(0, 0, 1000)
    for limit, passed in ((bound, False), (bound + 1e-9, True)):
        verdict = verdict_of(accuracy_of(0, 0, 1000), BenchRequest(max_drop_pp=limit))
        assert verdict.passed is passed


def stability(*severities: Severity) -> Stability:
    """Returns a measurement with findings of these severities."""
    findings = tuple(
        StabilityFinding(name="x", severity=severity, sentence=f"It was {severity}.")
        for severity in severities
    )
    return Stability(samples=(), findings=findings, unavailable=())


def loadgen(*reasons: str) -> LoadGenResult:
    """Returns a run of LoadGen that is invalid for these reasons, valid without one."""
    return LoadGenResult(
        scenario="offline",
        valid=not reasons,
        metric="throughput",
        value=9.0,
        unit="images/s",
        queries=1,
        seconds=60.0,
        reasons=reasons,
        logs=None,
    )


UNSTABLE = stability(Severity.WARNING, Severity.UNSTABLE)


@pytest.mark.parametrize("strict", [True, False])
def test_an_unstable_machine_decides_nothing_when_that_is_requested(strict: bool) -> None:
    """Exit code 7 with what was found; in the verdict in any case."""
    config = BenchRequest(max_drop_pp=0.5, strict=strict)
    verdict = verdict_of(accuracy_of(0, 0, 1000), config, stability=UNSTABLE)
    assert verdict.stability is UNSTABLE
    assert (verdict.outcome, verdict.exit_code) == (("INCONCLUSIVE", 7) if strict else ("PASS", 0))
    reasons = [check.reason for check in verdict.checks if check.name == "stability"]
    assert reasons == ["the measurement cannot be trusted: It was unstable"] * strict


def test_what_failed_comes_before_what_is_undecided() -> None:
    """An engine that lost accuracy is bad on any machine."""
    config = BenchRequest(max_drop_pp=0.1, strict=True)
    verdict = verdict_of(accuracy_of(0, 50, 1000), config, stability=UNSTABLE)
    assert (verdict.outcome, verdict.exit_code) == ("FAIL", 3)


@pytest.mark.parametrize("strict", [True, False])
def test_a_speed_on_an_unstable_machine_is_marked(strict: bool) -> None:
    """Without `strict` the limit counts, and a warning says how to have it undecided."""
    config = BenchRequest(min_speedup=2.0, strict=strict)
    verdict = verdict_of(
        accuracy_of(0, 0, 10), config, latency=latency_of(1.0, 3.0), stability=UNSTABLE
    )
    assert verdict.exit_code == (7 if strict else 0)
    assert verdict.warnings == (
        "--min-speedup 2 was checked although the machine was unstable. Pass --strict to have such "
        "a run end INCONCLUSIVE, with exit code 7.",
    ) * (not strict)


DISTURBED = Stability(
    samples=(),
    findings=(
        StabilityFinding(
            name="other_load", severity=Severity.UNSTABLE, sentence="Other programs took 80 %."
        ),
    ),
    unavailable=(),
)


@pytest.mark.parametrize(
    ("limit", "machine", "outcome", "code"),
    [
        (2.0, DISTURBED, "INCONCLUSIVE", 7),
        (4.0, DISTURBED, "FAIL", 4),
        (2.0, stability(), "PASS", 0),
    ],
)
def test_a_speed_beside_other_programs_shows_nothing_in_the_engines_favour(
    limit: float, machine: Stability, outcome: str, code: int
) -> None:
    """Without `strict` too; what is too slow all the same is too slow."""
    config = BenchRequest(min_speedup=limit)
    latency = latency_of(1.0, 3.0)
    verdict = verdict_of(accuracy_of(0, 0, 10), config, latency=latency, stability=machine)
    assert (verdict.outcome, verdict.exit_code) == (outcome, code)
    (check,) = verdict.checks
    undecided = outcome == "INCONCLUSIVE"
    assert check.reason.endswith("; not to be trusted: Other programs took 80 %") is undecided
    assert len(verdict.warnings) == (outcome == "FAIL")


@pytest.mark.parametrize("config", [BenchRequest(max_drop_pp=5.0), BenchRequest(min_speedup=1.0)])
def test_a_reference_no_better_than_one_answer_decides_nothing(config: BenchRequest) -> None:
    """Exit code 3; without a limit nothing could have passed."""
    validity = Validity(constant_top1=0.11)
    latency = latency_of(1.0, 3.0)
    accuracy = accuracy_of(0, 0, 1000)
    verdict = verdict_of(accuracy, config, latency=latency, validity=validity)
    assert (verdict.outcome, verdict.exit_code) == ("INCONCLUSIVE", 3)
    (check,) = (one for one in verdict.checks if one.name == "reference_accuracy")
    assert "and would be on 11.0 % with the most frequent label" in check.reason
    assert verdict_of(accuracy, BenchRequest(), validity=validity).outcome == "MEASURED"


@pytest.mark.parametrize(
    ("correct", "confidence", "says"),
    [
        (720, 0.9, "72.0 % of the images, and confident of 90.0 %"),
        (340, None, "34.0 % of the images alone"),
    ],
)
def test_a_reference_that_is_suspiciously_often_wrong_decides_nothing(
    correct: int, confidence: float | None, says: str
) -> None:
    """Unless its accuracy is known; it may be fed other images than it was trained on."""
    validity, accuracy = Validity(suspicious=True, confidence=confidence), accuracy_of(0, 0, 1000)
    accuracy = replace(accuracy, reference=replace(accuracy.reference, correct=correct))
    verdict = verdict_of(accuracy, BenchRequest(max_drop_pp=5.0), validity=validity)
    assert (verdict.outcome, verdict.exit_code) == ("INCONCLUSIVE", 3)
    (check,) = (one for one in verdict.checks if one.name == "reference_accuracy")
    assert says in check.reason
    assert check.next_step.endswith(f"--reference-top1 {correct / 10:.1f}")
    assert verdict_of(accuracy, BenchRequest(), validity=validity).outcome == "MEASURED"
    known = BenchRequest(max_drop_pp=5.0, reference_top1=correct / 10)
    assert verdict_of(accuracy, known, validity=validity).outcome == "PASS"


@pytest.mark.parametrize(
    ("known", "outcome", "code"), [(90.0, "PASS", 0), (92.0, "PASS", 0), (93.0, "FAIL", 6)]
)
def test_a_reference_below_what_it_is_known_for_fails(
    known: float, outcome: str, code: int
) -> None:
    """By the exact binomial test: of 1,000 images 900 are correct, of 93 % so few by chance 2e-4."""
    accuracy = accuracy_of(0, 0, 1000)
    accuracy = replace(accuracy, reference=replace(accuracy.reference, correct=900))
    config = BenchRequest(max_drop_pp=5.0, reference_top1=known)
    verdict = verdict_of(accuracy, config)
    assert (verdict.outcome, verdict.exit_code) == (outcome, code)
    (check,) = (one for one in verdict.checks if one.name == "reference_top1")
    p_value = sum(
        math.comb(1000, k) * (known / 100) ** k * (1 - known / 100) ** (1000 - k)
        for k in range(901)
    )
    assert check.passed is (p_value >= 0.001)
    assert f"p {p_value:.1g})" in check.reason


def test_a_sound_measurement_alone_is_no_pass() -> None:
    """`strict` limits the machine, a diagnosis the images: neither limits the engine."""
    verdict = verdict_of(
        accuracy_of(0, 50, 1000),
        BenchRequest(strict=True),
        stability=stability(),
        loadgen=loadgen(),
        validity=Validity(diagnosis=diagnosis(None)),
    )
    assert [check.passed for check in verdict.checks] == [True] * 3
    assert (verdict.outcome, verdict.exit_code) == ("MEASURED", 0)


def test_a_warning_does_not_fail() -> None:
    """Only what makes the figures another machine's does."""
    verdict = verdict_of(
        accuracy_of(0, 0, 10), BenchRequest(strict=True), stability=stability(Severity.WARNING)
    )
    assert verdict.passed
    assert verdict.checks[0].reason == "the machine was stable during the measurement"


@pytest.mark.parametrize(
    ("reasons", "strict", "code"),
    [((), True, 0), (("Too short.",), True, 7), (("Too short.",), False, 0)],
)
def test_what_loadgen_calls_invalid_is_passed_on(
    reasons: tuple[str, ...], strict: bool, code: int
) -> None:
    """As a warning, and with `strict` as what is undecided."""
    result = loadgen(*reasons)
    verdict = verdict_of(accuracy_of(0, 0, 10), BenchRequest(strict=strict), loadgen=result)
    reason = "LoadGen calls its offline run INVALID: Too short"
    assert (verdict.loadgen, verdict.exit_code) == (result, code)
    assert verdict.warnings == ((f"{reason}.",) if reasons else ())
    failed = [check.reason for check in verdict.checks if not check.passed]
    assert failed == ([reason] if reasons and strict else [])


def test_speed_is_the_ratio_of_the_medians() -> None:
    """Three times as fast keeps a limit of 3 and misses one of 3.1."""
    accuracy, latency = accuracy_of(0, 0, 10), latency_of(2.0, 6.0)
    kept = verdict_of(accuracy, BenchRequest(min_speedup=3.0), latency=latency)
    missed = verdict_of(accuracy, BenchRequest(min_speedup=3.1), latency=latency)
    assert (kept.checks[0].name, kept.checks[0].value) == ("speedup", 3.0)
    assert (kept.exit_code, missed.exit_code) == (0, 4)


@pytest.mark.parametrize(
    ("ends", "limit", "decision", "outcome", "code"),
    [
        ((2.5, 3.6), 2.5, Decision.BOUND, "PASS", 0),
        ((2.5, 3.6), 2.6, Decision.BOUND, "INCONCLUSIVE", 7),
        ((2.5, 3.6), 3.6, Decision.BOUND, "INCONCLUSIVE", 7),
        ((2.5, 3.6), 3.7, Decision.BOUND, "FAIL", 4),
        ((2.5, 3.6), 2.9, Decision.POINT, "PASS", 0),
        ((2.5, 3.6), 3.1, Decision.POINT, "FAIL", 4),
        (None, 2.0, Decision.BOUND, "INCONCLUSIVE", 7),
        (None, 9.0, Decision.BOUND, "INCONCLUSIVE", 7),
        (None, 0.0, Decision.BOUND, "PASS", 0),
        (None, 2.0, Decision.POINT, "PASS", 0),
    ],
)
def test_the_interval_of_a_speed_decides(
    ends: tuple[float, float] | None, limit: float, decision: Decision, outcome: str, code: int
) -> None:
    """Three times as fast, by an interval on one side of the limit; measured alone if requested."""
    config = BenchRequest(min_speedup=limit, decide=decision)
    latency = replace(latency_of(2.0, 6.0), speedup_ci95=ends)
    verdict = verdict_of(accuracy_of(0, 0, 10), config, latency=latency)
    assert (verdict.outcome, verdict.exit_code) == (outcome, code)
    (check,) = verdict.checks
    assert bool(check.next_step) is (outcome == "INCONCLUSIVE")
    assert ("2.5 to 3.6" in check.reason) is (ends is not None)


def test_accuracy_decides_the_exit_code_before_speed() -> None:
    """Both limits missed: the code of accuracy."""
    config = BenchRequest(max_drop_pp=0.1, min_speedup=9.0)
    verdict = verdict_of(accuracy_of(0, 50, 1000), config, latency=latency_of(1.0, 2.0))
    assert [(c.name, c.passed) for c in verdict.checks] == [
        ("accuracy_drop", False),
        ("speedup", False),
    ]
    assert verdict.exit_code == 3


@pytest.mark.parametrize(("overhead_ms", "warns"), [(0.02, False), (0.03, True)])
def test_an_overhead_of_more_than_a_hundredth_warns(overhead_ms: float, warns: bool) -> None:
    """Of the engine's 2 ms."""
    latency = replace(latency_of(2.0, 6.0), overhead_ms=overhead_ms)
    assert (
        verdict_of(accuracy_of(0, 0, 10), BenchRequest(), latency=latency).warnings
        == (
            "The clock and the loop take 0.03 ms, 1.5 % of the engine's median latency, and are in it. "
            "Take a larger --latency-batch.",
        )
        * warns
    )


@pytest.mark.parametrize(
    ("ends", "limit", "warns"),
    [
        ((0.5, 0.9), None, True),
        ((0.5, 1.1), None, False),
        ((0.5, 0.9), 0.1, False),
        (None, None, False),
    ],
)
def test_an_engine_significantly_slower_than_the_reference_warns(
    ends: tuple[float, float] | None, limit: float | None, warns: bool
) -> None:
    """By the whole interval, and not where a limit on speed has its own sentence."""
    latency = replace(latency_of(8.0, 6.0), speedup_ci95=ends)
    verdict = verdict_of(accuracy_of(0, 0, 10), BenchRequest(min_speedup=limit), latency=latency)
    assert (
        verdict.warnings
        == (
            "The engine is slower than the reference: 0.75 times as fast, 95 % interval 0.50 to 0.90. "
            "Look at its layers with edgeres inspect, and set --min-speedup to make such an engine "
            "fail.",
        )
        * warns
    )


ACCURACY = accuracy_of(0, 0, 10)
CONTRACT = PRESETS["imagenet"]
NAMED = Finding(
    candidate=Candidate(contract=CONTRACT, mistakes=("a", "b")),
    correct=9,
    newly_correct=5,
    newly_wrong=0,
    confidence=0.9,
    p_value=1e-9,
    gain_ci95_pp=(10.0, 60.0),
    options=("--color bgr",),
)


def diagnosis(named: Finding | None) -> Diagnosis:
    """Returns a diagnosis that names these mistakes, or none."""
    return Diagnosis(
        samples=10,
        correct=4,
        confidence=0.9,
        tried=9,
        inferences=99,
        findings=() if named is None else (named,),
        named=named,
    )


def test_a_proven_mistake_fails_before_everything_else() -> None:
    """Exit code 6, with the number of mistakes and the sentence that names them."""
    given = diagnosis(NAMED)
    verdict = verdict_of(
        accuracy_of(0, 50, 1000), BenchRequest(max_drop_pp=0.1), validity=Validity(diagnosis=given)
    )
    check = verdict.checks[0]
    assert (check.name, check.value, check.passed, verdict.exit_code) == (
        "likely_mistakes",
        2,
        False,
        6,
    )
    assert f"{check.reason}." == given.sentence
    assert verdict.diagnosis is given


@pytest.mark.parametrize(("named", "warns"), [(None, True), (NAMED, False)])
def test_a_reference_that_is_rarely_correct_warns(named: Finding | None, warns: bool) -> None:
    """Unless the reason is named."""
    validity = Validity(suspicious=True, diagnosis=diagnosis(named))
    verdict = verdict_of(accuracy_of(0, 0, 10, both=4), BenchRequest(), validity=validity)
    assert (
        verdict.warnings
        == (
            "The reference itself is correct on only 40.0 % of the images, or far more confident than "
            "it is accurate: a drop against it means little. Check that checkpoint, classes, labels "
            "and preprocessing belong together.",
        )
        * warns
    )


@pytest.mark.parametrize(
    ("sha256", "warns"), [("9f" * 32, True), ("2b" * 32, False), (None, False)]
)
def test_a_reference_of_another_model_warns(sha256: str | None, warns: bool) -> None:
    """An engine as reference may be one of another network."""
    validity = Validity(reference_model_sha256=sha256)
    assert (
        verdict_of(accuracy_of(0, 0, 10), BenchRequest(), validity=validity).warnings
        == (
            "The reference was built from another model, sha256 9f9f9f9f9f9f, than the engine, "
            "2b2b2b2b2b2b: the drop is one between two networks, not what quantization costs. Pass the "
            "engine's own model as --reference.",
        )
        * warns
    )


@pytest.mark.parametrize(
    ("images", "warns"), [(8, True), (63, True), (64, False), (500, False), (None, False)]
)
def test_a_calibration_on_few_images_warns(images: int | None, warns: bool) -> None:
    """Below 64 distinct ones the verdict says what that risks; where not known it says nothing."""
    warnings = verdict_of(
        accuracy_of(0, 0, 10), BenchRequest(), validity=Validity(calibrated_on=images)
    ).warnings
    assert [text.startswith(f"Calibration used {images} distinct") for text in warnings] == (
        [True] * warns
    )


@pytest.mark.parametrize(
    ("every", "unseen", "outcome", "says"),
    [
        # lost, gained, images
        (
            (0, 0, 1000),
            (0, 0, 600),
            Outcome.PASS,
            "on the 600 images that the engine was not made with",
        ),
        ((0, 0, 1000), (0, 0, 20), Outcome.INCONCLUSIVE, "20 images cannot decide"),
        (
            (10, 0, 2000),
            (10, 0, 60),
            Outcome.FAIL,
            "on the 60 images that the engine was not made with",
        ),
        ((90, 0, 1000), (0, 0, 600), Outcome.FAIL, "accuracy drop 9 pp"),
    ],
)
def test_a_pass_holds_on_images_that_calibration_did_not_use(
    every: tuple[int, int, int], unseen: tuple[int, int, int], outcome: Outcome, says: str
) -> None:
    """Those it used favour the engine: what fails on them fails, what passes shows nothing."""
    (lost, gained, images), (few_lost, few_gained, few) = every, unseen
    validity = Validity(reused_images=images - few, unseen=accuracy_of(few_gained, few_lost, few))
    config = BenchRequest(max_drop_pp=2.0)
    verdict = verdict_of(accuracy_of(gained, lost, images), config, validity=validity)
    (check,) = verdict.checks
    assert (check.outcome, verdict.outcome) == (outcome, outcome)
    assert says in check.reason
    assert verdict.accuracy.engine.samples == images


@pytest.mark.parametrize("config", [by_point(5.0), BenchRequest(max_drop_pp=50.0), BenchRequest()])
def test_the_calibration_images_alone_decide_nothing(config: BenchRequest) -> None:
    """However good the engine is on them; without a limit there is nothing to decide."""
    good = accuracy_of(0, 0, 1000)
    verdict = verdict_of(good, config, validity=Validity(reused_images=1000))
    limited = config.max_drop_pp is not None
    assert verdict.outcome is (Outcome.INCONCLUSIVE if limited else Outcome.MEASURED)
    assert verdict.exit_code == (3 if limited else 0)
    assert [c.name for c in verdict.checks if not c.passed] == ["unseen_images"] * limited
    bad = verdict_of(accuracy_of(0, 900, 1000), config, validity=Validity(reused_images=1000))
    assert bad.outcome is (Outcome.FAIL if limited else Outcome.MEASURED)


def test_everything_has_its_place() -> None:
    """Checks and warnings come in one order, which reports and JSON keep."""
    before = replace(
        RUN,
        images=ACCURACY.images,
        machine="A processor",
        reference_sha256=PROVENANCE.reference.sha256,
    )
    latency = replace(latency_of(2.0, 1.0), overhead_ms=1.0, speedup_ci95=(0.4, 0.6))
    uncovered = Check(name="int8_coverage", limit=0, value=1, outcome=Outcome.FAIL, exit_code=5)
    validity = Validity(
        data_notes=("Put right.",),
        calibrated_on=8,
        reused_images=3,
        suspicious=True,
        diagnosis=diagnosis(None),
        range_shift=range_shift({"a": 9.0}, ({"a": 1.0}, {"a": 1.0}), images=8),
        reference_model_sha256="9f" * 32,
    )
    limits = BenchRequest(max_drop_pp=1.0, min_speedup=0.1, strict=True)
    verdict, unlimited = (
        verdict_of(
            ACCURACY,
            config,
            latency=latency,
            stability=stability(),
            loadgen=loadgen("Too short."),
            validity=validity,
            baseline=before,
            coverage=(uncovered,),
        )
        for config in (limits, BenchRequest())
    )
    assert [check.name for check in verdict.checks] == [
        "likely_mistakes",
        "int8_coverage",
        "accuracy_drop",
        "speedup",
        "reference_accuracy",
        "stability",
        "loadgen",
        "baseline_accuracy",
        "baseline_latency",
    ]
    assert verdict.regression is not None
    assert verdict.regression.baseline == "old"
    begins = (
        "Put right.",
        "Calibration used 8 distinct images, fewer than 64",
        "3 of the 10 images were also used for calibration: ",
        "The clock and the loop take 1 ms",
        "The reference itself is correct on only 0.0 %",
        "The engine was calibrated on images unlike these",
        "The reference was built from another model",
        "The engine is slower than the reference",
        "LoadGen calls its offline run INVALID",
    )
    for warning, start in zip(unlimited.warnings, begins, strict=True):
        assert warning.startswith(start)


def test_no_limits_make_no_checks() -> None:
    """Without limits there is nothing to miss; the environment is passed on."""
    verdict = verdict_of(accuracy_of(0, 9, 10), BenchRequest())
    assert (verdict.checks, verdict.exit_code, verdict.warnings) == ((), 0, ())
    assert verdict.environment == ENVIRONMENT


def test_a_speed_limit_without_a_measurement_is_refused() -> None:
    """It does not pass in silence."""
    with pytest.raises(ConfigError) as refused:
        verdict_of(accuracy_of(0, 0, 10), BenchRequest(min_speedup=2.5))
    assert str(refused.value) == (
        "--min-speedup 2.5 cannot be checked: no latency was measured, because the engine was "
        "not run on its target. Run bench there, or leave --min-speedup out."
    )

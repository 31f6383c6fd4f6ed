"""Runs against an earlier one, and engines compared with each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from past_runs import RUN, latency, series, with_correct

from edgeres.core.verdict import MeasuredThroughput, PairedLatency, PastRun, Regression, conclude
from edgeres.errors import ConfigError
from edgeres.evaluation.regression import against_baseline, baseline_checks, rank
from edgeres.machine import Severity, Stability, StabilityFinding
from edgeres.serialization import to_json
from edgeres.statistics import drop_interval, mcnemar_p

NEW = RUN


CALM = Stability(samples=(), findings=(), unavailable=())


def against(run: PastRun, baseline: PastRun) -> Regression:
    """Returns how one run compares with another."""
    return against_baseline(
        baseline,
        images=run.images,
        latency=run.latency,
        machine=run.machine,
        reference_sha256=run.reference_sha256,
    )


def verdicts(run: PastRun, max_slowdown: float = 0.05) -> dict[str, bool]:
    """Returns which checks against the baseline pass."""
    checks = baseline_checks(against(run, RUN), max_slowdown, CALM)
    return {check.name: check.passed for check in checks}


def test_the_same_engine_again_passes() -> None:
    """Nothing changed, and nothing is called a change."""
    result = against(NEW, RUN)
    assert (result.accuracy.gained, result.accuracy.lost, result.accuracy.p_value) == (0, 0, 1.0)
    assert result.latency is not None
    assert (result.latency.ratio, result.latency.ci95) == (1.0, (1.0, 1.0))
    assert verdicts(NEW) == {"baseline_accuracy": True, "baseline_latency": True}


def test_accuracy_is_compared_image_by_image() -> None:
    """Six other images newly wrong and two newly correct, with the paired interval and the exact test."""
    correct = "0" * 6 + "1" * 894 + "1" * 2 + "0" * 98
    result = against(with_correct(NEW, correct), RUN).accuracy
    assert (result.gained, result.lost, result.drop_pp) == (2, 6, 0.4)
    low, high = drop_interval(2, 6, 1000)
    assert result.ci95_pp == (100 * low, 100 * high)
    assert result.p_value == mcnemar_p(2, 6)


@pytest.mark.parametrize(("lost", "passes"), [(2, True), (30, False)])
def test_only_a_significant_drop_fails(lost: int, passes: bool) -> None:
    """Two of 1000 can be chance, thirty cannot; the sentence has the counts."""
    run = with_correct(NEW, "0" * lost + "1" * (900 - lost) + "0" * 100)
    check = baseline_checks(against(run, RUN), 0.05, CALM)[0]
    assert (check.passed, check.exit_code) == (passes, 3)
    assert check.reason.startswith(
        f"{lost} images newly wrong and 0 newly correct compared with old, "
    )
    assert ("a significant drop: 3.00 pp" in check.reason) is not passes


def test_a_gain_never_fails() -> None:
    """However significant."""
    assert verdicts(with_correct(NEW, "1" * 1000))["baseline_accuracy"]


@pytest.mark.parametrize(("engine_ms", "passes"), [(2.05, True), (2.2, False), (1.0, True)])
def test_an_engine_may_not_become_slower_than_allowed(engine_ms: float, passes: bool) -> None:
    """2.5 % is within the 5 % that are, 10 % is not."""
    run = replace(NEW, latency=latency(engine_ms))
    assert verdicts(run) == {"baseline_accuracy": True, "baseline_latency": passes}
    assert verdicts(run, max_slowdown=0.2)["baseline_latency"]


def test_a_machine_that_is_slower_as_a_whole_does_not_count() -> None:
    """Engine and reference at twice their times: the ratio to the reference is the same."""
    result = against(replace(NEW, latency=latency(4.0, 8.0)), RUN).latency
    assert result is not None
    assert (result.ratio, result.raw_ratio) == (1.0, 2.0)


def noisy(seed: int, factor: float) -> PairedLatency:
    """Returns latencies around 2 and 4 ms that wander by blocks, the engine slowed by a factor."""
    rng = np.random.default_rng(seed)
    wander = np.repeat(rng.normal(1, 0.1, 35), 20)
    engine, reference = (wander * ms * rng.normal(1, 0.05, 700) for ms in (2 * factor, 4.0))
    return PairedLatency(
        mode="end-to-end, batch 1",
        batch_size=1,
        engine=series(engine.tolist()),
        reference=series(reference.tolist()),
    )


def test_the_interval_holds_the_true_ratio() -> None:
    """In most of 40 seeded pairs of runs, where the engine truly became 8 % slower."""
    covered = []
    for seed in range(40):
        now, before = (
            replace(RUN, latency=noisy(2 * seed + n, f)) for n, f in ((0, 1.08), (1, 1.0))
        )
        result = against(now, before).latency
        assert result is not None
        assert result.ci95 is not None
        covered.append(result.ci95[0] <= 1.08 <= result.ci95[1])
    assert np.mean(covered) >= 0.85


def test_few_blocks_have_no_interval_and_are_decided_by_the_ratio() -> None:
    """The check says no interval where there is none."""
    run = replace(NEW, latency=latency(3.0, count=40))
    check = baseline_checks(against(run, RUN), 0.05, CALM)[1]
    assert (check.passed, check.exit_code) == (False, 4)
    assert check.reason == "latency 1.500 times that of old, above the limit of 1.05"


def disturbed(name: str, severity: Severity, sentence: str) -> Stability:
    """Returns a measurement with one finding."""
    finding = StabilityFinding(name=name, severity=severity, sentence=sentence)
    return replace(CALM, findings=(finding,))


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("other_load", "Other programs took 80 % of the processors' time"),
        ("steal", "The hypervisor gave 9.0 % of the processors' time to other guests"),
        ("cpu_quota", "The container's CPU quota stopped this program in 7 scheduling periods"),
        ("gpu_throttled", "The GPU slowed itself down (temperature, by hardware)"),
        ("thermal_throttled", "The kernel lowered clocks against heat (thermal-cpufreq-0)"),
    ],
)
def test_a_latency_of_a_disturbed_machine_does_not_pass(name: str, fact: str) -> None:
    """It is not called slower either: undecided, with the fact and what to do."""
    stability = disturbed(name, Severity.UNSTABLE, f"{fact}. Stop it.")
    accuracy, check = baseline_checks(against(NEW, RUN), 0.05, stability)
    assert (accuracy.outcome, check.outcome) == ("PASS", "INCONCLUSIVE")
    concluded = conclude((accuracy, check))
    assert (concluded.outcome, concluded.exit_code) == ("INCONCLUSIVE", 7)
    assert check.reason == (
        "latency 1.000 times that of old (1.000 to 1.000), not significantly above the limit of "
        f"1.05; not to be trusted: {fact}. Stop it"
    )


@pytest.mark.parametrize("stability", [CALM, None])
def test_a_baseline_that_was_disturbed_lets_nothing_pass(stability: Stability | None) -> None:
    """Its engine may have been slowed down more than its reference, whatever this run is like."""
    slow = replace(
        RUN, disturbances=("Other programs took 80 % of the processors' time. Stop it.",)
    )
    check = baseline_checks(against(NEW, slow), 0.05, stability)[1]
    assert check.outcome == "INCONCLUSIVE"
    assert check.reason.endswith(
        "; old is not to be trusted: Other programs took 80 % of the processors' time. Stop it; "
        "make the baseline again"
    )
    slower = baseline_checks(against(replace(NEW, latency=latency(3.0)), slow), 0.05, stability)[1]
    assert slower.outcome == "FAIL"


def test_a_slower_engine_fails_on_a_disturbed_machine_too() -> None:
    """By the limit on speed, and its reason is that alone."""
    stability = disturbed("other_load", Severity.UNSTABLE, "Other programs took 80 %.")
    run = replace(NEW, latency=latency(3.0))
    check = baseline_checks(against(run, RUN), 0.05, stability)[1]
    assert (check.passed, check.exit_code) == (False, 4)
    assert check.reason.endswith("above the limit of 1.05")


@pytest.mark.parametrize(
    ("name", "severity"),
    [
        ("other_load", Severity.WARNING),
        ("gpu_power_limit", Severity.WARNING),
        ("cpu_clock", Severity.UNSTABLE),
    ],
)
def test_what_neither_loads_nor_throttles_leaves_the_latency(name: str, severity: Severity) -> None:
    """Clocks that both networks see alike cancel; --strict refuses them."""
    stability = disturbed(name, severity, "It was so.")
    assert all(c.passed for c in baseline_checks(against(NEW, RUN), 0.05, stability))


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (
            replace(NEW, machine="another"),
            "The two runs have different machines (a processor and another).",
        ),
        (
            replace(NEW, latency=replace(latency(2.0), batch_size=8)),
            "The two runs have different latency batches (1 and 8).",
        ),
        (
            replace(NEW, reference_sha256="b" * 64),
            f"The two runs have different references ({'a' * 12} and {'b' * 12}).",
        ),
        (replace(NEW, latency=None), "this run has no latency: its engine was only simulated."),
    ],
)
def test_latencies_of_other_conditions_are_not_compared(run: PastRun, reason: str) -> None:
    """The reason is reported, and no check is made of them."""
    result = against(run, RUN)
    assert (result.latency, result.latency_reason) == (None, reason)
    assert [check.name for check in baseline_checks(result, 0.05, CALM)] == ["baseline_accuracy"]


def test_other_images_are_refused() -> None:
    """They cannot be paired."""
    other = replace(NEW, images=replace(NEW.images, fingerprint="g"))
    with pytest.raises(ConfigError) as refused:
        against(other, RUN)
    assert str(refused.value) == (
        "The baseline old was evaluated on 1000 other images, or on these in another order, so "
        "that it cannot be compared image by image. Pass the same --data, --samples and --seed, or "
        "make the baseline again."
    )


def engine(name: str, correct: int, ms: float | None) -> PastRun:
    """Returns an engine with so many of 1000 images right, at this latency."""
    run = with_correct(replace(RUN, name=name), "1" * correct + "0" * (1000 - correct))
    return replace(run, latency=None if ms is None else latency(ms))


def test_the_front_is_who_nobody_beats_in_both() -> None:
    """By hand: accurate and slow, fast and less accurate, one beaten, one never timed, a tie."""
    runs = [
        engine("fp32", 910, 4.0),
        engine("int8", 900, 1.0),
        engine("fp16", 905, 4.5),
        engine("simulated", 950, None),
        engine("twin", 900, 1.0),
    ]
    result = rank(runs)
    assert [(s.run.name, s.on_front, s.dominated_by) for s in result.standings] == [
        ("fp32", True, None),
        ("int8", True, None),
        ("fp16", False, "fp32"),
        ("simulated", False, None),
        ("twin", True, None),
    ]
    assert to_json(result)["front"] == ["fp32", "int8", "twin"]
    assert result.warnings == ()


def test_latencies_are_compared_within_a_batch() -> None:
    """Eight images take longer than one, and are dominated by neither."""
    one, eight = engine("one", 900, 1.0), engine("eight", 900, 4.0)
    slow = engine("slow", 890, 4.5)
    runs = [one, *(replace(r, latency=replace(r.latency, batch_size=8)) for r in (eight, slow))]  # type: ignore[type-var]
    result = rank(runs)
    assert [(s.run.name, s.dominated_by) for s in result.standings] == [
        ("one", None),
        ("eight", None),
        ("slow", "eight"),
    ]
    assert [row["batch"] for row in to_json(result)["engines"]] == [1, 8, 8]


def test_engines_are_compared_with_the_first_on_the_same_images() -> None:
    """Ten newly wrong; on other images there is no such figure, and a warning."""
    first, second = engine("a", 910, 4.0), engine("b", 900, 1.0)
    elsewhere = replace(
        engine("c", 900, 1.0), images=replace(first.images, fingerprint="g"), machine="another"
    )
    result = rank([first, second, elsewhere])
    changes = [standing.against_first for standing in result.standings]
    assert changes[0] is changes[2] is None
    assert changes[1] is not None
    assert (changes[1].lost, changes[1].gained) == (10, 0)
    assert result.warnings == (
        "The engines were evaluated on different images, so their accuracy differs for that "
        "reason too.",
        "The engines were timed on different machines, so their latency differs for that reason "
        "too.",
    )


def test_a_single_verdict_and_twins_in_name_are_refused() -> None:
    """There is nothing to compare, or nothing to call them by."""
    with pytest.raises(ConfigError, match=r"1 verdict to compare \(old\); expected 2 or more"):
        rank([RUN])
    with pytest.raises(ConfigError, match="each with a file name of its own"):
        rank([RUN, RUN])


def streamed(engine_ms: float, streams: int = 4, batch: int = 1) -> MeasuredThroughput:
    """Returns constant times of a batch with several streams; the reference takes 2 ms."""
    return MeasuredThroughput(
        mode="",
        streams=streams,
        batch_size=batch,
        engine=series([engine_ms] * 400),
        reference=series([2.0] * 400),
    )


def with_streams(now: MeasuredThroughput | None, before: MeasuredThroughput | None) -> Regression:
    """Returns the comparison of two runs that differ in this alone."""
    return against_baseline(
        replace(RUN, measured_throughput=before),
        RUN.images,
        RUN.latency,
        now,
        machine=RUN.machine,
        reference_sha256=RUN.reference_sha256,
    )


@pytest.mark.parametrize(
    ("now", "before", "reason"),
    [
        (streamed(1.0, 8), streamed(1.0, 4), "The two runs have different streams (4 and 8)."),
        (
            streamed(1.0, batch=2),
            streamed(1.0),
            "The two runs have different latency batches (1 and 2).",
        ),
        (None, streamed(1.0), "this run did not measure it: pass --streams to both."),
        (streamed(1.0), None, "old did not measure it: pass --streams to both."),
        (None, None, None),
    ],
)
def test_throughputs_of_other_streams_are_not_compared(
    now: MeasuredThroughput | None, before: MeasuredThroughput | None, reason: str | None
) -> None:
    """The reason is reported, no check is made of them, and the latency, timed alone, is compared."""
    result = with_streams(now, before)
    assert (result.throughput, result.throughput_reason) == (None, reason)
    names = [check.name for check in baseline_checks(result, 0.05, CALM)]
    assert names == ["baseline_accuracy", "baseline_latency"]


@pytest.mark.parametrize(("now_ms", "outcome"), [(1.0, "PASS"), (1.04, "PASS"), (1.2, "FAIL")])
def test_less_throughput_than_the_baseline_s_fails(now_ms: float, outcome: str) -> None:
    """By the time of a batch relative to the reference, with the limit of the latency."""
    result = with_streams(streamed(now_ms), streamed(1.0))
    assert result.throughput is not None
    assert result.throughput.ratio == pytest.approx(now_ms)
    assert result.throughput.ci95 == pytest.approx((now_ms, now_ms))
    (check,) = (c for c in baseline_checks(result, 0.05, CALM) if c.name == "baseline_throughput")
    assert check.outcome == outcome
    assert "time of a batch with several streams" in check.reason


def test_runs_of_different_streams_are_warned_of() -> None:
    """Side by side, their images a second are not the engines' alone."""
    ranking = rank(
        [
            replace(RUN, measured_throughput=streamed(1.0)),
            replace(RUN, name="new", measured_throughput=streamed(1.0, streams=2)),
        ]
    )
    assert ranking.warnings == (
        "The engines were timed with different numbers of streams, so their throughput differs for "
        "that reason too.",
    )
    rows = to_json(ranking)["engines"]
    assert [(row["images_per_s"], row["streams"]) for row in rows] == [(1000.0, 4), (1000.0, 2)]

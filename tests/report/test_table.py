"""The verdict on a terminal: its words, its width and its golden file."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from sample_verdict import named
from verdict_parts import ENVIRONMENT, PROVENANCE

from edgeres.core.verdict import (
    EXIT_ACCURACY,
    EXIT_SPEED,
    EXIT_UNSTABLE,
    Accuracy,
    Check,
    ClassDifference,
    Confidence,
    Drift,
    Energies,
    ImageRecord,
    LatencyIntervals,
    LatencyStats,
    LoadGenResult,
    LogitError,
    Outcome,
    Outliers,
    PairedAccuracy,
    PairedLatency,
    TailCount,
    Verdict,
)
from edgeres.machine import Energy, Severity, Stability, StabilityFinding
from edgeres.report import render_verdict

GOLDEN = Path(__file__).parent / "golden" / "verdict.txt"

ACCURACY = PairedAccuracy(
    reference=Accuracy(samples=1300, correct=1054, correct_top5=1240),
    engine=Accuracy(samples=1300, correct=1051, correct_top5=1241),
    gained=9,
    lost=12,
    drop_pp=100 * 3 / 1300,
    ci95_pp=(-0.48, 0.98),
    p_value=0.6636,
    agreement=0.9817,
    logits=LogitError(cosine=0.99912, lowest_cosine=0.9, relative_l2=0.1),
    reference_confidence=Confidence(mean=0.9, ece=0.021),
    engine_confidence=Confidence(mean=0.9, ece=0.034),
    images=ImageRecord(fingerprint="f", reference="1", engine="1"),
)
LATENCY = PairedLatency(
    mode=(
        "end-to-end, batch 1: resnet50_int8.onnx on onnxruntime-cpu against resnet50.onnx on "
        "onnxruntime-cpu"
    ),
    batch_size=1,
    engine=LatencyStats(
        samples_ms=(17.2,) * 200, p50_ms=17.2, p90_ms=18.9, p95_ms=18.9, p99_ms=25.8, mean_ms=17.54
    ),
    reference=LatencyStats(
        samples_ms=(51.3,) * 200, p50_ms=51.3, p90_ms=56.4, p95_ms=56.4, p99_ms=76.9, mean_ms=52.33
    ),
)
DROP = Check(
    name="accuracy_drop",
    limit=0.3,
    value=ACCURACY.drop_pp,
    outcome=Outcome.PASS,
    exit_code=EXIT_ACCURACY,
    reason="accuracy drop 0.231 pp, within the drop limit of 0.3 pp",
    rule="point",
)
SPEEDUP = Check(
    name="speedup",
    limit=2.8,
    value=LATENCY.speedup,
    outcome=Outcome.PASS,
    exit_code=EXIT_SPEED,
    reason="2.98 times as fast, at least the 2.8 requested",
)
LOST = replace(DROP, outcome=Outcome.FAIL)
UNDECIDED = replace(
    DROP,
    outcome=Outcome.INCONCLUSIVE,
    limit=0.5,
    value=0.91,
    rule="bound",
    reason="1300 images cannot decide",
    next_step="8,500 more images would show it",
)
STABLE = Check(name="stability", limit=0, value=0, outcome=Outcome.PASS, exit_code=EXIT_UNSTABLE)
VERDICT = Verdict(
    accuracy=ACCURACY,
    latency=LATENCY,
    environment=ENVIRONMENT,
    provenance=PROVENANCE,
    checks=(DROP, SPEEDUP),
    warnings=(
        "12 of the 1300 validation images were also used for calibration; the accuracy of the "
        "engine may be optimistically biased.",
    ),
)


def rendered(
    comparison: Verdict,
    *,
    engine: str = "engine",
    encoding: str = "utf-8",
    terminal: bool = False,
) -> str:
    """Returns what a pipe or a terminal of 80 columns gets, without the spaces that fill lines."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=stream, width=80, force_terminal=terminal)
    console.print(render_verdict(named(comparison, engine)))
    stream.seek(0)
    return "".join(f"{line.rstrip()}\n" for line in stream.read().splitlines())


def with_accuracy(gained: int, lost: int, p_value: float) -> Verdict:
    """Returns the verdict with other flips, and a drop that they make."""
    drop = (lost - gained) / 13
    accuracy = replace(ACCURACY, gained=gained, lost=lost, drop_pp=drop, p_value=p_value)
    return replace(VERDICT, accuracy=accuracy)


def test_the_verdict_is_the_golden_file() -> None:
    """Fixed values give the same text to the letter."""
    text = rendered(VERDICT, engine="resnet50_int8.onnx on onnxruntime-cpu")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_no_line_is_wider_than_80_columns() -> None:
    """Counts of a whole validation set, slow and fast, fit as well."""
    big = Accuracy(samples=50000, correct=50000, correct_top5=50000)
    slow = LatencyStats(
        samples_ms=(1.0,) * 1000,
        p50_ms=98765.4,
        p90_ms=98765.4,
        p95_ms=98765.4,
        p99_ms=98765.4,
        mean_ms=0.0123,
    )
    wide = replace(
        VERDICT,
        accuracy=replace(ACCURACY, reference=big, engine=big),
        latency=replace(LATENCY, engine=slow, reference=slow),
    )
    assert max(map(len, rendered(wide).splitlines())) <= 80


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_figure_is_cut_at_any_width(width: int) -> None:
    """A table that does not fit has its rows one below the other."""
    stream = io.StringIO()
    Console(file=stream, width=width).print(render_verdict(VERDICT))
    text = stream.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert {"51.30", "17.20", "25.80", "57.0", "0.231", "2.98"} <= set(text.split())


def test_no_colour_loses_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR on a terminal: no colour code, and a pipe's text once boldness is taken off."""
    monkeypatch.setenv("NO_COLOR", "1")
    text = rendered(VERDICT, terminal=True)
    assert "\x1b[32m" not in text
    assert "\x1b[1;32m" not in text
    assert "PASS" in text


def test_a_terminal_gets_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict word is green."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[1;32mPASS\x1b[0m" in rendered(VERDICT, terminal=True)


def test_an_ascii_terminal_is_served() -> None:
    """Lines are drawn with the characters that it has."""
    text = rendered(VERDICT, encoding="ascii")
    assert text.isascii()
    assert "PASS" in text


def test_names_are_not_taken_for_markup() -> None:
    """Brackets in a file name or a warning are printed as they are."""
    marked = replace(VERDICT, warnings=("[bold]careful[/bold]",))
    text = rendered(marked, engine="net[red].onnx")
    assert "net[red].onnx" in text
    assert "[bold]careful[/bold]" in text


def test_a_failure_gives_its_reasons_and_no_others() -> None:
    """Only the checks that failed stand in the first line."""
    failed = replace(DROP, outcome=Outcome.FAIL, reason="too much was lost")
    slow = replace(SPEEDUP, outcome=Outcome.FAIL, reason="too slow")
    first = rendered(replace(VERDICT, checks=(failed, SPEEDUP))).splitlines()[0]
    assert first == "FAIL  too much was lost."
    both = rendered(replace(VERDICT, checks=(failed, slow))).splitlines()[0]
    assert both == "FAIL  too much was lost; too slow."


def test_a_near_miss_is_not_rounded_onto_its_limit() -> None:
    """As many digits as tell value and limit apart."""
    near = replace(SPEEDUP, value=2.799996, outcome=Outcome.FAIL)
    text = rendered(replace(VERDICT, checks=(near,)))
    assert ["speedup", "at", "least", "2.8", "x", "2.799996", "x", "FAIL"] in words(text)


def test_a_check_by_the_bound_says_so() -> None:
    """The value beside it is the bound, not the drop."""
    bound = replace(DROP, limit=1.0, value=0.98, rule="bound")
    text = words(rendered(replace(VERDICT, checks=(bound,))))
    assert ["accuracy", "drop", "bound", "below", "1", "pp", "0.98", "pp", "pass"] in text


def test_a_check_of_another_kind_is_shown_too() -> None:
    """By its name where it has no reason."""
    other = Check(name="energy", limit=2.0, value=1.5, outcome=Outcome.PASS, exit_code=4)
    text = rendered(replace(VERDICT, checks=(other,)))
    assert text.splitlines()[0] == "PASS  energy: PASS."


def words(text: str) -> list[list[str]]:
    """Returns the words of every line."""
    return [line.split() for line in text.splitlines()]


def test_how_close_the_networks_are_is_shown() -> None:
    """Labels, logits and confidence."""
    text = rendered(VERDICT)
    assert "agreement      98.17 % of the images get the same label\n" in text
    assert (
        "SQNR 20.0 dB, cosine 0.99912, 0.900 on the worst image, relative\n               error 10.00 %\n"
        in text
    )
    assert "confidence     mean 90.0 %, ECE 3.40 %; the reference's 90.0 %, 2.10 %\n" in text


def test_classes_that_differ_are_named() -> None:
    """By their name where it is known, the significant ones alone, five at most."""

    def difference(label: int, q: float) -> ClassDifference:
        return ClassDifference(label=label, samples=50, gained=0, lost=9, p_value=q, q_value=q)

    chosen = replace(ACCURACY, by_class=(difference(1, 0.01), difference(0, 0.2)))
    text = " ".join(rendered(replace(VERDICT, accuracy=chosen, classes=("a", "owl"))).split())
    assert "corrected for their number: owl (1): 9 newly wrong, 0 newly correct of 50 " in text
    many = replace(ACCURACY, by_class=tuple(difference(label, 0.01) for label in range(7)))
    text = " ".join(rendered(replace(VERDICT, accuracy=many)).split())
    assert "class 4: 9 newly wrong, 0 newly correct of 50; 2 more" in text
    assert "classes" not in rendered(VERDICT)


def test_a_latency_is_shown_with_its_uncertainty() -> None:
    """Intervals, a trend, outliers and too few samples, each where there is one."""
    engine = replace(
        LATENCY.engine,
        ci95=LatencyIntervals(
            p50_ms=(17.1, 17.4), p90_ms=None, p95_ms=None, p99_ms=None, mean_ms=(17.3, 17.8)
        ),
        drift=Drift(change=0.08, p_value=0.002),
        outliers=Outliers(limit_ms=20.0, count=3, largest_ms=25.8),
        tails=(
            TailCount(percentile=95, needed=130, had=200),
            TailCount(percentile=99, needed=662, had=200),
        ),
    )
    text = rendered(
        replace(VERDICT, latency=replace(LATENCY, engine=engine, speedup_ci95=(2.9, 3.1)))
    )
    assert "speed-up       2.98 times as fast at the median, 95 % interval 2.90 to 3.10\n" in text
    assert "p50            engine 17.10 to 17.40 ms\n" in text
    assert "drift          engine 8.0 % slower from start to end, a trend (p 0.002)\n" in text
    assert "outliers       engine 3 above 20.00 ms, up to 25.80 ms; none was dropped\n" in text
    assert "200, too few for p99, which needs 662: take --iterations 662\n" in text


@pytest.mark.parametrize("drift", [Drift(change=0.5, p_value=0.2), Drift(change=0.01, p_value=0)])
def test_a_trend_that_is_unsure_or_small_is_not_shown(drift: Drift) -> None:
    """Chance makes trends, and some are too small to matter."""
    quiet = replace(LATENCY, engine=replace(LATENCY.engine, drift=drift))
    assert "drift" not in rendered(replace(VERDICT, latency=quiet))


@pytest.mark.parametrize(("value", "figure"), [(1.79967, "1.8 ms"), (None, "unavailable")])
def test_loadgens_word_is_passed_on(value: float | None, figure: str) -> None:
    """Its VALID or INVALID, the scenario and its figure."""
    result = LoadGenResult(
        scenario="single-stream",
        valid=value is not None,
        metric="90th percentile latency, early stopping",
        value=value,
        unit="ms",
        queries=742,
        seconds=60.0,
        reasons=(),
        logs=None,
    )
    shown = " ".join(rendered(replace(VERDICT, loadgen=result)).split())
    assert (
        f"LoadGen {result.result}, single-stream: 90th percentile latency, early stopping, {figure}; "
        "742 queries"
    ) in shown


def test_energy_is_shown_where_there_is_a_meter() -> None:
    """A joule figure of both, with the meter and what it covers."""
    engine, reference = (
        Energy(
            meter="ina3221",
            scope=("VDD_IN",),
            images=100,
            seconds=1.0,
            total_joules=total,
            idle_watts=3.0,
        )
        for total in (8.0, 23.0)
    )
    text = rendered(replace(VERDICT, energy=Energies(engine=engine, reference=reference)))
    sentence = "0.05 J per image above idle, the reference 0.2 J; ina3221: VDD_IN"
    assert sentence in " ".join(text.split())


def test_what_disturbed_the_measurement_is_shown() -> None:
    """As a warning or as what makes it unstable."""
    stability = Stability(
        samples=(),
        findings=(
            StabilityFinding(name="a", severity=Severity.UNSTABLE, sentence="The GPU was hot."),
            StabilityFinding(name="b", severity=Severity.WARNING, sentence="The governor is free."),
        ),
        unavailable=(),
    )
    last = rendered(replace(VERDICT, stability=stability)).splitlines()[-3:]
    assert last == ["Unstable: The GPU was hot.", "", "Warning: The governor is free."]


def test_without_limits_nothing_passes() -> None:
    """Nothing was asked, and no table of checks is shown."""
    text = rendered(replace(VERDICT, checks=()))
    assert text.splitlines()[0] == "MEASURED  no limit was set: the figures stand for themselves."
    assert "verdict" not in text


@pytest.mark.parametrize(
    ("check", "colour"),
    [(DROP, "32"), (LOST, "31"), (UNDECIDED, "33"), (STABLE, None)],
)
def test_only_a_limit_that_was_kept_is_green(
    check: Check, colour: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red failed, yellow is undecided; a stable machine and a run without limits have no colour."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    text = rendered(replace(VERDICT, checks=(check,), warnings=()), terminal=True)
    colours = set(re.findall(r"\x1b\[1;(3\d)m", text))
    assert colours == ({colour} if colour else set())


def test_what_would_decide_stands_below_the_first_sentence() -> None:
    """The number of further images has its own line."""
    text = rendered(replace(VERDICT, checks=(UNDECIDED,)))
    assert text.startswith("INCONCLUSIVE  1300 images cannot decide.\n")
    assert text.splitlines()[1] == "to decide      8,500 more images would show it."
    assert ["0.91", "pp", "INCONCLUSIVE"] in [line[-3:] for line in words(text)]


@pytest.mark.parametrize(
    ("gained", "lost", "p_value", "words"),
    [
        (9, 12, 0.66, "0.66: not significant, chance alone can make such a drop"),
        (12, 9, 0.66, "0.66: not significant, chance alone can make such a gain"),
        (9, 60, 0.000001, "< 0.0001: a significant drop (exact McNemar test)"),
        (60, 29, 0.0014, "0.0014: a significant gain (exact McNemar test)"),
        (7, 7, 1.0, "1: no difference"),
    ],
)
def test_significance_is_in_words(gained: int, lost: int, p_value: float, words: str) -> None:
    """A drop that chance explains is not sold as one, and neither is a gain."""
    text = " ".join(rendered(with_accuracy(gained, lost, p_value)).split())
    assert f"p value {words}" in text


def test_a_negative_drop_reads_as_a_gain() -> None:
    """Among the figures."""
    text = rendered(with_accuracy(12, 9, 0.66))
    assert "top-1          +0.23 pp (the engine is correct more often)\n" in text
    assert "95 % interval  -0.98 to +0.48 pp" in text


def test_zero_has_no_minus_sign() -> None:
    """A drop and an interval that round to zero."""
    even = replace(ACCURACY, drop_pp=-0.0, ci95_pp=(-0.001, 0.001))
    text = rendered(replace(VERDICT, accuracy=even, checks=()))
    assert "-0.00" not in text
    assert "0.00 to 0.00 pp" in text


def test_an_interval_around_the_limit_asks_for_more_images() -> None:
    """It is reported when the limit is inside the interval, and only then."""
    narrow = replace(VERDICT, accuracy=replace(ACCURACY, ci95_pp=(0.1, 0.25)))
    assert "more images would settle it" in " ".join(rendered(VERDICT).split())
    assert "more images" not in rendered(narrow)
    by_bound = replace(VERDICT, checks=(replace(DROP, rule="bound"),))
    assert "more images" not in rendered(by_bound)


def test_a_latency_that_was_not_measured_is_stated() -> None:
    """An engine that was only simulated has no latency table."""
    text = rendered(replace(VERDICT, latency=None, checks=(DROP,)))
    assert "not measured: the engine was not run on its target" in text
    assert "p50" not in text


def test_few_classes_have_no_top5() -> None:
    """A dash stands for it."""
    few = replace(ACCURACY.reference, correct_top5=None)
    text = rendered(replace(VERDICT, accuracy=replace(ACCURACY, reference=few)))
    assert next(line for line in text.splitlines() if line.startswith("reference  ")).split() == [
        "reference",
        "reference",
    ]
    assert ["reference", "81.08", "%", "-", "1054", "1300"] in [
        line.split() for line in text.splitlines()
    ]

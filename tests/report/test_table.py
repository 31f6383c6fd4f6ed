"""The verdict on a terminal: its words, its width and its golden file."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from edgeres.report import render_verdict
from edgeres.results import (
    EXIT_ACCURACY,
    EXIT_SPEED,
    Accuracy,
    Check,
    Comparison,
    LatencyStats,
    PairedAccuracy,
    PairedLatency,
)

GOLDEN = Path(__file__).parent / "golden" / "verdict.txt"

ACCURACY = PairedAccuracy(
    reference=Accuracy(samples=1300, correct=1054, correct_top5=1240),
    engine=Accuracy(samples=1300, correct=1051, correct_top5=1241),
    gained=9,
    lost=12,
    drop_pp=100 * 3 / 1300,
    ci95_pp=(-0.48, 0.98),
    p_value=0.6636,
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
    passed=True,
    exit_code=EXIT_ACCURACY,
)
SPEEDUP = Check(name="speedup", limit=2.8, value=LATENCY.speedup, passed=True, exit_code=EXIT_SPEED)
VERDICT = Comparison(
    accuracy=ACCURACY,
    latency=LATENCY,
    environment={},
    checks=(DROP, SPEEDUP),
    warnings=(
        "12 of the 1300 validation images were also calibrated on; the accuracy of the engine "
        "may flatter it.",
    ),
)


def rendered(
    comparison: Comparison,
    *,
    engine: str = "engine",
    encoding: str = "utf-8",
    terminal: bool = False,
) -> str:
    """Returns what a pipe or a terminal of 80 columns gets, without the spaces that fill lines."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=stream, width=80, force_terminal=terminal)
    console.print(render_verdict(comparison, engine=engine, reference="reference"))
    stream.seek(0)
    return "".join(f"{line.rstrip()}\n" for line in stream.read().splitlines())


def with_accuracy(gained: int, lost: int, p_value: float) -> Comparison:
    """Returns the verdict with other flips, and a drop that they make."""
    drop = (lost - gained) / 13
    accuracy = replace(ACCURACY, gained=gained, lost=lost, drop_pp=drop, p_value=p_value)
    return replace(VERDICT, accuracy=accuracy)


def test_the_verdict_is_the_golden_file() -> None:
    """Fixed values give the same text to the letter."""
    found = rendered(VERDICT, engine="resnet50_int8.onnx on onnxruntime-cpu")
    assert found == GOLDEN.read_text(encoding="utf-8")


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


def test_no_colour_loses_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR on a terminal: no colour code, and a pipe's text once boldness is taken off."""
    monkeypatch.setenv("NO_COLOR", "1")
    found = rendered(VERDICT, terminal=True)
    assert "\x1b[32m" not in found
    assert "\x1b[1;32m" not in found
    assert "PASS" in found


def test_a_terminal_gets_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict word is green."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[1;32mPASS\x1b[0m" in rendered(VERDICT, terminal=True)


def test_an_ascii_terminal_is_served() -> None:
    """Lines are drawn with the characters that it has."""
    found = rendered(VERDICT, encoding="ascii")
    assert found.isascii()
    assert "PASS" in found


def test_names_are_not_taken_for_markup() -> None:
    """Brackets in a file name or a warning are printed as they are."""
    marked = replace(VERDICT, warnings=("[bold]careful[/bold]",))
    found = rendered(marked, engine="net[red].onnx")
    assert "net[red].onnx" in found
    assert "[bold]careful[/bold]" in found


def test_a_failure_says_which_limit_and_by_how_much() -> None:
    """Only the checks that failed stand in the first line."""
    failed = replace(DROP, value=0.45, passed=False)
    first = rendered(replace(VERDICT, checks=(failed, SPEEDUP))).splitlines()[0]
    assert first == "FAIL  accuracy drop 0.45 pp, over the drop limit of 0.3 pp."


def test_both_failures_are_said() -> None:
    """A drop over the limit and a speed-up short of it."""
    checks = (
        replace(DROP, value=0.45, passed=False),
        replace(SPEEDUP, value=2.1, passed=False),
    )
    found = " ".join(rendered(replace(VERDICT, checks=checks)).split())
    assert found.startswith(
        "FAIL accuracy drop 0.45 pp, over the drop limit of 0.3 pp; 2.1 times as fast, short of "
        "the 2.8 asked for."
    )


def test_a_near_miss_is_not_rounded_onto_its_limit() -> None:
    """As many digits as tell value and limit apart."""
    near = replace(SPEEDUP, value=2.799996, passed=False)
    found = rendered(replace(VERDICT, checks=(near,)))
    assert found.splitlines()[0] == "FAIL  2.799996 times as fast, short of the 2.8 asked for."


def test_a_check_of_another_kind_is_said_too() -> None:
    """Name, value and limit, without a word of its own."""
    other = Check(name="energy", limit=2.0, value=1.5, passed=True, exit_code=4)
    found = rendered(replace(VERDICT, checks=(other,)))
    assert found.splitlines()[0] == "PASS  energy 1.5, keeps the limit of 2."


def test_a_pass_without_limits_says_so() -> None:
    """Nothing was asked, and no table of checks is shown."""
    found = rendered(replace(VERDICT, checks=()))
    assert found.splitlines()[0] == "PASS  no limit was set, so none could be missed."
    assert "verdict" not in found


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
def test_significance_is_said_in_words(gained: int, lost: int, p_value: float, words: str) -> None:
    """A drop that chance explains is not sold as one, and neither is a gain."""
    found = " ".join(rendered(with_accuracy(gained, lost, p_value)).split())
    assert f"p value {words}" in found


def test_a_negative_drop_reads_as_a_gain() -> None:
    """In the first line and among the figures."""
    better = with_accuracy(12, 9, 0.66)
    better = replace(better, checks=(replace(DROP, value=better.accuracy.drop_pp),))
    found = rendered(better)
    assert found.startswith("PASS  accuracy gain 0.231 pp, within the drop limit of 0.3 pp.")
    assert "-0.23 pp (the engine is right more often)" in found


def test_zero_has_no_minus_sign() -> None:
    """A drop and an interval that round to zero."""
    even = replace(ACCURACY, drop_pp=-0.0, ci95_pp=(-0.001, 0.001))
    found = rendered(replace(VERDICT, accuracy=even, checks=()))
    assert "-0.00" not in found
    assert "0.00 to 0.00 pp" in found


def test_an_interval_around_the_limit_asks_for_more_images() -> None:
    """It is said when the limit is inside the interval, and only then."""
    narrow = replace(VERDICT, accuracy=replace(ACCURACY, ci95_pp=(0.1, 0.25)))
    assert "more images would settle it" in " ".join(rendered(VERDICT).split())
    assert "more images" not in rendered(narrow)


def test_a_latency_that_was_not_measured_is_said() -> None:
    """An engine that was only simulated has no latency table."""
    found = rendered(replace(VERDICT, latency=None, checks=(DROP,)))
    assert "not measured: the engine was not run on its target" in found
    assert "p50" not in found


def test_few_classes_have_no_top5() -> None:
    """A dash stands for it."""
    few = replace(ACCURACY.reference, correct_top5=None)
    found = rendered(replace(VERDICT, accuracy=replace(ACCURACY, reference=few)))
    assert next(line for line in found.splitlines() if line.startswith("reference  ")).split() == [
        "reference",
        "reference",
    ]
    assert ["reference", "81.08", "%", "-", "1054", "1300"] in [
        line.split() for line in found.splitlines()
    ]

"""A verdict's facts in words, whichever form of report lays them out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console
from sample_verdict import ACCURACY, DROP, LATENCY, LOST, PASSED, SPEEDUP, VERDICT, flips

from edgeres.core.verdict import Drift, FlipKind
from edgeres.report import facts, outcomes, render_html, render_markdown, render_verdict
from edgeres.statistics import drop_interval, mcnemar_p


@pytest.mark.parametrize("samples", [200, 1300, 10_000])
def test_whatever_is_significant_has_an_interval_without_zero(samples: int) -> None:
    """For every pair of flips up to 40, so that p value and interval never contradict."""
    for newly_wrong in range(41):
        for newly_correct in range(newly_wrong):
            p_value = mcnemar_p(newly_correct, newly_wrong)
            accuracy = replace(ACCURACY, lost=newly_wrong, gained=newly_correct, p_value=p_value)
            if facts.significance(accuracy).startswith("a significant drop"):
                assert drop_interval(newly_correct, newly_wrong, samples)[0] > 0


def test_equal_flips_are_no_difference_in_any_report() -> None:
    """Terminal and page call it so; neither speaks of a drop that chance made."""
    even = replace(
        VERDICT, accuracy=replace(ACCURACY, gained=9, lost=9, drop_pp=0.0, p_value=1.0, by_class=())
    )
    sentences = dict(facts.accuracy_facts(even))
    assert sentences["p value"] == "1: no difference"
    pytest.importorskip("jinja2")
    assert "1: no difference" in render_html(even)


@pytest.mark.parametrize(
    ("drop_pp", "interval", "name", "words"),
    [
        (0.5, (-0.1, 1.1), "top-1 drop", "drop 0.50 pp, 95 % interval -0.10 to 1.10 pp"),
        (-0.13, (-0.4, 0.14), "top-1", "+0.13 pp, 95 % interval -0.14 to +0.40 pp"),
        (-0.13, (-0.4, -0.02), "top-1", "+0.13 pp, 95 % interval +0.02 to +0.40 pp"),
        (-0.001, (-0.2, 0.2), "top-1 drop", "drop 0.00 pp, 95 % interval -0.20 to 0.20 pp"),
    ],
)
def test_a_gain_is_not_a_negative_drop(
    drop_pp: float, interval: tuple[float, float], name: str, words: str
) -> None:
    """Its interval is mirrored with it; what rounds to zero is no gain."""
    change = facts.top1_change(drop_pp, interval)
    assert change.name == name
    assert change.words.replace("\N{NO-BREAK SPACE}", " ") == words


def test_every_report_gives_a_gain_its_sign() -> None:
    """The Markdown table's cell too."""
    better = replace(
        VERDICT, accuracy=replace(ACCURACY, gained=12, lost=9, drop_pp=-0.23, ci95_pp=(-0.98, 0.48))
    )
    text = render_markdown(better).replace("\N{NO-BREAK SPACE}", " ")
    assert "+0.23 pp, 95 % interval -0.48 to +0.98 pp" in text
    assert "drop -" not in text


def test_changed_labels_are_in_order_of_the_mistakes_confidence() -> None:
    """Of the engine where it errs, of the reference where only the reference does."""
    by_kind = facts.flips_by_kind(flips(5, 5, 5))
    assert list(by_kind) == [FlipKind.LOST, FlipKind.GAINED, FlipKind.OTHER]
    for kind, same in by_kind.items():
        role = "reference" if kind is FlipKind.GAINED else "engine"
        confidence = [getattr(flip, role).probability for flip in same]
        assert len(same) == 5
        assert confidence == sorted(confidence, reverse=True)


@pytest.mark.parametrize(
    ("drift", "word", "is_brief"),
    [
        (Drift(change=0.08, p_value=0.002), "8.0 % slower from start to end, a trend", True),
        (Drift(change=-0.08, p_value=0.002), "8.0 % faster from start to end, a trend", True),
        (Drift(change=0.08, p_value=0.2), "8.0 % slower from start to end, no trend", False),
        (Drift(change=0.01, p_value=0.0), "1.0 % slower from start to end, no trend", False),
    ],
)
def test_a_drift_is_a_trend_by_one_rule(drift: Drift, word: str, is_brief: bool) -> None:
    """Sure and large; a brief report leaves out what is neither."""
    engine, reference = replace(LATENCY.engine, drift=drift), replace(LATENCY.reference, drift=None)
    latency = replace(LATENCY, engine=engine, reference=reference)
    full, brief = (dict(facts.latency_facts(latency, brief=brief)) for brief in (False, True))
    assert f"engine {word}" in full["drift"].replace("\N{NO-BREAK SPACE}", " ")
    assert ("drift" in brief) == is_brief


def test_reasons_are_those_of_the_checks_that_decided() -> None:
    """The failed ones alone, or the undecided; without a limit, that there was none."""
    assert outcomes.reasons(VERDICT) == (DROP.reason,)
    assert outcomes.reasons(replace(VERDICT, checks=(SPEEDUP, DROP, LOST))) == (LOST.reason,)
    assert outcomes.reasons(PASSED) == (SPEEDUP.reason,)
    assert outcomes.reasons(replace(VERDICT, checks=())) == (outcomes.NO_LIMIT,)


def test_a_one_sided_bound_beside_a_two_sided_interval_is_called_so() -> None:
    """Each by its name where both stand; alone, the interval needs none."""
    both = dict(facts.accuracy_facts(VERDICT))
    assert both["95 % interval"].endswith(" (two-sided)")
    assert both["95 % bound"].startswith("drop of at most 0.91\N{NO-BREAK SPACE}pp (one-sided)")
    alone = dict(facts.accuracy_facts(PASSED))
    assert "sided" not in alone["95 % interval"]
    assert "95 % bound" not in alone


def test_a_terminal_is_given_no_space_that_a_search_would_miss() -> None:
    """`81.08 %` in a log is found by typing it."""
    console = Console(width=80)
    with console.capture() as printed:
        console.print(render_verdict(VERDICT))
    assert "\N{NO-BREAK SPACE}" not in printed.get()
    assert "81.08 %" in printed.get()

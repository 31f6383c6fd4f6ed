"""The page of a history: a chart a series, with a level line for each stretch that a test finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from commands import run
from past_runs import RUN, latency

from edgeres.core.verdict import History
from edgeres.evaluation.history import history_of
from edgeres.report import history_page

STEADY = [2.0, 2.02, 1.99, 2.01, 2.0, 1.98]
SLOWER = [*STEADY, 2.6, 2.61, 2.59, 2.6, 2.62, 2.58]
FASTER_AGAIN = [*SLOWER, *STEADY, *STEADY]


def history(engine_ms: Sequence[float | None]) -> History:
    """Returns the history of an engine that takes these times, beside a reference of 4 ms."""
    return history_of(
        [
            replace(
                RUN,
                name=f"<runs>:{day}",
                started=f"2026-01-{day:02}T00:00:00+00:00",
                latency=None if ms is None else latency(ms),
            )
            for day, ms in enumerate(engine_ms, 1)
        ]
    )


@pytest.mark.parametrize(
    ("engine_ms", "levels"),
    [(STEADY, []), (SLOWER, ["0.5", "0.65"]), (FASTER_AGAIN, ["0.5", "0.65", "0.5"])],
)
def test_each_level_is_a_line_with_its_value(engine_ms: list[float], levels: list[str]) -> None:
    """By hand: the median of its runs over the reference's 4 ms; none where nothing changed."""
    page = history_page(history(engine_ms))
    found = [word.split("<")[0] for word in page.split(">level ")[1:]]
    assert [f"{float(word):.2g}" for word in found] == levels
    assert page.count("<svg") == 2
    assert "&lt;runs&gt;:7" in page or not levels


def test_the_levels_meet_at_the_run_of_the_change() -> None:
    """The seventh of twelve."""
    (_, chart) = history_page(history(SLOWER)).split("<svg")[1:]
    svg = ElementTree.fromstring("<svg" + chart.split("</svg>")[0] + "</svg>")
    dashed = [e.attrib["d"] for e in svg.iter() if "stroke-dasharray" in e.attrib]
    lines = [d[1:].split("L") for d in dashed if "L" in d]
    (first_start, first_end), (second_start, second_end) = (
        [float(point.split()[0]) for point in line] for line in lines
    )
    assert first_end == second_start
    # Six steps from run 1 to 7, five from there to 12.
    assert (first_end - first_start) / 6 == pytest.approx((second_end - second_start) / 5, rel=0.01)


def test_a_simulated_engine_has_no_chart_of_its_latency() -> None:
    """Its accuracy alone."""
    page = history_page(history([None] * 7))
    assert page.count("<svg") == 1
    assert "Latency by run" not in page


def test_a_page_needs_a_history(tmp_path: Path) -> None:
    """Verdicts have none; nothing is written."""
    refused = run("compare", tmp_path / "a.json", "--report", tmp_path / "p.html")
    assert refused.exit_code == 2
    assert "--report needs --history" in refused.output
    assert list(tmp_path.iterdir()) == []

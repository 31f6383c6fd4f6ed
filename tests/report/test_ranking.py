"""Engines side by side on a terminal."""

from __future__ import annotations

import io
from dataclasses import replace

from past_runs import RUN, latency, with_correct
from rich.console import Console

from edgeres.core.verdict import Ranking
from edgeres.evaluation.regression import rank
from edgeres.report import render_ranking


def rendered(ranking: Ranking) -> str:
    """Returns what a pipe of 80 columns gets, without the spaces that fill lines."""
    stream = io.StringIO()
    Console(file=stream, width=80).print(render_ranking(ranking))
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def test_engines_stand_side_by_side() -> None:
    """One line each, the front marked, and what a test shows of the difference."""
    slow = with_correct(replace(RUN, name="slow[x]", latency=latency(4.0)), "1" * 890 + "0" * 110)
    simulated = replace(RUN, name="sim", latency=None, joules_per_image=0.0123)
    output = rendered(rank([RUN, slow, simulated]))
    assert [line.split() for line in output.splitlines()[2:5]] == [
        ["old", "*", "90.00", "0.00,", "-0.50", "to", "0.50", "2", "2.00", "-"],
        ["slow[x]", "89.00", "0.00,", "-0.50", "to", "0.50", "4", "1.00", "-"],
        ["sim", "90.00", "0.00,", "-0.50", "to", "0.50", "-", "-", "0.0123"],
    ]
    assert "J/image" in output
    assert "J/image" not in rendered(rank([RUN, slow]))
    text = " ".join(output.split())
    assert "Pareto front, accuracy against latency: old slow[x]: dominated by old; top-1" in text
    assert "compared with old: drop 1.00 pp, 95 % interval 0.54 to 1.83 pp, p 0.00195" in text
    assert max(map(len, output.splitlines())) <= 80


def test_what_is_not_comparable_is_warned_of() -> None:
    """After the table."""
    other = replace(RUN, name="other", machine="another")
    assert (
        rendered(rank([RUN, other])).splitlines()[-2].startswith("Warning: The engines were timed")
    )

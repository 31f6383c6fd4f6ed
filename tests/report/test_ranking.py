"""Engines side by side on a terminal."""

from __future__ import annotations

import io
from dataclasses import replace

from past_runs import RUN, latency, with_correct
from rich.console import Console

from edgeres.core.verdict import Outcome, Ranking
from edgeres.evaluation.regression import rank
from edgeres.report import render_ranking


def rendered(ranking: Ranking) -> str:
    """Returns what a pipe of 80 columns gets, without the spaces that fill lines."""
    stream = io.StringIO()
    Console(file=stream, width=80).print(render_ranking(ranking))
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def test_engines_stand_side_by_side() -> None:
    """One line each, the front marked, and what a test shows of the difference."""
    slow = with_correct(
        replace(RUN, name="slow[x]", outcome=Outcome.FAIL, latency=latency(4.0)),
        "1" * 890 + "0" * 110,
    )
    slow = replace(slow, drop_pp=1.0, ci95_pp=(0.54, 1.83))
    simulated = replace(
        RUN, name="sim", outcome=None, drop_pp=-0.13, latency=None, joules_per_image=0.0123
    )
    output = rendered(rank([RUN, slow, simulated]))
    assert [line.split() for line in output.splitlines()[2:5]] == [
        ["old", "*", "PASS", "90.00", "0.00", "1", "2", "500.0", "2.00", "-"],
        ["slow[x]", "FAIL", "89.00", "-1.00", "1", "4", "250.0", "1.00", "-"],
        ["sim", "-", "90.00", "+0.13", "-", "-", "-", "-", "0.0123"],
    ]
    assert "J/image" in output
    assert "J/image" not in rendered(rank([RUN, slow]))
    text = " ".join(output.split())
    assert "Pareto front, accuracy against latency: old old: " in text
    assert "slow[x]: drop 1.00 pp, 95 % interval 0.54 to 1.83 pp against its reference; " in text
    assert "sim: top-1 +0.13 pp, 95 % interval -0.50 to +0.50 pp against its reference" in text
    assert "; dominated by old; top-1" in text
    assert "compared with old: drop 1.00 pp, 95 % interval 0.54 to 1.83 pp, p 0.00195" in text
    assert max(map(len, output.splitlines())) <= 80


def test_what_is_not_comparable_is_warned_of() -> None:
    """After the table."""
    other = replace(RUN, name="other", machine="another")
    assert (
        rendered(rank([RUN, other])).splitlines()[-2].startswith("Warning: The engines were timed")
    )

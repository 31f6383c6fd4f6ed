"""Boards of one kind side by side, and what is never put beside another."""

from __future__ import annotations

from dataclasses import replace

import pytest
from past_runs import RUN, latency

from edgeres.core.precision import Precision
from edgeres.core.sweep import SweepCase
from edgeres.core.verdict import Platform
from edgeres.evaluation.sweeps import Measured, board_group, comparable, placed_runs
from edgeres.statistics import far_from_others

ORIN = Platform(kind="orin-nx-16", power_mode="2", versions={"tensorrt": "10.3"})


def measured(
    board: str, p50_ms: float, *, batch: int = 1, top1: float = 0.9, on: Platform = ORIN
) -> Measured:
    """Returns a combination on a board."""
    run = replace(RUN, latency=latency(p50_ms), top1=top1, platform=on)
    case = SweepCase(target="tensorrt", precision=Precision.INT8, method=None, batch=batch)
    return Measured(case=case, run=run, verdict=f"boards/{board}/v.json", board=board)


@pytest.mark.parametrize(
    "other",
    [
        replace(ORIN, kind="orin-nx-8"),
        replace(ORIN, power_mode="0"),
        replace(ORIN, power_mode=None),
        replace(ORIN, versions={"tensorrt": "10.4"}),
    ],
)
def test_what_differs_is_never_mixed(other: Platform) -> None:
    """Nor are runs of one board that was set otherwise meanwhile; the fronts are apart too."""
    runs = [measured("a", 2.0), measured("b", 1.0, on=other), measured("a", 4.0, on=other, batch=2)]
    groups = comparable(runs)
    assert [[one.board for one in members] for _, members in groups] == [["a"], ["b", "a"]]
    for _, members in groups:
        assert all(run.on_latency_front for run in placed_runs(members))


def test_runs_of_one_board_name_each_other_s_runtimes() -> None:
    """A runtime that only some engines of a board use sets its other runs apart from none."""
    cpu = replace(ORIN, versions={"onnxruntime": "1.23"})
    both = replace(ORIN, versions={"tensorrt": "10.3", "onnxruntime": "1.23"})
    ((platform, members),) = comparable([measured("a", 1.0, on=both), measured("a", 2.0, on=cpu)])
    assert (platform.versions, len(members)) == (both.versions, 2)
    # Two versions on one board leave open which of them the third run had beside it.
    newer = replace(both, versions={**both.versions, "tensorrt": "10.4"})
    runs = [measured("a", 1.0, on=each) for each in (both, newer, cpu)]
    assert len(comparable(runs)) == 3


def test_the_spread_and_the_board_beyond_it() -> None:
    """By hand: medians 2.0 and 4.0 ms; d is 9 and 11 % above them, the others within 1 %."""
    latencies = {
        "a": (2.00, 4.00),
        "b": (1.99, 3.96),
        "c": (2.00, 4.02),
        "d": (2.18, 4.44),
        "e": (2.01, 4.0),
    }
    runs = [
        measured(name, p50_ms, batch=batch)
        for name, both in latencies.items()
        for batch, p50_ms in enumerate(both, 1)
    ]
    group = board_group(ORIN, runs)
    assert [row.run.p50_ms for row in group.runs] == [2.0, 4.0]
    assert [row.spread_pct for row in group.runs] == pytest.approx([9.5, 12.0])
    assert [row.boards for row in group.runs] == [5, 5]
    deviations = {board.name: board.deviation_pct for board in group.boards}
    assert deviations == pytest.approx({"a": 0.0, "b": -0.75, "c": 0.25, "d": 10.0, "e": 0.25})
    assert [board.name for board in group.boards if board.differs] == ["d"]


def test_the_accuracy_of_boards_is_compared() -> None:
    """One that classifies otherwise has another engine, whatever its time."""
    (row,) = board_group(ORIN, [measured("a", 2.0), measured("b", 2.0, top1=0.89)]).runs
    assert row.top1_spread_pp == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("values", "far"),
    [
        ([], []),
        ([1.0], [False]),
        # Of two, neither is the one that differs.
        ([0.0, 50.0], [False, False]),
        ([0.0, 0.0, 2.1], [False, False, True]),
        # Nothing is called different for less than two runs of one board differ.
        ([0.0, 0.0, 1.9], [False, False, False]),
        # Distances 1, 0, 1, 9 have the median 1: 9 is beyond 5.19 of it, 5 is not.
        ([-1.0, 0.0, 0.0, 1.0, 9.0], [False, False, False, False, True]),
        ([-1.0, 0.0, 1.0, 5.0, -1.0], [False, False, False, False, False]),
        ([-30.0, 0.0, 0.5, 1.0], [True, False, False, False]),
    ],
)
def test_a_value_beyond_the_spread_of_the_others(values: list[float], far: list[bool]) -> None:
    """By Iglewicz and Hoaglin's modified z-score, and by no less than a distance."""
    assert list(far_from_others(values, 2.0)) == far

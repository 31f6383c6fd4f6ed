"""Runs over time: groups apart, changes only where the test finds them, the last run that matches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from past_runs import RUN, latency

from edgeres.core.verdict import PastRun, Series
from edgeres.errors import ConfigError
from edgeres.evaluation.history import history_of, last_matching


def course(engine_ms: Sequence[float], **changes: Any) -> list[PastRun]:
    """Returns a run a day, each with one of these latencies."""
    return [
        replace(
            RUN,
            name=f"runs:{day}",
            started=f"2026-01-{day:02}T00:00:00+00:00",
            latency=latency(ms),
            **changes,
        )
        for day, ms in enumerate(engine_ms, 1)
    ]


STEADY = [2.0, 2.02, 1.99, 2.01, 2.0, 1.98, 2.02, 2.01, 1.99, 2.0, 2.01, 1.98]
SLOWER = [2.0, 2.02, 1.99, 2.01, 2.0, 1.98, 2.6, 2.61, 2.59, 2.6, 2.62, 2.58]


def test_a_slower_engine_is_named_with_both_levels() -> None:
    """At the first slow run, relative to a reference of 4 ms; the accuracy stays."""
    (found,) = history_of(course(SLOWER)).courses
    (change,) = found.changes
    assert (change.series, change.run) == (Series.LATENCY, "runs:7")
    assert (change.before, change.after) == pytest.approx((0.5, 0.65), abs=0.003)


def test_a_machine_that_is_slower_for_both_has_not_changed() -> None:
    """The reference of each run cancels it."""
    runs = course(SLOWER)
    slowed = [
        replace(run, latency=latency(ms, reference_ms=2 * ms))
        for run, ms in zip(runs, SLOWER, strict=True)
    ]
    (found,) = history_of(slowed).courses
    assert found.tested
    assert found.changes == ()


@pytest.mark.parametrize(
    "other",
    [
        {"model_sha256": "c" * 64},
        {"target": "tensorrt"},
        {"machine": "another"},
        {"precision": "fp16"},
        {"reference_sha256": "d" * 64},
        {"emulated": "deepstream"},
    ],
    ids=str,
)
def test_groups_are_never_mixed(other: dict[str, Any]) -> None:
    """Fast runs of one and slow ones of another would be a change, and are two steady courses."""
    fast, slow = course(STEADY), course([2 * ms for ms in STEADY], **other)
    interleaved = [run for pair in zip(fast, slow, strict=True) for run in pair]
    for runs in (fast + slow, interleaved):
        found = history_of(runs).courses
        assert [len(one.runs) for one in found] == [12, 12]
        assert [one.changes for one in found] == [(), ()]


def test_batches_and_timings_are_groups_too() -> None:
    """A batch of eight takes longer, and is no slower for that."""
    runs = course(STEADY)
    eight = [replace(run, latency=replace(latency(9.0), batch_size=8)) for run in runs]
    graph = [
        replace(run, latency=replace(latency(1.0), mode="compute-graph, batch 1")) for run in runs
    ]
    simulated = [replace(run, latency=None) for run in runs]
    found = history_of([*runs, *eight, *graph, *simulated]).courses
    assert [(one.group.batch, one.group.timing) for one in found] == [
        (1, "end-to-end"), (8, "end-to-end"), (1, "compute-graph"), (None, None),
    ]  # fmt: skip
    assert all(one.changes == () for one in found)


def test_the_last_matching_run_is_yesterday_s() -> None:
    """By time, not by line, and of this group alone."""
    runs = course(STEADY)
    others = course(STEADY, machine="another")
    assert last_matching([*runs[::-1], *others], RUN.group, "runs.jsonl").name == "runs:12"
    with pytest.raises(ConfigError, match=r"None of the 12 runs in runs.jsonl is of this model"):
        last_matching(others, RUN.group, "runs.jsonl")


def test_at_most_one_steady_history_in_twenty_has_a_change() -> None:
    """300 of them, accuracy and latency of each with noise of their own."""
    rng = np.random.default_rng(5)
    alarms = 0
    for number in range(300):
        length = 10 + number % 9
        runs = [
            replace(run, top1=0.9 + top1)
            for run, top1 in zip(
                course((2 * np.exp(0.02 * rng.normal(size=length))).tolist()),
                (0.005 * rng.normal(size=length)).tolist(),
                strict=True,
            )
        ]
        (found,) = history_of(runs).courses
        alarms += bool(found.changes)
    assert alarms <= 15


def test_of_runs_in_one_second_the_last_line_counts() -> None:
    """Times are written in whole seconds, and lines are in order."""
    runs = [replace(RUN, name=name) for name in ("runs:1", "runs:2")]
    assert last_matching(runs, RUN.group, "runs.jsonl").name == "runs:2"

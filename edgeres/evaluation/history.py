"""Runs of bench over time, by groups that compare, with changes only where a test finds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from edgeres.core.verdict import (
    Course,
    CourseChange,
    CourseRun,
    History,
    PastRun,
    RunGroup,
    Series,
)
from edgeres.errors import ConfigError
from edgeres.plurals import counted
from edgeres.statistics import FALSE_ALARMS, FEWEST_RUNS, level_changes


def history_of(runs: Sequence[PastRun]) -> History:
    """Returns the course of each group of runs; no two groups are mixed."""
    groups: dict[RunGroup, list[PastRun]] = {}
    for run in sorted(runs, key=lambda run: run.started):
        groups.setdefault(run.group, []).append(run)
    return History(courses=tuple(_course(group, same) for group, same in groups.items()))


def last_matching(runs: Sequence[PastRun], group: RunGroup, source: str) -> PastRun:
    """Returns the latest run of a group.

    Raises:
        ConfigError: there is none.
    """
    matching = [run for run in runs if run.group == group]
    if not matching:
        raise ConfigError(
            f"None of the {counted(len(runs), 'run')} in {source} is of this model, reference, "
            "target, precision, machine, images, batch and timing. Pass the same --data, "
            "--samples, --seed, --latency-batch and --timing, or leave --baseline out."
        )
    # The last line of those that began in one second.
    return max(reversed(matching), key=lambda run: run.started)


def _course(group: RunGroup, runs: Sequence[PastRun]) -> Course:
    rows = tuple(CourseRun(run=run) for run in runs)
    return Course(
        group=group,
        runs=rows,
        tested=len(rows) >= FEWEST_RUNS,
        changes=tuple(_changes(rows)),
    )


def _changes(rows: Sequence[CourseRun]) -> Iterator[CourseChange]:
    relative = [row.relative_latency for row in rows]
    series = {
        Series.ACCURACY: [row.run.top1 for row in rows],
        Series.LATENCY: [value for value in relative if value is not None],
    }
    for name, values in series.items():
        # Bonferroni: a steady group is tested twice, and its chance of a false alarm is of both.
        changes = level_changes(values, FALSE_ALARMS / len(series))
        starts = [0, *(change.at for change in changes), len(values)]
        for number, change in enumerate(changes):
            yield CourseChange(
                series=name,
                run=rows[change.at].run.name,
                before=median(values[starts[number] : change.at]),
                after=median(values[change.at : starts[number + 2]]),
                p_value=change.p_value,
            )

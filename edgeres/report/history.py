"""A history for a terminal: a table a group, then the changes that were found."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from edgeres.core.verdict import Course, History, Series
from edgeres.report.tables import plain, ruled_table
from edgeres.report.words import moment, percent, probability
from edgeres.statistics import FALSE_ALARMS, FEWEST_RUNS


def render_history(history: History) -> Group:
    """Returns what a rich Console prints."""
    parts: list[RenderableType] = []
    for course in history.courses:
        parts += [*_course(course), Text()]
    return Group(*parts[:-1])


def _course(course: Course) -> Iterator[RenderableType]:
    group, model = course.group, course.group.model_sha256 or "not recorded"
    latency = "simulated" if group.batch is None else f"{group.timing}, batch {group.batch}"
    yield plain(
        f"{group.precision} for {group.target}, {latency}, model {model[:12]}, on {group.machine}"
    )
    table = ruled_table("run", "measured", "engine", "top-1 %", "p50 ms", "of reference")
    changed = {change.run for change in course.changes}
    for row in course.runs:
        run, relative = row.run, row.relative_latency
        table.add_row(
            Text(f"{run.name} *" if run.name in changed else run.name),
            moment(run.started) if run.started else "-",
            Text(run.engine_sha256[:8]),
            f"{100 * run.top1:.2f}",
            "-" if run.latency is None else f"{run.latency.engine.p50_ms:.3g}",
            "-" if relative is None else f"{relative:.3f}",
        )
    yield table
    yield from map(plain, _remarks(course))


def _remarks(course: Course) -> Iterator[str]:
    for change in course.changes:
        before, after = (
            percent(level) if change.series is Series.ACCURACY else f"{level:.3f} of the reference"
            for level in (change.before, change.after)
        )
        yield (
            f"* {change.series} changed at {change.run}: {before} to {after}, "
            f"p {probability(change.p_value)}"
        )
    if not course.tested:
        yield f"{len(course.runs)} runs; changes are looked for from {FEWEST_RUNS} on."
    elif not course.changes:
        yield f"No change found (permutation test, {percent(FALSE_ALARMS, 0)} false alarms)."

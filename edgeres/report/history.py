"""A history as a table and a chart a group, with the changes that were found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from rich.console import Group, RenderableType
from rich.text import Text

from edgeres.core.verdict import Course, History, RunGroup, Series
from edgeres.plurals import counted
from edgeres.report.bare_page import bare_page, section
from edgeres.report.chart import Line, Plot, draw_plot_svg
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
    yield plain(_title(course.group))
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


def _title(group: RunGroup) -> str:
    model = group.model_sha256 or "not recorded"
    latency = "simulated" if group.batch is None else f"{group.timing}, batch {group.batch}"
    return (
        f"{group.precision} for {group.target}, {latency}, model {model[:12]}, on {group.machine}"
    )


def history_page(history: History) -> str:
    """Returns one HTML page without scripts or requests: charts of each course and its changes."""
    count = sum(len(course.runs) for course in history.courses)
    return bare_page(
        "edgeres compare --history",
        title=counted(count, "run"),
        lead="in the order of time; a dashed line is a level, and ends where a test finds a change",
        content="".join(map(_section, history.courses)),
    )


def _section(course: Course) -> str:
    charts = "".join(
        f'<figure class="scroll plot">{draw_plot_svg(plot)}</figure>' for plot in _plots(course)
    )
    remarks = "".join(f"<li>{escape(remark)}</li>" for remark in _remarks(course))
    return section(escape(_title(course.group)), f'{charts}<ul class="reasons">{remarks}</ul>')


def _plots(course: Course) -> Iterator[Plot]:
    """Yields the course of accuracy and of latency, whichever was measured."""
    units = {
        Series.ACCURACY: "top-1 accuracy in %",
        Series.LATENCY: "p50 as a fraction of the reference's",
    }
    values: dict[Series, list[float | None]] = {
        Series.ACCURACY: [100 * row.run.top1 for row in course.runs],
        Series.LATENCY: [row.relative_latency for row in course.runs],
    }
    for series, unit in units.items():
        known = [(float(n), v) for n, v in enumerate(values[series], 1) if v is not None]
        if known:
            yield Plot(
                title=f"{series.value.capitalize()} by run",
                x_label="run",
                y_label=unit,
                lines=(
                    Line(label="measured", points=tuple(known)),
                    *_levels(course, series, known),
                ),
            )


def _levels(
    course: Course, series: Series, points: Sequence[tuple[float, float]]
) -> Iterator[Line]:
    """Yields a level line for each stretch between two changes."""
    numbers = {row.run.name: float(number) for number, row in enumerate(course.runs, 1)}
    changes = [change for change in course.changes if change.series is series]
    starts = [points[0][0], *(numbers[change.run] for change in changes)]
    ends = [*starts[1:], points[-1][0]]
    levels = [change.before for change in changes] + [change.after for change in changes[-1:]]
    unit = 100 if series is Series.ACCURACY else 1
    for start, end, level in zip(starts, ends, levels, strict=False):
        at = unit * level
        yield Line(
            label=f"level {at:.4g}", points=((start, at), (end, at)), dashed=True, group="level"
        )


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
        yield f"{counted(len(course.runs), 'run')}; changes are looked for from {FEWEST_RUNS} on."
    elif not course.changes:
        yield f"No change found (permutation test, {percent(FALSE_ALARMS, 0)} false alarms)."

"""A sweep for people: one table, laid out for a terminal, as Markdown and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from rich.console import Group, RenderableType
from rich.text import Text

from edgeres.core.sweep import GroupedRun, Sweep, SweepGroup, SweepRun, group_title
from edgeres.plurals import counted
from edgeres.report.bare_page import bare_page, section
from edgeres.report.chart import Line, Plot, draw_plot_svg
from edgeres.report.markdown import plain_markdown
from edgeres.report.tables import plain, ruled_table

_HEADERS = ("run", "batch", "top-1 %", "p50 ms", "images/s", "front")
_ON_BOARDS = (*_HEADERS[:4], "spread %", *_HEADERS[4:])
"""With how far the boards of a group are apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A table of runs that compare, under its title."""

    title: str
    """Empty where there is one part."""
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    runs: tuple[SweepRun, ...]
    remarks: tuple[str, ...]


def render_sweep(sweep: Sweep) -> Group:
    """Returns what a rich Console prints: the tables, then what dominates what."""
    shown: list[RenderableType] = []
    for part in _parts(sweep):
        table = ruled_table(part.headers[0], *part.headers[1:], gap=0 if part.title else 1)
        for row in part.rows:
            table.add_row(*row)
        if part.title:
            shown += [Text(part.title, "bold"), table, Text()]
            shown += [*map(plain, part.remarks), Text()]
        else:
            shown += [table, Text(), *map(plain, part.remarks)]
    return Group(*shown, *map(plain, _unmeasured(sweep)))


def sweep_markdown(sweep: Sweep) -> str:
    """Returns the tables as Markdown."""
    lines = []
    for part in _parts(sweep):
        if part.title:
            lines += [f"## {plain_markdown(part.title)}", ""]
        lines += [
            f"| {' | '.join(part.headers)} |",
            "| --- |" + " ---: |" * (len(part.headers) - 1),
            *(f"| {' | '.join(row)} |" for row in part.rows),
            "",
            *(f"- {plain_markdown(remark)}" for remark in part.remarks),
        ]
        if part.title:
            lines.append("")
    return "\n".join(
        [*lines, *(f"- {plain_markdown(remark)}" for remark in _unmeasured(sweep)), ""]
    )


def sweep_page(sweep: Sweep) -> str:
    """Returns one HTML page without scripts or requests: tables, remarks, charts."""
    reasons = "".join(f"<li>{escape(remark)}</li>" for remark in _unmeasured(sweep))
    missing = f'<ul class="reasons">{reasons}</ul>' if reasons else ""
    return bare_page(
        "edgeres sweep",
        title=counted(len(sweep.runs), "run"),
        lead=f"of the model {sweep.model_sha256[:12]}",
        content="".join(map(_sections, _parts(sweep)))
        + (section("Not run", missing) if missing else ""),
    )


def _sections(part: _Part) -> str:
    """Returns the sections of a page for one part: its table with the remarks, and its charts."""
    title = escape(part.title or "Runs")
    header = "".join(f'<th scope="col">{escape(name)}</th>' for name in part.headers)
    rows = ""
    for name, *values in part.rows:
        cells = "".join(f"<td>{escape(value)}</td>" for value in values)
        rows += f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'
    remarks = "".join(f"<li>{escape(remark)}</li>" for remark in part.remarks)
    charts = "".join(f'<figure class="scroll plot">{svg}</figure>' for svg in _charts(part.runs))
    table = (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}"><table><thead><tr>'
        f'{header}</tr></thead><tbody>{rows}</tbody></table></div><ul class="reasons">{remarks}</ul>'
    )
    return section(title, table) + (section("Accuracy against speed", charts) if charts else "")


def _parts(sweep: Sweep) -> Iterator[_Part]:
    """Yields the runs of this machine, or those of each group of boards."""
    if not sweep.groups:
        yield _Part(
            title="",
            headers=_HEADERS,
            rows=tuple(map(_cells, sweep.runs)),
            runs=sweep.runs,
            remarks=tuple(_remarks(sweep.runs)),
        )
    for group in sweep.groups:
        runs = tuple(one.run for one in group.runs)
        yield _Part(
            title=group_title(group),
            headers=_ON_BOARDS,
            rows=tuple(_cells_on_boards(one) for one in group.runs),
            runs=runs,
            remarks=(*_remarks_on_boards(group), *_remarks(runs)),
        )


def _cells_on_boards(one: GroupedRun) -> tuple[str, ...]:
    cells = _cells(one.run)
    return (*cells[:4], "-" if one.spread_pct is None else f"{one.spread_pct:.1f}", *cells[4:])


def _cells(run: SweepRun) -> tuple[str, ...]:
    mark = "~" if run.estimated else ""
    fronts = [
        name
        for name, is_on in (
            ("latency", run.on_latency_front),
            ("throughput", run.on_throughput_front),
        )
        if is_on
    ]
    name = run.name.rpartition(".b")[0]
    return (
        name if run.board is None else f"{name} ({run.board})",
        str(run.batch),
        "-" if run.top1 is None else f"{100 * run.top1:.2f}",
        "-" if run.p50_ms is None else f"{mark}{run.p50_ms:.3g}",
        "-" if run.images_per_s is None else f"{mark}{run.images_per_s:,.0f}",
        ", ".join(fronts) or "-",
    )


def _remarks_on_boards(group: SweepGroup) -> Iterator[str]:
    """Yields how the boards of a group differ, and which of them does beyond the others' spread."""
    known = [(each, each.deviation_pct) for each in group.boards if each.deviation_pct is not None]
    if len(known) > 1:
        names = ", ".join(f"{each.name} {deviation:+.1f} %" for each, deviation in known)
        yield f"latency beside the median of these boards: {names}"
    for each, deviation in known:
        if each.differs:
            way = "slower" if deviation > 0 else "faster"
            yield (
                f"{each.name} is {abs(deviation):.1f} % {way} than boards of its kind, beyond their "
                "spread: compare clocks, cooling and power supply by edgeres boards check"
            )
    for one in group.runs:
        if one.top1_spread_pp:
            yield (
                f"{one.run.name}: top-1 differs by {one.top1_spread_pp:.2f} percentage points "
                "between boards of one kind"
            )


def _unmeasured(sweep: Sweep) -> Iterator[str]:
    """Yields why runs are missing in the groups of boards."""
    if sweep.groups:
        yield from _remarks([run for run in sweep.runs if run.verdict is None])


def _remarks(runs: Sequence[SweepRun]) -> Iterator[str]:
    """Yields how images a second were taken, what dominates what, and why a run is missing."""
    streams = sorted({run.streams for run in runs if run.streams is not None})
    if streams:
        yield f"images/s measured with {counted(streams[0], 'inference')} at a time, latency with one"
    for run in runs:
        if run.dominated_by:
            yield f"{run.name}: dominated by {', '.join(run.dominated_by)}"
        if run.estimated:
            yield f"{run.name}: estimated for {run.board}, since {run.reason}; no accuracy"
        elif run.reason:
            where = "" if run.board is None else f" on {run.board}"
            yield f"{run.name}: not run{where}, since {run.reason}"


def _charts(runs: Sequence[SweepRun]) -> Iterator[str]:
    """Yields accuracy against latency and against images a second, an engine a line."""
    timed = [run for run in runs if run.top1 is not None and run.p50_ms is not None]
    if not timed:
        return
    engines: dict[str, list[SweepRun]] = {}
    for run in timed:
        engines.setdefault(run.name.rpartition(".b")[0], []).append(run)
    batches = ", ".join(str(batch) for batch in dict.fromkeys(run.batch for run in timed))
    for what, label, attribute in (
        ("latency", "median latency in ms", "p50_ms"),
        ("throughput", "images a second", "images_per_s"),
    ):
        lines = tuple(
            Line(
                label=name,
                points=tuple((getattr(run, attribute), 100 * (run.top1 or 0.0)) for run in own),
            )
            for name, own in engines.items()
        )
        plot = Plot(
            title=f"Top-1 against {what}",
            x_label=f"{label}, at batch {batches}",
            y_label="top-1 in %",
            lines=lines,
        )
        svg = draw_plot_svg(plot)
        yield svg[svg.index("<svg") :]

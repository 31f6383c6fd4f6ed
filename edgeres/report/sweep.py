"""A sweep for people: one table, laid out for a terminal, as Markdown and as a page."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from importlib import resources

from rich.console import Group
from rich.text import Text

from edgeres.core.sweep import Sweep, SweepRun
from edgeres.report.chart import Line, Plot, draw_plot_svg
from edgeres.report.tables import plain, ruled_table
from edgeres.version import __version__

_HEADERS = ("run", "batch", "top-1 %", "p50 ms", "images/s", "front")

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render_sweep(sweep: Sweep) -> Group:
    """Returns what a rich Console prints: the table, then what dominates what."""
    table = ruled_table(_HEADERS[0], *_HEADERS[1:], gap=1)
    for run in sweep.runs:
        table.add_row(*_cells(run))
    return Group(table, Text(), *map(plain, _remarks(sweep)))


def sweep_markdown(sweep: Sweep) -> str:
    """Returns the table as Markdown."""
    lines = [f"| {' | '.join(_HEADERS)} |", "| --- |" + " ---: |" * (len(_HEADERS) - 1)]
    lines += [f"| {' | '.join(_cells(run))} |" for run in sweep.runs]
    return "\n".join([*lines, "", *(f"- {remark}" for remark in _remarks(sweep)), ""])


def sweep_page(sweep: Sweep) -> str:
    """Returns one HTML page without scripts or requests: charts, table, remarks."""
    style = (resources.files("edgeres.report.html") / "report.css").read_text(encoding="utf-8")
    header = "".join(f'<th scope="col">{escape(name)}</th>' for name in _HEADERS)
    rows = ""
    for name, *values in map(_cells, sweep.runs):
        cells = "".join(f"<td>{escape(value)}</td>" for value in values)
        rows += f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'
    charts = "".join(f'<figure class="scroll plot">{svg}</figure>' for svg in _charts(sweep))
    remarks = "".join(f"<li>{escape(remark)}</li>" for remark in _remarks(sweep))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<link rel="icon" href="data:,">'
        f'<title>edgeres sweep</title><style>{style}</style></head><body><div class="sheet">'
        f'<header><p class="kicker">edgeres sweep</p><h1>{len(sweep.runs)} '
        f"run{'' if len(sweep.runs) == 1 else 's'}</h1>"
        f'<p class="lead">of the model {sweep.model_sha256[:12]}</p></header>'
        '<main><section class="card"><h2>Runs</h2><div class="scroll" tabindex="0" role="region" '
        f'aria-label="Runs"><table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>'
        f'</div><ul class="reasons">{remarks}</ul></section>'
        f"{f'<section class=card><h2>Accuracy against speed</h2>{charts}</section>' if charts else ''}</main>"
        f"<footer>Written by edgeres {__version__}.</footer></div></body></html>\n"
    )


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


def _remarks(sweep: Sweep) -> Iterator[str]:
    """Yields how images a second were taken, what dominates what, and why a run is missing."""
    streams = sorted({run.streams for run in sweep.runs if run.streams is not None})
    if streams:
        yield f"images/s measured with {streams[0]} inferences at a time, latency with one"
    for run in sweep.runs:
        if run.dominated_by:
            yield f"{run.name}: dominated by {', '.join(run.dominated_by)}"
        if run.estimated:
            yield f"{run.name}: estimated for {run.board}, since {run.reason}; no accuracy"
        elif run.reason:
            yield f"{run.name}: not run, since {run.reason}"


def _charts(sweep: Sweep) -> Iterator[str]:
    """Yields accuracy against latency and against images a second, an engine a line."""
    timed = [run for run in sweep.runs if run.top1 is not None and run.p50_ms is not None]
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
                points=tuple((getattr(run, attribute), 100 * (run.top1 or 0.0)) for run in runs),
            )
            for name, runs in engines.items()
        )
        plot = Plot(
            title=f"Top-1 against {what}",
            x_label=f"{label}, at batch {batches}",
            y_label="top-1 in %",
            lines=lines,
        )
        svg = draw_plot_svg(plot)
        yield svg[svg.index("<svg") :]

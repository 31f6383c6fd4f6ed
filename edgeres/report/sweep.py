"""A sweep for people: one table, laid out for a terminal, as Markdown and as a page."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from rich.console import Group
from rich.text import Text

from edgeres.core.sweep import Sweep, SweepRun
from edgeres.report.chart import Line, Plot, draw_plot_svg
from edgeres.report.tables import plain, ruled_table
from edgeres.version import __version__

_HEADERS = ("run", "batch", "top-1 %", "p50 ms", "images/s", "front")

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%}th,td{padding:.3rem .6rem;text-align:end;
border-bottom:1px solid #8884}th:first-child,td:first-child{text-align:start}
svg{max-width:100%;height:auto;background:#fff}"""

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
    header = "".join(f"<th>{escape(name)}</th>" for name in _HEADERS)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(run)) + "</tr>"
        for run in sweep.runs
    )
    remarks = "".join(f"<li>{escape(remark)}</li>" for remark in _remarks(sweep))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>edgeres sweep</title><style>{_STYLE}</style></head><body>"
        f"<h1>Sweep</h1><p>Model {sweep.model_sha256[:12]}</p>{''.join(_charts(sweep))}"
        f"<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>"
        f"<ul>{remarks}</ul><p>Written by edgeres {__version__}.</p></body></html>\n"
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
    """Yields accuracy against latency, a line a batch, and against images a second."""
    timed = [run for run in sweep.runs if run.top1 is not None and run.p50_ms is not None]
    if not timed:
        return
    batches = dict.fromkeys(run.batch for run in timed)
    for label, attribute in (
        ("median latency in ms", "p50_ms"),
        ("images a second", "images_per_s"),
    ):
        lines = tuple(
            Line(
                label=f"batch {batch}",
                points=tuple(
                    sorted(
                        (getattr(run, attribute), 100 * (run.top1 or 0.0))
                        for run in timed
                        if run.batch == batch
                    )
                ),
            )
            for batch in batches
        )
        plot = Plot(title="Accuracy", x_label=label, y_label="top-1 in %", lines=lines)
        svg = draw_plot_svg(plot)
        yield svg[svg.index("<svg") :]

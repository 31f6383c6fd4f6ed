"""No table on a terminal of 60, 80 or 120 columns breaks or cuts a figure."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from browser import sweep
from digits import Digits
from past_runs import RUN
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from sample_verdict import METERED
from test_gradients_report import COMPARISON

from edgeres import report
from edgeres.core.methods import Method
from edgeres.core.predictions import ImagePrediction, Prediction
from edgeres.core.tuning import (
    ErrorSource,
    MixedPoint,
    MixedSearch,
    Sensitivity,
    UnitSensitivity,
)
from edgeres.core.verdict import ProfileRow
from edgeres.estimation.arithmetic import Arithmetic
from edgeres.estimation.estimate import EstimateRequest, estimate_network
from edgeres.estimation.network import network_of
from edgeres.evaluation.history import history_of
from edgeres.evaluation.regression import rank
from edgeres.machine import examine_machine
from edgeres.machine.board_names import board_called
from edgeres.machine.boards import boards
from edgeres.networks.explain import Example, example_block, explain_architecture
from edgeres.report.tables import plain_table, ruled_table
from edgeres.workflows import inspect_artifact

_WIDE = 1000
"""Columns in which nothing breaks."""

LONG = "layer4.2.downsample.with_a_name_of_a_foreign_exporter"


def verdict() -> RenderableType:
    """With a profile of layers."""
    rows = [
        ProfileRow(block=LONG, layer=layer, engine_ms=123.456, reference_ms=1234.567, why=why)
        for layer, why in ((None, "15 % faster than in FP32"), ("conv1", "3x3 of 64 channels"))
    ]
    return report.render_verdict(replace(METERED, profile=tuple(rows)))


def sensitivity() -> RenderableType:
    """With every source of error."""
    unit = UnitSensitivity(unit=LONG, kind="layer", nodes=(), alone_db=130.25, without_db=21.75)
    source = ErrorSource(name="residual stream", tensors=123, alone_db=129.5)
    return report.sensitivity_tables(
        Sensitivity(
            images=1024, method=Method.PERCENTILE, all_db=20.5, units=(unit,), sources=(source,)
        )
    )


def mixed() -> RenderableType:
    """With an estimated latency."""
    points = tuple(
        MixedPoint(kept=kept, drop_pp=12.34, sqnr_db=101.5, latency=1234.56)
        for kept in ((), (LONG,))
    )
    return report.mixed_table(
        MixedSearch(
            max_drop_pp=0.125,
            images=50000,
            labelled=True,
            measured=False,
            points=points,
            pareto=(1,),
        )
    )


def estimate() -> RenderableType:
    """Of all precisions of a board."""
    request = EstimateRequest(
        board=board_called("agx-orin-64"),
        precisions=(Arithmetic.INT8, Arithmetic.FP16),
        batches=(1, 128),
    )
    result = estimate_network(network_of("resnet152"), request)
    return report.render_estimate(result, is_default_mode=True)


def predictions() -> RenderableType:
    """Of images with long names."""
    best = Prediction(index=999, name="a bird of 11 words", probability=0.98765, logit=-12.345)
    image = ImagePrediction(image=f"photos/{'x' * 60}.jpg", top=(best, best))
    return report.PredictionTable().render([replace(image, image="a.jpg"), image])


def inspected(path: Path) -> RenderableType:
    """What `inspect` shows."""
    return report.render_artifact(inspect_artifact(path))


TABLES: Mapping[str, Callable[[Digits], RenderableType]] = {
    "PredictionTable": lambda _: predictions(),
    "mixed_table": lambda _: mixed(),
    "render_artifact model": lambda digits: inspected(digits.model),
    "render_artifact table": lambda digits: inspected(digits.table),
    "render_artifact engine": lambda digits: inspected(digits.engine),
    "render_boards": lambda _: report.render_boards(
        [m for all_ in boards().values() for m in all_]
    ),
    "render_doctor": lambda _: report.render_doctor(examine_machine(observed_s=0.0)),
    "render_estimate": lambda _: estimate(),
    "render_example": lambda _: report.render_example(
        example_block(Example.BOTTLENECK), example_block(Example.PLAIN)
    ),
    "render_gradients": lambda _: report.render_gradients(COMPARISON),
    "render_history": lambda _: report.render_history(history_of([RUN] * 3)),
    "render_ilsvrc": lambda _: report.render_ilsvrc(),
    "render_network": lambda _: report.render_network(explain_architecture("resnext101_32x8d")),
    "render_ranking": lambda _: report.render_ranking(rank([RUN, replace(RUN, name=LONG)])),
    "render_side_by_side": lambda _: report.render_side_by_side(
        explain_architecture("wide_resnet101_2"), explain_architecture("resnet1202")
    ),
    "render_sweep": lambda _: report.render_sweep(sweep()),
    "render_verdict": lambda _: verdict(),
    "sensitivity_tables": lambda _: sensitivity(),
}
"""What the package renders for a terminal, by the function's name."""


def shown(part: RenderableType, columns: int) -> str:
    """Returns what a terminal of so many columns shows."""
    stream = io.StringIO()
    Console(file=stream, width=columns, color_system=None).print(part)
    return stream.getvalue()


def figures(text: str) -> Counter[str]:
    """Returns the words that begin with a digit, or a sign before one, by how often they occur."""
    return Counter(re.findall(r"(?<!\S)[-+~]?\d[\d.,:]*(?!\S)", text))


def number_cells(part: RenderableType) -> Counter[str]:
    """Returns what stands in the columns of numbers, which are those at the right of their cells."""
    tables: list[Table] = []
    draw = Table.__rich_console__

    def remember(table: Table, console: Console, options: ConsoleOptions) -> RenderResult:
        tables.append(table)
        return draw(table, console, options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Table, "__rich_console__", remember)
        shown(part, _WIDE)
    right = [column for table in tables for column in table.columns if column.justify == "right"]
    return Counter(str(cell).strip() for column in right for cell in column.cells if str(cell))


def cut(part: RenderableType, columns: int) -> list[str]:
    """Returns what a wide terminal shows whole and this one breaks, cuts or lets stick out."""
    narrow = shown(part, columns)
    lost = figures(shown(part, _WIDE)) - figures(narrow)
    whole = (
        (cell, len(re.findall(rf"(?<!\S){re.escape(cell)}(?!\S)", narrow)), times)
        for cell, times in number_cells(part).items()
    )
    return [
        *sorted(lost),
        *(cell for cell, found, times in whole if found < times),
        *(line for line in narrow.split("\n") if len(line) > columns or "…" in line),
    ]


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("name", TABLES)
def test_no_figure_is_cut(name: str, columns: int, digits: Digits) -> None:
    """Words fold; a table that does not fit has its rows one below the other."""
    assert cut(TABLES[name](digits), columns) == []


def test_every_table_is_among_them() -> None:
    """All that the package renders, but pages and files."""
    files = {"render_html", "render_junit", "render_markdown"}
    tables = {name for name in report.__all__ if re.match("render_|.*_tables?$|.*Table$", name)}
    assert {name.split()[0] for name in TABLES} == tables - files


@pytest.mark.parametrize("overflow", ["fold", "ellipsis"])
def test_a_figure_that_is_cut_would_be_noticed(overflow: str) -> None:
    """In a table of rich's own that shrinks its columns."""
    table = Table()
    for column in range(9):
        table.add_column(str(column), overflow="fold" if overflow == "fold" else "ellipsis")
    table.add_row(*["1234.5678"] * 9)
    assert cut(table, 60) != []
    assert cut(table, 120) == []


@pytest.mark.parametrize("cell", ["1234.5678", "98.76 %", "12 to 345", "1,234 ms"])
def test_a_figure_over_two_lines_would_be_noticed(cell: str) -> None:
    """Though it stands whole elsewhere, and though it breaks at a space."""
    table = Table()
    table.add_column("narrow", justify="right", width=6, overflow="fold")
    table.add_column("wide", justify="right")
    table.add_row(cell, cell)
    assert cell in cut(table, 60)
    table.columns[0].width = 9
    assert cut(table, 60) == []


NAME, FIGURE = "resnet50 of the second board", "1234.5678 to 2345.6789 ms"


@pytest.mark.parametrize("columns", [45, 60, 80])
def test_a_figure_with_spaces_and_the_name_beside_it_do_not_fold(columns: int) -> None:
    """Longer than what is left to words, so that only the column itself keeps them on one line."""
    ruled = ruled_table("network", "latency", "reference")
    listed = plain_table("network", numbers=("latency", "reference"))
    for table in (ruled, listed):
        table.add_row(NAME, FIGURE, FIGURE)
        assert shown(table, columns).count(FIGURE) == 2
    assert NAME in shown(ruled, columns)

"""Estimates and boards for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from edgeres.estimation.estimate import BoardEstimate, Estimate
from edgeres.estimation.measured import MeasuredLatency
from edgeres.machine.boards import Board
from edgeres.report.tables import fact_grid, plain, plain_table, ruled_table


def render_boards(modes: Sequence[Board]) -> RenderableType:
    """Returns the table of boards: one line a power mode."""
    table = plain_table("board", "mode", numbers=("SMs", "GPU MHz", "GB/s", "L2 MiB", "W"))
    for board in modes:
        mode = f"{board.power_mode} *" if board.is_default else board.power_mode
        figures = (board.gpu_mhz, board.memory_gbps, board.l2_mib, board.power_w)
        table.add_row(board.name, mode, str(board.sms), *(f"{figure:g}" for figure in figures))
    return Group(table, Text(), plain("* the mode that a board is shipped in"))


def render_estimate(
    result: BoardEstimate, *, is_default_mode: bool, measured: MeasuredLatency | None = None
) -> RenderableType:
    """Returns what a rich Console prints: latencies with intervals, and what bounds each stage.

    Args:
        result: of one network on one board.
        is_default_mode: whether nobody chose the power mode.
        measured: a measurement beside it; None without one.
    """
    board = result.board
    chosen = " (default)" if is_default_mode and board.power_mode != "default" else ""
    facts = [
        ("network", result.network),
        ("board", f"{board.title}, {board.power_mode}{chosen}: {_clocks(board)}"),
    ]
    table = ruled_table("estimate", "batch", "ms", "80 % interval", "images/s", "bound by")
    for one in result.estimates:
        table.add_row(
            f"{one.precision} {one.timing}{' *' if one.extrapolated else ''}",
            str(one.batch),
            _ms(one.latency_ms),
            f"{_ms(one.low_ms)} to {_ms(one.high_ms)}",
            f"{one.images_per_s:,.0f}",
            str(one.bound),
        )
    dlas = [
        (
            "both DLAs",
            f"about {one.images_per_s_with_dlas:,.0f} images/s with the GPU, batch {one.batch}",
        )
        for one in result.estimates
        if one.images_per_s_with_dlas is not None
    ]
    notes = [("*" if note.startswith("extrapolation") else "note", note) for note in result.notes]
    parts: list[RenderableType] = [fact_grid(facts, name_style="bold"), Text(), table]
    if dlas or notes:
        parts += [Text(), fact_grid([*dlas, *notes])]
    if measured is not None:
        parts += [Text(), fact_grid(measured.facts, name_style="bold")]
    return Group(*parts, Text(), *_stage_table(result.estimates[0]))


def _stage_table(one: Estimate) -> tuple[RenderableType, ...]:
    """Returns the table of where the first estimate's time goes."""
    table = ruled_table("stage", "kernels", "launch", "compute", "memory", "bound by")
    for stage in one.stages:
        times = (stage.launch_ms, stage.compute_ms, stage.memory_ms)
        table.add_row(stage.stage, str(stage.kernels), *map(_ms, times), str(stage.bound))
    title = plain(f"Where the time goes, {one.precision} {one.timing}, batch {one.batch}, in ms:")
    return title, table


def _clocks(board: Board) -> str:
    return f"{board.sms} SMs at {board.gpu_mhz:g} MHz, {board.memory_gbps:g} GB/s"


def _ms(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"

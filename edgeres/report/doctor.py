"""What a machine is, can and should, for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgeres.machine import DoctorReport, JetsonBoard
from edgeres.machine.clocks import Clock
from edgeres.report.tables import fact_grid
from edgeres.serialization import to_json


def render_doctor(report: DoctorReport) -> RenderableType:
    """Returns what a rich Console prints: the machine, what works, and what to do."""
    machine = ((key.replace("_", " "), _text(v)) for key, v in to_json(report.machine).items())
    parts: list[RenderableType] = [fact_grid(machine, name_style="bold")]
    if report.board is not None:
        board = ((name, _text(value)) for name, value in _board_facts(report.board))
        parts.append(fact_grid(board, name_style="bold"))
    capabilities = Table.grid(padding=(0, 2))
    for capability in report.capabilities:
        mark = Text("yes", "green") if capability.available else Text("no", "yellow")
        capabilities.add_row(mark, Text(capability.name), Text(capability.detail))
    parts.append(capabilities)
    if report.advice:
        advice = Table.grid(padding=(0, 2))
        for item in report.advice:
            mark = Text("first", "bold red") if item.blocking else Text("then", "yellow")
            advice.add_row(mark, Text(item.sentence))
            if item.command is not None:
                advice.add_row("", Text(item.command, "bold"))
        parts.append(advice)
    if report.stability.findings:
        findings = (("now", finding.sentence) for finding in report.stability.findings)
        parts.append(fact_grid(findings, name_style="yellow"))
    # An empty line between two parts.
    spaced: list[RenderableType] = [line for part in parts for line in ("", part)]
    return Group(*spaced[1:])


def _board_facts(board: JetsonBoard) -> Iterator[tuple[str, object]]:
    """Yields name and value of what a board reports of itself."""
    yield "Jetson", board.model
    yield "JetPack", f"{board.jetpack or 'unknown'} (Jetson Linux {board.l4t or 'unknown'})"
    yield "CUDA", board.cuda
    # The installed library and the module can differ: an environment may not see the system's.
    yield "TensorRT", f"{board.tensorrt or '-'}; in Python: {board.modules.get('tensorrt') or '-'}"
    yield "pycuda", board.modules.get("pycuda")
    yield "power mode", board.power_mode and board.power_mode.name
    if board.clocks is not None:
        yield "clocks", "fixed" if board.clocks.are_fixed else "follow the load"
        yield "GPU", _clock(board.clocks.gpu)
        # Linux shows the memory's clock in debugfs, which only root may read.
        yield (
            "memory (EMC)",
            _clock(board.clocks.emc) or "readable by root only: sudo edgeres doctor",
        )
    yield "temperatures", ", ".join(f"{n} {t:.1f}" for n, t in board.temperatures_c.items())
    yield "power", ", ".join(f"{n} {watts:.2f} W" for n, watts in board.watts.items())
    yield "swap", None if board.swap_mib is None else f"{board.swap_mib} MiB"


def _clock(clock: Clock | None) -> str | None:
    if clock is None:
        return None
    return f"{clock.now_mhz:.0f} MHz, may be {clock.min_mhz:.0f} to {clock.max_mhz:.0f}"


def _text(value: object) -> str:
    if value is None or value in ((), [], ""):
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)

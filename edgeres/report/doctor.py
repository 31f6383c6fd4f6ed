"""What a machine is, can and should, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgeres.machine import Advice, Capability, DoctorReport, JetsonBoard, Stability
from edgeres.machine.clocks import Clock


def render_doctor(found: DoctorReport) -> RenderableType:
    """Returns what a rich Console prints: the machine, what works, and what to do."""
    parts: list[RenderableType] = [_facts(found.machine.to_dict())]
    if found.board is not None:
        parts += [_facts(dict(_board_facts(found.board)))]
    parts += [_works(found.capabilities)]
    if found.advice:
        parts += [_to_do(found.advice)]
    if found.calm.findings:
        parts += [_disturbances(found.calm)]
    return Group(*_apart(parts))


def _apart(parts: list[RenderableType]) -> Iterator[RenderableType]:
    """Yields the parts with an empty line between two."""
    for position, part in enumerate(parts):
        if position:
            yield ""
        yield part


def _facts(facts: Mapping[str, object]) -> Table:
    table = _grid()
    for name, value in facts.items():
        table.add_row(Text(name.replace("_", " "), "bold"), Text(_text(value)))
    return table


def _board_facts(board: JetsonBoard) -> Iterator[tuple[str, object]]:
    """Yields name and value of what a board says of itself."""
    yield "Jetson", board.model
    yield "JetPack", f"{board.jetpack or 'unknown'} (Jetson Linux {board.l4t or 'unknown'})"
    yield "CUDA", board.cuda
    yield "TensorRT", f"{board.tensorrt or '-'}; in Python: {board.modules.get('tensorrt') or '-'}"
    yield "pycuda", board.modules.get("pycuda")
    yield "power mode", board.power_mode and board.power_mode.name
    if board.clocks is not None:
        yield "clocks", "fixed" if board.clocks.are_fixed else "follow the load"
        yield "GPU", _clock(board.clocks.gpu)
        yield "memory (EMC)", _clock(board.clocks.emc) or "told to root only: sudo edgeres doctor"
    yield "temperatures", ", ".join(f"{n} {t:.1f}" for n, t in board.temperatures_c.items())
    yield "power", ", ".join(f"{n} {watts:.2f} W" for n, watts in board.watts.items())
    yield "swap", None if board.swap_mib is None else f"{board.swap_mib} MiB"


def _clock(clock: Clock | None) -> str | None:
    if clock is None:
        return None
    return f"{clock.now_mhz:.0f} MHz, may be {clock.min_mhz:.0f} to {clock.max_mhz:.0f}"


def _works(capabilities: tuple[Capability, ...]) -> Table:
    table = _grid()
    for capability in capabilities:
        mark = Text("yes", "green") if capability.available else Text("no", "yellow")
        table.add_row(mark, Text(capability.name), Text(capability.detail))
    return table


def _to_do(advice: tuple[Advice, ...]) -> Table:
    table = _grid()
    for item in advice:
        mark = Text("first", "bold red") if item.blocking else Text("then", "yellow")
        table.add_row(mark, Text(item.sentence))
        if item.command is not None:
            table.add_row("", Text(item.command, "bold"))
    return table


def _disturbances(calm: Stability) -> Table:
    table = _grid()
    for finding in calm.findings:
        table.add_row(Text("now", "yellow"), Text(finding.sentence))
    return table


def _grid() -> Table:
    return Table.grid(padding=(0, 2))


def _text(value: object) -> str:
    if value is None or value in ((), [], ""):
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)

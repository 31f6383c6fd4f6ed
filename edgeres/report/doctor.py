"""What a machine is and can do, for people."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgeres.environment import Capability, Machine


def render_doctor(machine: Machine, found: Iterable[Capability]) -> RenderableType:
    """Returns what a rich Console prints: the machine, then what works on it."""
    facts = Table.grid(padding=(0, 2))
    for name, value in machine.to_dict().items():
        facts.add_row(Text(name.replace("_", " "), "bold"), Text(_text(value)))
    works = Table.grid(padding=(0, 2))
    for capability in found:
        mark = Text("yes", "green") if capability.available else Text("no", "yellow")
        works.add_row(mark, Text(capability.name), Text(capability.detail))
    return Group(facts, "", works)


def _text(value: object) -> str:
    if value is None or value == () or value == []:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)

"""What an engine really runs, residual block by residual block, for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from edgeres.core.audit import Audit, AuditedNode, describe_coverage, describe_missed
from edgeres.core.precision import Precision

_PATH = "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockAudit:
    """A residual block, or what stands before, between or behind them."""

    name: str
    nodes: tuple[AuditedNode, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """The engine's layers that compute it, in order."""
        return tuple(dict.fromkeys(node.layer for node in self.nodes if node.layer))

    def ran(self, op_type: str) -> str:
        """Returns how many of its operators of a kind ran in what, such as `3 int8`."""
        counts: dict[str, int] = {}
        for node in self.nodes:
            if node.op_type == op_type:
                key = "unknown" if node.ran is None else node.ran.value
                counts[key] = counts.get(key, 0) + 1
        return ", ".join(f"{count} {name}" for name, count in counts.items()) or "-"


def blocks(nodes: Iterable[AuditedNode]) -> tuple[BlockAudit, ...]:
    """Returns the convolutions and additions by residual block, in the network's order.

    An operator's path names its block where the exporter wrote one (`/layer1/layer1.0/conv1/Conv`);
    elsewhere a block ends with its addition.
    """
    found: dict[str, list[AuditedNode]] = {}
    for name, node in _named(nodes):
        found.setdefault(name, []).append(node)
    return tuple(BlockAudit(name=name, nodes=tuple(held)) for name, held in found.items())


def _named(nodes: Iterable[AuditedNode]) -> Iterator[tuple[str, AuditedNode]]:
    number = 1
    for node in nodes:
        parts = node.name.strip(_PATH).split(_PATH)
        if len(parts) < 2:
            yield f"block {number}", node
        elif len(parts) > 2 and parts[1].startswith(parts[0] + "."):
            yield parts[1], node
        else:
            yield parts[0], node
        number += node.op_type == "Add"


def render_audit(audit: Audit, precision: Precision) -> tuple[RenderableType, ...]:
    """Returns what a rich Console prints of an audit: its coverage, each block, what was missed."""
    head = f"{describe_coverage(audit, precision)}; {len(audit.layers)} layers in the engine"
    counts = f"{audit.fused} of them fused from several operators, {audit.reformats} reformats"
    lines: list[RenderableType] = ["", Text(f"{head}, {counts}", "bold")]
    if audit.note:
        lines.append(Text(audit.note))
    lines.append(_block_table(audit))
    if audit.missed:
        lines += ["", Text("not in the precision asked for", "bold")]
        lines += [Text(describe_missed(node)) for node in audit.missed]
    return tuple(lines)


def _block_table(audit: Audit) -> Table:
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("block", "convolutions", "additions", "engine layers"):
        rows.add_column(header, overflow="fold")
    for block in blocks(audit.nodes):
        cells = (block.name, block.ran("Conv"), block.ran("Add"), str(len(block.layers)))
        rows.add_row(*map(Text, cells))
    return rows

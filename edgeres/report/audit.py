"""What an engine really runs, residual block by residual block, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import RenderableType
from rich.text import Text

from edgeres.core.audit import Audit, AuditedNode, describe_coverage, describe_missed
from edgeres.core.blocks import locate
from edgeres.core.precision import Precision
from edgeres.plurals import counted
from edgeres.report.tables import plain_table


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
        precisions = (node.ran for node in self.nodes if node.op_type == op_type)
        counts = Counter("unknown" if ran is None else ran.value for ran in precisions)
        return ", ".join(f"{count} {name}" for name, count in counts.items()) or "-"


def blocks(nodes: Iterable[AuditedNode]) -> tuple[BlockAudit, ...]:
    """Returns the convolutions and additions by residual block, in the network's order.

    Outside of blocks they stand by their outermost module. Where names are no paths, a block
    ends with its addition.
    """
    by_block: dict[str, list[AuditedNode]] = {}
    number = 1
    for node in nodes:
        place = locate(node.name, node.op_type)
        name = place.block or place.module.partition(".")[0] or f"block {number}"
        by_block.setdefault(name, []).append(node)
        # Only additions mark where a block ends if names do not.
        number += node.op_type == "Add"
    return tuple(BlockAudit(name=name, nodes=tuple(inside)) for name, inside in by_block.items())


def render_audit(audit: Audit, precision: Precision) -> tuple[RenderableType, ...]:
    """Returns what a rich Console prints of an audit: its coverage, each block, what was missed."""
    head = f"{describe_coverage(audit, precision)}; {counted(len(audit.layers), 'layer')} in the engine"
    counts = f"{audit.fused} of them fused from several operators, {counted(audit.reformats, 'reformat')}"
    lines: list[RenderableType] = ["", Text(f"{head}, {counts}", "bold")]
    if audit.note:
        lines.append(Text(audit.note))
    rows = plain_table("block", "convolutions", "additions", "engine layers")
    for block in blocks(audit.nodes):
        cells = (block.name, block.ran("Conv"), block.ran("Add"), str(len(block.layers)))
        rows.add_row(*map(Text, cells))
    lines.append(rows)
    if audit.missed:
        lines += ["", Text("not in the requested precision", "bold")]
        lines += [Text(describe_missed(node)) for node in audit.missed]
    return tuple(lines)

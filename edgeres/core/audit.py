"""What an engine really runs: its layers, compared with the network and the requested precision.

Frozen values; the readers of each target are in `edgeres.targets`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeres.core.precision import Precision
from edgeres.names import Name

AUDITED = frozenset({"Conv", "Add"})
"""Operators of the network whose precision coverage counts."""


class Source(Name):
    """Where an audit's layers come from."""

    INSPECTOR = "engine inspector"
    PARSED = "parsed network"
    ONNXRUNTIME = "graph after ONNX Runtime's fusions"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLayer:
    """One layer of the engine, often several operators of the network in one kernel."""

    name: str
    kind: str
    """What the target calls it, such as `CaskConvolution` or `QLinearConv`."""
    precision: Precision | None
    """What it computes in; None where the target does not report it."""
    nodes: tuple[str, ...] = ()
    """Operators of the network that are fused in it."""
    tactic: str = ""
    """Name of the kernel, where the target reports it."""
    is_reformat: bool = False
    """Whether it only changes layout or type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedNode:
    """One convolution or addition of the network."""

    name: str
    op_type: str
    asked: Precision
    ran: Precision | None
    """None where the engine's layers do not show it."""
    layer: str = ""
    """The engine's layer that computes it."""

    @property
    def is_covered(self) -> bool:
        """Whether it runs in the requested precision."""
        # FP16 in the place of INT8 is not covered, nor is INT8 where FP16 was requested: the first is
        # slower than intended, the second less accurate.
        return self.ran is self.asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The engine's layers against the network's convolutions and additions."""

    json_keys = ("*", "coverage")

    source: Source
    layers: tuple[EngineLayer, ...]
    nodes: tuple[AuditedNode, ...]
    note: str = ""
    """What the source does not report."""

    @property
    def coverage(self) -> float:
        """Percentage of the convolutions and additions that run in the requested precision."""
        covered = sum(node.is_covered for node in self.nodes)
        # Without convolutions nothing is missed, and --require-coverage 100 must hold.
        return 100 * covered / len(self.nodes) if self.nodes else 100.0

    @property
    def missed(self) -> tuple[AuditedNode, ...]:
        """The convolutions and additions that do not."""
        return tuple(node for node in self.nodes if not node.is_covered)

    @property
    def reformats(self) -> int:
        """Layers that only change layout or type."""
        return sum(layer.is_reformat for layer in self.layers)

    @property
    def fused(self) -> int:
        """Layers that hold more than one operator of the network."""
        return sum(len(layer.nodes) > 1 for layer in self.layers)


def describe_missed(node: AuditedNode) -> str:
    """Returns a node that missed its precision, what it ran in and where."""
    ran = "not found among the engine's layers" if node.ran is None else f"ran in {node.ran}"
    where = f" in {node.layer}" if node.layer and node.layer != node.name else ""
    return f"{node.op_type} {node.name} ({ran}{where})"


def first_few(descriptions: Sequence[str], most: int = 5) -> str:
    """Returns the first descriptions of layers, and how many more there are."""
    more = f"; and {len(descriptions) - most} more" if len(descriptions) > most else ""
    return "; ".join(descriptions[:most]) + more


def describe_coverage(audit: Audit, precision: Precision) -> str:
    """Returns one line on how much of an engine runs in the requested precision."""
    covered = len(audit.nodes) - len(audit.missed)
    return (
        f"{covered} of {len(audit.nodes)} convolutions and additions run as requested in "
        f"{precision}: coverage {audit.coverage:.1f} %, by the {audit.source}"
    )

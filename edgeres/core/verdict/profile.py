"""Where the time of an inference goes: kernels as a runtime ran them, and blocks of the network."""

from __future__ import annotations

from dataclasses import dataclass

from edgeres.core.precision import Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTime:
    """One kernel of an engine, in the order of execution."""

    name: str
    """Of the network's operator that it computes, where the runtime kept it."""
    operator: str
    """Type of that operator, such as `Conv`."""
    kind: str
    """What the runtime calls the kernel, such as `QLinearConv`."""
    ms: float
    """Median over the inferences."""
    precision: Precision | None = None
    """What it computes in; None where that is not known."""
    is_reformat: bool = False
    """Whether it only changes layout or type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRow:
    """A residual block, or a layer of it, in the engine and in the reference."""

    block: str
    layer: str | None
    """None for all of the block."""
    engine_ms: float
    reference_ms: float
    why: str
    """Why the engine is hardly faster here, as far as its kernels show; empty where it is faster,
    or they do not show it."""

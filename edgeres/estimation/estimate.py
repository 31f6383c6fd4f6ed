"""Latency and throughput of a network on a board, with an interval and what they are bound by."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from edgeres.errors import ConfigError
from edgeres.estimation.arithmetic import GENERATIONS, Arithmetic, default_fp32
from edgeres.estimation.fitted import Regime, fitted_model, regime_of
from edgeres.estimation.kernels import Kernel, fused_kernels
from edgeres.estimation.model import EstimatedTiming, Latency, Load, latency, workload
from edgeres.machine.boards import Board, boards
from edgeres.names import Name
from edgeres.quantization.graph import Graph
from edgeres.quantization.qdq.placement import place_for_tensorrt
from edgeres.serialization import SCHEMA_VERSION

LARGEST_BATCH = 4096

PRECISIONS = (Arithmetic.FP32, Arithmetic.FP16, Arithmetic.INT8, Arithmetic.FP8)
"""What a network can be built in; FP32 runs in TF32 where the GPU has it."""


class Bound(Name):
    """What most of a time is spent on."""

    LAUNCH = "launch"
    """Starting and ending kernels, and the host."""
    COMPUTE = "compute"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateRequest:
    """What is estimated of a network on a board."""

    board: Board
    precisions: tuple[Arithmetic, ...] = ()
    """Empty: all that the board has."""
    batches: tuple[int, ...] = (1,)
    timings: tuple[EstimatedTiming, ...] = (EstimatedTiming.COMPUTE,)

    def __post_init__(self) -> None:
        wrong = [batch for batch in self.batches if not 1 <= batch <= LARGEST_BATCH]
        if wrong:
            raise ConfigError(
                f"--batch {wrong[0]} is no size of a batch; expected 1 to {LARGEST_BATCH}."
            )
        for precision in self.precisions:
            if missing := missing_units(self.board, precision):
                has = ", ".join(str(each) for each in available(self.board))
                raise ConfigError(f"{missing} Estimate {has}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEstimate:
    """The kernels of one part of the network together."""

    stage: str
    kernels: int
    launch_ms: float
    compute_ms: float
    """Of the kernels that their arithmetic bounds."""
    memory_ms: float
    """Of those that the memory, or the L2 cache, bounds."""
    bound: Bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An estimated latency with its 80 % interval."""

    precision: Arithmetic
    batch: int
    timing: EstimatedTiming
    latency_ms: float
    low_ms: float
    high_ms: float
    images_per_s: float
    bound: Bound
    extrapolated: bool
    """Whether no row of this board, network and precision was ever published."""
    power_limited: bool
    """Whether the power limit, not the clock, decides."""
    arithmetic: Arithmetic
    """What convolutions run in: `tf32` for `fp32` on Ampere and later."""
    images_per_s_with_dlas: float | None
    """Offline throughput with both DLAs, where it was published for the like; else None."""
    stages: tuple[StageEstimate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardEstimate:
    """What a board would do with a network."""

    schema_version: ClassVar[int] = SCHEMA_VERSION
    json_keys: ClassVar[tuple[str, ...]] = (
        "schema_version",
        "network",
        "board=board.name",
        "power_mode=board.power_mode",
        "sms=board.sms",
        "gpu_mhz=board.gpu_mhz",
        "memory_gbps=board.memory_gbps",
        "estimates",
        "notes",
    )

    network: str
    board: Board
    estimates: tuple[Estimate, ...]
    notes: tuple[str, ...]
    """Sentences on what the figures hold for."""


@dataclass(frozen=True, kw_only=True)
class EstimatedNetwork:
    """A network as the model sees it."""

    name: str
    graph: Graph
    architecture: str | None
    """Registry name, where it is known: it decides what was published of it."""

    @cached_property
    def kernels(self) -> tuple[Kernel, ...]:
        """Its fused kernels, in INT8 where TensorRT's placement quantizes."""
        return quantized_kernels(self.graph)


def quantized_kernels(graph: Graph) -> tuple[Kernel, ...]:
    """Returns the fused kernels of a network, in INT8 where TensorRT's placement quantizes."""
    precisions = {layer.name: layer.precision for layer in place_for_tensorrt(graph).layers}
    return fused_kernels(graph, precisions)


def available(board: Board) -> tuple[Arithmetic, ...]:
    """Returns the precisions that a board has units for."""
    generation = GENERATIONS[board.compute_capability]
    return tuple(precision for precision in PRECISIONS if generation.rate(precision))


def missing_units(board: Board, precision: Arithmetic) -> str | None:
    """Returns the sentence that a board has no units for a precision; None where it has."""
    if GENERATIONS[board.compute_capability].rate(precision):
        return None
    return (
        f"{board.name} has no {precision.upper()} units (compute capability "
        f"{board.compute_capability}): TensorRT builds no {precision.upper()} engine for it."
    )


def estimate_network(network: EstimatedNetwork, request: EstimateRequest) -> BoardEstimate:
    """Returns an estimate for each precision, batch and timing."""
    board = request.board
    precisions = request.precisions or available(board)
    estimates = tuple(
        _estimate(network, board, precision, batch, timing)
        for precision in precisions
        for batch in request.batches
        for timing in request.timings
    )
    return BoardEstimate(
        network=network.name,
        board=board,
        estimates=estimates,
        notes=tuple(_notes(request, estimates)),
    )


def _estimate(
    network: EstimatedNetwork,
    board: Board,
    precision: Arithmetic,
    batch: int,
    timing: EstimatedTiming,
) -> Estimate:
    fitted = fitted_model()
    fp32 = precision is Arithmetic.FP32
    arithmetic = default_fp32(board.compute_capability) if fp32 else precision
    load = Load(arithmetic=arithmetic, batch=batch, timing=timing)
    parts = latency(workload(network.kernels, board, load), fitted.constants)
    known = {(kind.board, kind.architecture, kind.precision) for kind in fitted.published}
    extrapolated = (board.name, network.architecture, str(precision)) not in known
    width = fitted.regimes[regime_of(batch)].half_width
    width = fitted.far_half_width if extrapolated else width
    stages = tuple(_stages(network.kernels, parts))
    per_s = 1e3 * batch / parts.total
    # Published in INT8, of large batches, in the mode that lets a board do most.
    offline = timing is EstimatedTiming.OFFLINE and regime_of(batch) is Regime.LARGE
    fastest = max(mode.sms * mode.gpu_mhz for mode in boards()[board.name])
    same = offline and precision is Arithmetic.INT8 and board.sms * board.gpu_mhz == fastest
    gain = fitted.dla_gain.get(board.name) if same and not extrapolated else None
    return Estimate(
        precision=precision,
        batch=batch,
        timing=timing,
        latency_ms=parts.total,
        low_ms=parts.total / math.exp(width),
        high_ms=parts.total * math.exp(width),
        images_per_s=per_s,
        bound=_bound(
            parts.host + sum(stage.launch_ms for stage in stages),
            sum(stage.compute_ms for stage in stages),
            sum(stage.memory_ms for stage in stages),
        ),
        extrapolated=extrapolated,
        power_limited=parts.energy > float(parts.busy.sum()),
        arithmetic=arithmetic,
        images_per_s_with_dlas=None if gain is None else per_s * gain,
        stages=stages,
    )


def _stages(kernels: Sequence[Kernel], parts: Latency) -> Iterator[StageEstimate]:
    """Yields the parts of the network in their order; what has no stage is stem or head."""
    names: list[str] = []
    for kernel in kernels:
        outside = "head" if any(name != "stem" for name in names) else "stem"
        names.append(kernel.stage or outside)
    computes = parts.compute >= parts.memory
    for stage in dict.fromkeys(names):
        own = np.array([name == stage for name in names])
        launch = parts.floor * int(own.sum())
        compute = float(parts.busy[own & computes].sum())
        memory = float(parts.busy[own & ~computes].sum())
        yield StageEstimate(
            stage=stage,
            kernels=int(own.sum()),
            launch_ms=launch,
            compute_ms=compute,
            memory_ms=memory,
            bound=_bound(launch, compute, memory),
        )


def _bound(launch: float, compute: float, memory: float) -> Bound:
    times = {Bound.LAUNCH: launch, Bound.COMPUTE: compute, Bound.MEMORY: memory}
    return max(times, key=lambda each: times[each])


def _notes(request: EstimateRequest, estimates: Sequence[Estimate]) -> Iterator[str]:
    board = request.board
    if not request.precisions and (missing := missing_units(board, Arithmetic.INT8)):
        yield missing
    if any(one.arithmetic is Arithmetic.TF32 for one in estimates):
        yield "fp32 runs in TF32 on the tensor cores, as TensorRT does unless it is switched off."
    if any(one.extrapolated for one in estimates):
        yield (
            "extrapolation: no published row of this kind (board, network and precision); the "
            "interval is wider."
        )
    if any(one.power_limited for one in estimates):
        yield f"The power limit of {board.power_w:g} W decides at large batches, not the clock."

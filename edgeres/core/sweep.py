"""A sweep: engines of several precisions, methods and targets, benched at several batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgeres.core.bench_requests import BenchRequest
from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.errors import ConfigError
from edgeres.serialization import SCHEMA_VERSION

_BENCH = BenchRequest()


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepInputs:
    """What a sweep reads, and its folder."""

    model: Path
    """The FP32 ONNX file."""
    data: Path
    """Labelled images that every engine is evaluated on."""
    output: Path
    """Folder of engines, verdicts, table and page."""
    table: Path | None = None
    calibration_data: Path | None = None
    """Images to calibrate on, instead of a table."""
    selection_data: Path | None = None
    """Labelled images for mixed precision."""

    def __post_init__(self) -> None:
        if self.table is not None and self.calibration_data is not None:
            raise ConfigError("Pass --calibration or --calib-data, not both.")
        for option, path in (
            ("--calib-data", self.calibration_data),
            ("--judge-data", self.selection_data),
        ):
            # Accuracy on images that chose the thresholds flatters the engine.
            if path is not None and path.resolve() == self.data.resolve():
                raise ConfigError(
                    f"{option} and --data are both {path}: engines would be evaluated on the "
                    "images that chose them. Pass other images to one of the two."
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRequest:
    """Which combinations, and how each is benched."""

    precisions: tuple[Precision, ...]
    targets: tuple[str, ...]
    batches: tuple[int, ...] = (1,)
    methods: tuple[Method, ...] = ()
    """Thresholds to build by; empty: the table's own."""
    max_drop_pp: float | None = None
    """Budget of mixed precision."""
    board: str | None = None
    """Board to estimate for, in `power_mode`, where a target cannot run here."""
    power_mode: str | None = None
    bench: BenchRequest = _BENCH

    def __post_init__(self) -> None:
        if wrong := [batch for batch in self.batches if batch < 1]:
            raise ConfigError(f"--batch {wrong[0]} is no size of a batch; expected at least 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepCase:
    """One combination."""

    target: str
    precision: Precision
    method: Method | None
    batch: int

    @property
    def engine(self) -> str:
        """Name of its engine, which the batches share."""
        method = [] if self.method is None else [str(self.method)]
        return ".".join([self.target, str(self.precision), *method])

    @property
    def name(self) -> str:
        """Name of its verdict."""
        return f"{self.engine}.b{self.batch}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRun:
    """What a combination came to: a verdict, an estimate, or the reason for neither."""

    name: str
    precision: Precision
    method: Method | None
    batch: int
    target: str
    board: str | None
    """That it was measured on, or that an estimate is for; None: this machine."""
    verdict: str | None = None
    """File of the verdict, below the folder; None without one."""
    outcome: str | None = None
    top1: float | None = None
    p50_ms: float | None = None
    """Median, or the estimate."""
    images_per_s: float | None = None
    streams: int | None = None
    """Inferences under way while images a second were measured; None: from the latency."""
    estimated: bool = False
    on_front: bool = False
    """Whether it is on either front."""
    on_latency_front: bool = False
    """Whether no run of its batch is as accurate and as fast, and better in one."""
    on_throughput_front: bool = False
    """The same for images a second, among runs of all batches."""
    dominated_by: tuple[str, ...] = ()
    reason: str = ""
    """Why it was neither measured nor estimated; else empty."""
    failed: bool = False
    """Whether that is an error, which the same line tries again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedRun:
    """A combination on the boards of a group: medians over them, and its places among those."""

    json_keys: ClassVar[tuple[str, ...]] = ("run.*", "boards", "spread_pct", "top1_spread_pp")

    run: SweepRun
    boards: int
    """How many have measured it."""
    spread_pct: float | None
    """From the fastest board's median latency to the slowest one's, in percent of the boards'
    median; None for one board, or without a latency."""
    top1_spread_pp: float
    """From the least top-1 accuracy to the greatest, in percentage points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedBoard:
    """A board beside the others of its group."""

    name: str
    deviation_pct: float | None
    """Median over the combinations of how far its latency is above the boards' median."""
    differs: bool
    """Whether that is beyond the spread of the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepGroup:
    """Boards of one kind in one power mode with the same runtimes: what compares at all."""

    kind: str
    """Board, or processor and GPUs."""
    power_mode: str | None
    versions: Mapping[str, str]
    """Of what wrote and ran the engines, by name."""
    boards: tuple[GroupedBoard, ...]
    runs: tuple[GroupedRun, ...]


def group_title(group: SweepGroup) -> str:
    """Returns what the boards of a group share."""
    mode = [] if group.power_mode is None else [f"power mode {group.power_mode}"]
    return ", ".join([group.kind, *mode, *(f"{n} {text}" for n, text in group.versions.items())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """All runs of a sweep, in the order of targets, precisions, methods and batches."""

    kind: ClassVar[str] = "edgeres-sweep"
    schema_version: ClassVar[int] = SCHEMA_VERSION
    json_keys: ClassVar[tuple[str, ...]] = ("kind", "schema_version", "*")

    model_sha256: str
    runs: tuple[SweepRun, ...]
    """On several boards, board by board; their places are those of the combination in its group."""
    groups: tuple[SweepGroup, ...] = ()
    """Empty for a sweep of this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """What a folder of a sweep belongs to: a resumed one must be of the same."""

    kind: ClassVar[str] = "edgeres-sweep-plan"
    schema_version: ClassVar[int] = SCHEMA_VERSION
    json_keys: ClassVar[tuple[str, ...]] = ("kind", "schema_version", "*")

    model_sha256: str
    table_sha256: str | None
    data: str
    calibration_data: str | None
    selection_data: str | None
    max_drop_pp: float | None
    samples: int | None
    seed: int
    iterations: int
    warmup: int
    timing: str
    streams: int | None

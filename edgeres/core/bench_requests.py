"""Requests to bench: how engine and reference are measured, and where the limits are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from edgeres.core.contract_options import NO_OPTIONS, ContractOptions
from edgeres.core.deployment import Destination
from edgeres.core.precision import Precision
from edgeres.errors import ConfigError
from edgeres.names import Name


class Timing(Name):
    """What a sample of latency covers. Only `end-to-end` needs no GPU."""

    END_TO_END = "end-to-end"
    """From images in the host's memory to logits there, on the host's clock."""
    END_TO_END_GRAPH = "end-to-end-graph"
    """The same, replayed as a CUDA graph."""
    COMPUTE = "compute"
    """The network alone, on the device's clock: no copies."""
    COMPUTE_GRAPH = "compute-graph"
    """The same, replayed as a CUDA graph."""
    TRTEXEC_10 = "trtexec-10"
    """As trtexec 8 and 10 time by default: copies in, network and copies out, one batch ahead."""
    TRTEXEC_11 = "trtexec-11"
    """As trtexec 11 times by default: the network alone, CUDA graph, waiting by spinning."""

    @property
    def graph(self) -> bool:
        """Whether a CUDA graph is replayed."""
        return self in {Timing.END_TO_END_GRAPH, Timing.COMPUTE_GRAPH, Timing.TRTEXEC_11}

    @property
    def on_device(self) -> bool:
        """Whether the device's own clock is read, which costs a sample nothing."""
        # End to end includes the host's own work, which events on the device do not see.
        return self not in {Timing.END_TO_END, Timing.END_TO_END_GRAPH}

    @property
    def trtexec(self) -> bool:
        """Whether warm-up and duration are trtexec's: by time, not by count."""
        return self in {Timing.TRTEXEC_10, Timing.TRTEXEC_11}


class Decision(Name):
    """What is compared with the limits of the drop in accuracy and of the speedup.

    `BOUND` passes when the images show that the drop is below its limit, and the interval of the
    speedup lies above its own; `POINT` when the figures that were measured keep them.
    """

    BOUND = "bound"
    POINT = "point"


class Scenario(Name):
    """How MLPerf's LoadGen sends queries: one image, eight together, or all of them."""

    SINGLE_STREAM = "single-stream"
    MULTI_STREAM = "multi-stream"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadGenRequest:
    """How MLPerf's LoadGen drives an engine."""

    scenario: Scenario
    seconds: float = 60.0
    """Shortest duration; a submission to MLPerf takes 600."""
    batch_size: int = 16
    """Images per inference of the offline scenario; a query of the others is one inference."""
    images: int = 64
    """Images in memory that it draws from."""

    def __post_init__(self) -> None:
        # LoadGen would never end an infinite run.
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ConfigError(f"--loadgen-seconds is {self.seconds:g}; expected a positive number.")


BATCH_SIZE = 16
"""Images per inference while accuracy is taken, unless others are requested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRequest:
    """How engine and reference are measured, and where the limits are."""

    max_drop_pp: float | None = None
    """Largest accepted drop of top-1 accuracy in percentage points; None: no limit."""
    min_speedup: float | None = None
    """Smallest accepted ratio of the reference's to the engine's median latency; None: no limit."""
    samples: int | None = None
    """Images to evaluate accuracy on, sampled with `seed`; None: all."""
    seed: int = 0
    batch_size: int | None = None
    """Images per inference while accuracy is taken; None: `BATCH_SIZE`, or what is taken of it."""
    latency_batch: int | None = None
    """Images per inference while latency is taken; None: 1, or the smallest that is taken."""
    iterations: int = 700
    """Timed inferences of each of the two; MLPerf requires 662 for a 99th percentile."""
    warmup: int = 20
    """Warm-up runs of each."""
    reference_top1: float | None = None
    """Top-1 accuracy in percent that the reference is known to have on such images; None: not known."""
    decide: Decision = Decision.BOUND
    """What is compared with `max_drop_pp` and `min_speedup`."""
    strict: bool = False
    """Whether a measurement on an unstable machine fails."""
    energy: bool = True
    """Whether energy is metered where the machine can; it takes some 15 seconds."""
    loadgen: LoadGenRequest | None = None
    """Scenario of MLPerf's LoadGen to run too; None: none."""
    max_slowdown: float = 0.05
    """Fraction by which the latency may grow compared with a baseline."""
    diagnose: bool | None = None
    """Whether the usual mistakes are tried; None: where the reference is suspiciously often wrong."""
    profile: bool = False
    """Whether the time of each block and layer is measured, in inferences of its own."""
    timing: Timing = Timing.END_TO_END
    """What a sample of latency covers; trtexec's modes have their own counts."""
    streams: int | None = None
    """Inferences under way at a time while throughput is measured; None: it is not, and follows
    from the latency."""

    def __post_init__(self) -> None:
        counts = (self.batch_size, self.latency_batch, self.iterations)
        if min(count for count in counts if count is not None) < 1 or self.warmup < 0:
            raise ConfigError(
                f"Batch sizes and iterations {counts} must be at least 1, warmup not negative."
            )
        if self.streams is not None and self.streams < 1:
            raise ConfigError(f"--streams is {self.streams}; at least 1 inference is under way.")
        if self.samples is not None and self.samples < 1:
            raise ConfigError(f"--samples is {self.samples}; at least 1 image is needed.")
        if self.reference_top1 is not None and not 0 < self.reference_top1 <= 100:
            raise ConfigError(
                f"--reference-top1 is {self.reference_top1:g}; expected a percentage above 0, at "
                "most 100."
            )
        limits = {
            "--max-drop": self.max_drop_pp,
            "--min-speedup": self.min_speedup,
            "--max-slowdown": self.max_slowdown,
        }
        # inf and NaN pass as numbers on a command line, and would never fail a check.
        for name, limit in limits.items():
            if limit is not None and not math.isfinite(limit):
                raise ConfigError(f"{name} {limit} is no limit; expected a finite number.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFiles:
    """Which reports are wanted, and where; None: not wanted."""

    html: Path | None = None
    markdown: Path | None = None
    junit: Path | None = None

    @property
    def wanted(self) -> tuple[Path, ...]:
        """The files to write."""
        return tuple(path for path in (self.html, self.markdown, self.junit) if path is not None)


NO_REPORTS = ReportFiles()
"""None is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchInputs:
    """Files that bench reads and writes."""

    engine: Path
    """An engine, or with `simulate` a calibration table."""
    reference: Path
    """The FP32 ONNX model, or another engine."""
    data: Path
    simulate: bool = False
    """Evaluate TensorRT's placement on the CPU, from a table."""
    float_layers: Precision | None = None
    """Precision that a simulation gives what is not INT8; None: a plan's by default."""
    contract: ContractOptions = NO_OPTIONS
    """Only for a reference without a contract of its own."""
    quantized_reference: bool = False
    """Whether `reference` is an engine or an ONNX file that is quantized or of less than FP32."""
    trust: bool = False
    """Run a plan that has no manifest: it is code, and the user vouches for it."""
    prepared_as: Destination | None = None
    """Where the engine's images are prepared, emulated on the CPU; None: by its contract."""
    dump: Path | None = None
    """Tensor that another program fed to its engine for `image`, as `.npy`; None: none."""
    image: Path | None = None
    """The image that `dump` was made of."""
    loadgen_logs: Path | None = None
    """Folder for the logs of MLPerf's LoadGen; None: they are not kept."""
    baseline: Path | None = None
    """JSON of an earlier run on the same images, which this one must not be worse than; of a
    history the last matching run is taken."""
    history: Path | None = None
    """File of JSON lines that the run is added to; None: none."""
    outcomes: tuple[Path, ...] = ()
    """Outcomes of parts of the images, evaluated before; empty: all are evaluated here."""
    reports: ReportFiles = NO_REPORTS
    """Files that the verdict is written to for people and for CI."""
    command: tuple[str, ...] = ()
    """Command line of the run, for the provenance."""

    def __post_init__(self) -> None:
        if self.float_layers is not None and not self.simulate:
            raise ConfigError(
                f"--float-layers {self.float_layers} is for --simulate: an engine has the types that "
                "it was built with. Leave it out, or build the engine again with it."
            )

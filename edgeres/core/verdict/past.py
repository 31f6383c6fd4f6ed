"""A run of bench as far as a later one is compared with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgeres.core.verdict.accuracy import ImageRecord
from edgeres.core.verdict.latency import (
    Interval,
    MeasuredThroughput,
    PairedLatency,
    Throughput,
    throughput_of,
)
from edgeres.core.verdict.outcome import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class RunGroup:
    """What runs share whose figures make one course over time."""

    model_sha256: str | None
    reference_sha256: str
    target: str
    precision: str | None
    machine: str
    images: str
    """Fingerprint of those that accuracy was evaluated on."""
    batch: int | None
    """Of the latency; None where the engine was only simulated."""
    timing: str | None
    """What a sample of latency covers."""
    emulated: str | None
    """Whose preprocessing was emulated for the engine; None for the contract's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What a run was measured on, as far as runs of several boards may be compared."""

    kind: str
    """Board, or processor and GPUs."""
    power_mode: str | None
    """Number of a Jetson's; None elsewhere."""
    versions: Mapping[str, str]
    """Of what wrote and ran the engine, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """Results of an earlier run of bench."""

    name: str
    """What a message calls it: the name of its file without the ending."""
    engine: str
    """Name of the engine's file."""
    target: str
    precision: str | None
    passed: bool
    outcome: Outcome | None
    """None where it was written before there were outcomes."""
    samples: int
    top1: float
    drop_pp: float
    ci95_pp: Interval
    images: ImageRecord
    reference_sha256: str
    machine: str
    """Processor and GPUs that it ran on."""
    platform: Platform
    latency: PairedLatency | None
    """None where the engine was only simulated."""
    disturbances: tuple[str, ...]
    """What other load or throttling took from its measurement, in sentences."""
    joules_per_image: float | None
    """None where there was no meter."""
    started: str = ""
    """When the measurement began, ISO 8601 in UTC."""
    engine_sha256: str = ""
    model_sha256: str | None = None
    """None where it is not recorded."""
    emulated: str | None = None
    """Whose preprocessing was emulated for the engine; None for the contract's own."""
    measured_throughput: MeasuredThroughput | None = None
    """With several inferences under way; None where it was not requested."""

    @property
    def throughput(self) -> Throughput | None:
        """Images a second, measured or else derived from the latency; None without either."""
        return throughput_of(self.latency, self.measured_throughput)

    @property
    def group(self) -> RunGroup:
        """What another run must share to be compared with it over time."""
        latency = self.latency
        return RunGroup(
            model_sha256=self.model_sha256,
            reference_sha256=self.reference_sha256,
            target=self.target,
            precision=self.precision,
            machine=self.machine,
            images=self.images.fingerprint,
            batch=None if latency is None else latency.batch_size,
            # The rest of the mode names engine and reference.
            timing=None if latency is None else latency.mode.partition(",")[0],
            emulated=self.emulated,
        )


def processors_of(cpu: str | None, gpus: Iterable[str]) -> str:
    """Returns a machine's processor and GPUs as one name, by which runs are compared."""
    return ", ".join([cpu or "unknown processor", *gpus])

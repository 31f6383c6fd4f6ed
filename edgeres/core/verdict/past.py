"""A run of bench as far as a later one is compared with it."""

from __future__ import annotations

from collections.abc import Iterable
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
    latency: PairedLatency | None
    """None where the engine was only simulated."""
    disturbances: tuple[str, ...]
    """What other load or throttling took from its measurement, in sentences."""
    joules_per_image: float | None
    """None where there was no meter."""
    measured_throughput: MeasuredThroughput | None = None
    """With several inferences under way; None where it was not requested."""

    @property
    def throughput(self) -> Throughput | None:
        """Images a second, measured or else derived from the latency; None without either."""
        return throughput_of(self.latency, self.measured_throughput)


def processors_of(cpu: str | None, gpus: Iterable[str]) -> str:
    """Returns a machine's processor and GPUs as one name, by which runs are compared."""
    return ", ".join([cpu or "unknown processor", *gpus])

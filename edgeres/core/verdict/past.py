"""An earlier verdict read back from its JSON, as far as a later one is held against it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeres.core.verdict.accuracy import ImageRecord
from edgeres.core.verdict.latency import Interval
from edgeres.errors import ArtifactError
from edgeres.files import load_json

VERDICT_KIND = "edgeres-verdict"
"""What the JSON of a verdict says that it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Latency of one network with its samples."""

    p50_ms: float
    samples_ms: tuple[float, ...]
    blocks: tuple[int, ...]
    """Block that each sample belongs to."""
    p50_ci95_ms: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PastLatency:
    """Latency of both networks of an earlier run."""

    batch_size: int
    engine: Series
    reference: Series
    images_per_s: float
    """Of the engine."""

    @property
    def speedup(self) -> float:
        """Ratio of the reference's median latency to the engine's."""
        return self.reference.p50_ms / self.engine.p50_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """What an earlier run of bench found."""

    name: str
    """What a message calls it: the name of its file without the ending."""
    engine: str
    """Name of the engine's file."""
    target: str
    precision: str | None
    passed: bool
    samples: int
    top1: float
    drop_pp: float
    ci95_pp: Interval
    images: ImageRecord
    reference_sha256: str
    machine: str
    """Processor and GPUs that it ran on."""
    latency: PastLatency | None
    """None where the engine was only simulated."""
    joules_per_image: float | None
    """None where there was no meter."""

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], name: str) -> PastRun:
        """Reads the JSON of `bench --json`; damage raises KeyError, TypeError or ValueError."""
        accuracy, provenance, energy = raw["accuracy"], raw["provenance"], raw["energy"]
        low, high = accuracy["ci95_pp"]
        return cls(
            name=name,
            engine=Path(provenance["engine"]["path"]).name,
            target=provenance["target"],
            precision=provenance["precision"],
            passed=bool(raw["passed"]),
            samples=int(accuracy["samples"]),
            top1=float(accuracy["engine"]["top1"]),
            drop_pp=float(accuracy["drop_pp"]),
            ci95_pp=(float(low), float(high)),
            images=ImageRecord(**accuracy["images"]),
            reference_sha256=provenance["reference"]["sha256"],
            machine=processors_of(raw["environment"]["cpu"], raw["environment"]["gpus"]),
            latency=raw["latency"] and _latency(raw["latency"], raw["throughput"]),
            joules_per_image=energy and float(energy["engine"]["joules_per_image"]),
        )


def load_run(path: Path) -> PastRun:
    """Reads what `bench --json` printed into a file.

    Raises:
        ArtifactError: the file is unreadable, or no verdict of this version.
    """
    raw = load_json(path, VERDICT_KIND)
    try:
        return PastRun.from_dict(raw, path.stem)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{path} is a damaged verdict ({error!r}). Make it again: edgeres bench ... --json > "
            f"{path.name}"
        ) from error


def processors_of(cpu: str | None, gpus: Iterable[str]) -> str:
    """Returns a machine's processor and GPUs as one name."""
    return ", ".join([cpu or "unknown processor", *gpus])


def _latency(raw: Mapping[str, Any], throughput: Mapping[str, Any]) -> PastLatency:
    return PastLatency(
        batch_size=int(raw["batch_size"]),
        engine=_series(raw["engine"]),
        reference=_series(raw["reference"]),
        images_per_s=float(throughput["engine_images_per_s"]),
    )


def _series(raw: Mapping[str, Any]) -> Series:
    ends = raw["ci95"] and raw["ci95"]["p50_ms"]
    return Series(
        p50_ms=float(raw["p50_ms"]),
        samples_ms=tuple(map(float, raw["samples_ms"])),
        blocks=tuple(map(int, raw["blocks"])),
        p50_ci95_ms=ends and (float(ends[0]), float(ends[1])),
    )

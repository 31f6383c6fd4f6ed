"""What evaluation, timing and comparison found: frozen values with the JSON of `bench --json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeres.files import SCHEMA_VERSION

EXIT_PASS = 0
EXIT_ACCURACY = 3
EXIT_SPEED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How often one network was right."""

    samples: int
    correct: int
    """Images whose highest logit is the label's."""
    correct_top5: int | None
    """Images whose label is among the five highest logits; None below six classes."""

    @property
    def top1(self) -> float:
        """Fraction of images that are right."""
        return self.correct / self.samples

    @property
    def top5(self) -> float | None:
        """Fraction of images whose label is among the five highest; None below six classes."""
        return None if self.correct_top5 is None else self.correct_top5 / self.samples

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {"top1": self.top1, "top5": self.top5, "correct": self.correct}


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedAccuracy:
    """Reference and engine on the same images, and how sure their difference is."""

    reference: Accuracy
    engine: Accuracy
    gained: int
    """Images that only the engine has right."""
    lost: int
    """Images that only the reference has right."""
    drop_pp: float
    """Top-1 of the reference minus top-1 of the engine, in percentage points."""
    ci95_pp: tuple[float, float]
    """95 % interval of `drop_pp`."""
    p_value: float
    """Exact McNemar test of the two being right equally often."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "samples": self.engine.samples,
            "reference": self.reference.to_dict(),
            "engine": self.engine.to_dict(),
            "drop_pp": self.drop_pp,
            "ci95_pp": list(self.ci95_pp),
            "flips": {"gained": self.gained, "lost": self.lost},
            "p_value": self.p_value,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyStats:
    """Distribution of the time of one inference, in milliseconds."""

    samples_ms: tuple[float, ...]
    """Every timed inference, in the order taken."""
    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form; the raw samples are left out."""
        return {
            "p50_ms": self.p50_ms,
            "p90_ms": self.p90_ms,
            "p99_ms": self.p99_ms,
            "mean_ms": self.mean_ms,
            "samples": len(self.samples_ms),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedLatency:
    """Engine and reference timed in turns in one run."""

    mode: str
    """What a sample covers and where, such as `onnxruntime-cpu end-to-end, batch 1`."""
    batch_size: int
    engine: LatencyStats
    reference: LatencyStats

    @property
    def speedup(self) -> float:
        """Ratio of the reference's median latency to the engine's."""
        return self.reference.p50_ms / self.engine.p50_ms

    def images_per_s(self, stats: LatencyStats) -> float:
        """Images a second at the mean latency, one batch after the other."""
        return 1000 * self.batch_size / stats.mean_ms

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "mode": self.mode,
            "batch_size": self.batch_size,
            "engine": self.engine.to_dict(),
            "reference": self.reference.to_dict(),
            "speedup": self.speedup,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One limit and whether the engine keeps it."""

    name: str
    limit: float
    value: float
    passed: bool
    exit_code: int
    """Exit code of bench when this check fails."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {"name": self.name, "limit": self.limit, "value": self.value, "passed": self.passed}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The verdict on one engine."""

    accuracy: PairedAccuracy
    latency: PairedLatency | None
    """None where the engine was not run on its target, only simulated."""
    environment: Mapping[str, Any]
    checks: tuple[Check, ...]
    warnings: tuple[str, ...] = ()
    """Sentences on what weakens the verdict, such as calibration images among the test images."""

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def exit_code(self) -> int:
        """Exit code of the first failed check: accuracy before speed; 0 when all passed."""
        return min((c.exit_code for c in self.checks if not c.passed), default=EXIT_PASS)

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object of `bench --json`."""
        latency = self.latency
        return {
            "schema_version": SCHEMA_VERSION,
            "passed": self.passed,
            "accuracy": self.accuracy.to_dict(),
            "latency": latency and latency.to_dict(),
            "throughput": latency
            and {
                "engine_images_per_s": latency.images_per_s(latency.engine),
                "reference_images_per_s": latency.images_per_s(latency.reference),
            },
            "energy": None,
            "environment": dict(self.environment),
            "checks": [check.to_dict() for check in self.checks],
            "warnings": list(self.warnings),
        }

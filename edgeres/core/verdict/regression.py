"""How a run stands against an earlier one, and several runs against each other."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgeres.core.verdict.latency import Interval
from edgeres.core.verdict.past import PastRun


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyChange:
    """Two engines on the same images; positive: the later one is right less often."""

    gained: int
    lost: int
    drop_pp: float
    ci95_pp: Interval
    p_value: float
    """Exact McNemar test."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {**asdict(self), "ci95_pp": list(self.ci95_pp)}


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyChange:
    """Two engines, each timed in turns with the same reference; above 1: the later is slower."""

    ratio: float
    """Of the medians, each over that of the reference in its own run, so that a machine that is
    slower as a whole does not count."""
    ci95: Interval | None
    """None where either run has too few blocks."""
    raw_ratio: float
    """Of the medians as they are."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {**asdict(self), "ci95": self.ci95 and list(self.ci95)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """This run against the one before."""

    baseline: str
    """Name of the earlier run."""
    accuracy: AccuracyChange
    latency: LatencyChange | None
    latency_reason: str | None
    """Why latencies are not compared; None where they are."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "baseline": self.baseline,
            "accuracy": self.accuracy.to_dict(),
            "latency": self.latency and self.latency.to_dict(),
            "latency_reason": self.latency_reason,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One of several engines among the others."""

    run: PastRun
    dominated_by: str | None
    """Name of an engine that is at least as often right and as fast, and better in one; None on
    the Pareto front, and where there is no latency."""
    on_front: bool
    against_first: AccuracyChange | None
    """Against the first engine; None for that one, and where the images are others."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        run, latency = self.run, self.run.latency
        return {
            "name": run.name,
            "engine": run.engine,
            "target": run.target,
            "precision": run.precision,
            "passed": run.passed,
            "samples": run.samples,
            "top1": run.top1,
            "drop_pp": run.drop_pp,
            "ci95_pp": list(run.ci95_pp),
            "p50_ms": latency and latency.engine.p50_ms,
            "speedup": latency and latency.speedup,
            "images_per_s": latency and latency.images_per_s,
            "joules_per_image": run.joules_per_image,
            "machine": run.machine,
            "on_front": self.on_front,
            "dominated_by": self.dominated_by,
            "against_first": self.against_first and self.against_first.to_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Several engines in the order given."""

    standings: tuple[Standing, ...]
    warnings: tuple[str, ...]
    """Sentences on what makes them not comparable."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "schema_version": 1,
            "kind": "edgeres-ranking",
            "engines": [standing.to_dict() for standing in self.standings],
            "front": [s.run.name for s in self.standings if s.on_front],
            "warnings": list(self.warnings),
        }

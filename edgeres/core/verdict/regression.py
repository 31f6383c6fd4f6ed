"""How a run stands against an earlier one, and several runs against each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgeres.core.verdict.latency import Interval
from edgeres.core.verdict.past import PastRun
from edgeres.serialization import SCHEMA_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyChange:
    """Two engines on the same images; positive: the later one is correct less often."""

    gained: int
    lost: int
    drop_pp: float
    ci95_pp: Interval
    p_value: float
    """Exact McNemar test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyChange:
    """Two engines, each timed interleaved with the same reference; above 1: the later is slower.

    Of latencies, or of the time that a batch takes with several streams.
    """

    ratio: float
    """Of the medians, with streams of the means, each over that of the reference in its own run, so
    that a machine that is slower for both does not count."""
    ci95: Interval | None
    """None where either run has too few blocks."""
    raw_ratio: float
    """Of the same as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """This run against the one before."""

    baseline: str
    """Name of the earlier run."""
    baseline_disturbances: tuple[str, ...]
    """What other load or throttling took from the earlier run's measurement, in sentences."""
    accuracy: AccuracyChange
    latency: LatencyChange | None
    latency_reason: str | None
    """Why latencies are not compared; None where they are."""
    throughput: LatencyChange | None = None
    """Of the time that a batch takes with several streams; None where neither run measured it."""
    throughput_reason: str | None = None
    """Why measured throughputs are not compared; None where they are, or there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One of several engines among the others."""

    # One flat row an engine, for tables and scatter plots.
    json_keys = (
        "run.name",
        "run.engine",
        "run.target",
        "run.precision",
        "run.outcome",
        "run.passed",
        "run.samples",
        "run.top1",
        "run.drop_pp",
        "run.ci95_pp",
        "batch=run.latency.batch_size",
        "run.latency.engine.p50_ms",
        "run.latency.speedup",
        "images_per_s=run.throughput.engine_images_per_s",
        "run.throughput.streams",
        "run.joules_per_image",
        "run.machine",
        "on_front",
        "dominated_by",
        "against_first",
    )

    run: PastRun
    dominated_by: str | None
    """Name of an engine of the same batch that is at least as accurate and as fast, and better in
    one; None on the Pareto front, and where there is no latency."""
    on_front: bool
    against_first: AccuracyChange | None
    """Against the first engine; None for that one, and where the images are others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Several engines in the order given."""

    kind: ClassVar[str] = "edgeres-ranking"
    schema_version: ClassVar[int] = SCHEMA_VERSION
    json_keys = ("schema_version", "kind", "engines=standings", "front", "warnings")

    standings: tuple[Standing, ...]
    warnings: tuple[str, ...]
    """Sentences on what makes them not comparable."""

    @property
    def front(self) -> tuple[str, ...]:
        """Names of the engines on the Pareto front."""
        return tuple(s.run.name for s in self.standings if s.on_front)

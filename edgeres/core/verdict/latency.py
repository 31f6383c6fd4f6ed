"""How long inference took, sample by sample, and how much of that is chance."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

Interval = tuple[float, float]
"""Lower and upper end of a 95 % interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyIntervals:
    """95 % intervals of what `LatencyStats` says, in milliseconds.

    None where the samples are too few to bound the figure.
    """

    p50_ms: Interval | None
    p90_ms: Interval | None
    p95_ms: Interval | None
    p99_ms: Interval | None
    mean_ms: Interval | None

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {name: ends and list(ends) for name, ends in asdict(self).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Whether the latency rose or fell in the course of the measurement."""

    change: float
    """Change of the median from start to end as a fraction of it; positive: it became slower.

    Source: slope of Theil 1950 and Sen 1968 over the blocks' medians.
    """
    p_value: float
    """Test of no trend. Source: Mann 1945, Kendall 1975."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outliers:
    """Samples far above the rest. They are counted, never dropped."""

    limit_ms: float
    """Third quartile plus three times the interquartile range.

    Source: Tukey 1977, Exploratory data analysis, the outer fence.
    """
    count: int
    largest_ms: float

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TailCount:
    """Whether there are enough samples for a percentile."""

    percentile: int
    needed: int
    """Samples from which MLPerf accepts a statement on it with 99 % confidence."""
    had: int

    @property
    def enough(self) -> bool:
        """Whether there are as many as needed."""
        return self.had >= self.needed

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {**asdict(self), "enough": self.enough}


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyStats:
    """Distribution of the time of one inference, in milliseconds."""

    samples_ms: tuple[float, ...]
    """Every timed inference, in the order taken."""
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    started_ms: tuple[float, ...] = ()
    """When each sample began, in milliseconds since the first one of the measurement."""
    blocks: tuple[int, ...] = ()
    """Block that each sample belongs to; networks take turns by blocks, so they share numbers."""
    intervals: LatencyIntervals | None = None
    drift: Drift | None = None
    """None where there are too few blocks to see a trend."""
    outliers: Outliers | None = None
    tails: tuple[TailCount, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form, every sample included."""
        return {
            "p50_ms": self.p50_ms,
            "p90_ms": self.p90_ms,
            "p95_ms": self.p95_ms,
            "p99_ms": self.p99_ms,
            "mean_ms": self.mean_ms,
            "samples": len(self.samples_ms),
            "ci95": self.intervals and self.intervals.to_dict(),
            "drift": self.drift and self.drift.to_dict(),
            "outliers": self.outliers and self.outliers.to_dict(),
            "tails": [tail.to_dict() for tail in self.tails],
            "samples_ms": list(self.samples_ms),
            "started_ms": list(self.started_ms),
            "blocks": list(self.blocks),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedLatency:
    """Engine and reference timed in turns in one run."""

    mode: str
    """What a sample covers and where, such as `onnxruntime-cpu end-to-end, batch 1`."""
    batch_size: int
    engine: LatencyStats
    reference: LatencyStats
    speedup_ci95: Interval | None = None
    """95 % interval of `speedup`; None where there are too few blocks."""
    overhead_ms: float | None = None
    """Time that a sample holds although nothing is inferred: the clock and the loop."""

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
            "speedup_ci95": self.speedup_ci95 and list(self.speedup_ci95),
            "overhead_ms": self.overhead_ms,
        }

"""Latency of engine and reference, sample by sample, with intervals, drift and outliers.

Beside it the time of each kernel and block, and what MLPerf's LoadGen reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import sub

from edgeres.core.precision import Precision
from edgeres.plurals import counted

Interval = tuple[float, float]
"""Lower and upper end of a 95 % interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyIntervals:
    """95 % intervals of the percentiles and the mean in `LatencyStats`, in milliseconds.

    None where the samples are too few to bound the figure.
    """

    p50_ms: Interval | None
    p90_ms: Interval | None
    p95_ms: Interval | None
    p99_ms: Interval | None
    mean_ms: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Trend of the latency over the measurement."""

    change: float
    """Change of the median from start to end as a fraction of it; positive: it became slower.

    Source: slope of Theil 1950 and Sen 1968 over the blocks' medians.
    """
    p_value: float
    """Test of no trend. Source: Mann 1945, Kendall 1975."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outliers:
    """Samples far above the rest. They are counted, never dropped."""

    limit_ms: float
    """Third quartile plus three times the interquartile range.

    Source: Tukey 1977, Exploratory data analysis, the outer fence.
    """
    count: int
    largest_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TailCount:
    """Whether there are enough samples for a percentile."""

    json_keys = ("*", "enough")

    percentile: int
    needed: int
    """Samples from which MLPerf accepts a statement on it with 99 % confidence."""
    had: int

    @property
    def enough(self) -> bool:
        """Whether there are as many as needed."""
        return self.had >= self.needed


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyStats:
    """Distribution of the time of one inference, in milliseconds."""

    # `samples` is their number; the samples themselves are long and stand last.
    json_keys = (
        "p50_ms",
        "p90_ms",
        "p95_ms",
        "p99_ms",
        "mean_ms",
        "samples",
        "ci95",
        "drift",
        "outliers",
        "tails",
        "samples_ms",
        "started_ms",
        "blocks",
    )

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
    """Block that each sample belongs to; engine and reference are interleaved by blocks and share their numbers."""
    ci95: LatencyIntervals | None = None
    drift: Drift | None = None
    """None where there are too few blocks for a trend."""
    outliers: Outliers | None = None
    tails: tuple[TailCount, ...] = ()

    def __post_init__(self) -> None:
        if min(self.p50_ms, self.mean_ms) <= 0:
            raise ValueError(f"latencies {self.p50_ms} and {self.mean_ms} ms, expected above 0")
        if self.blocks and len(self.blocks) != len(self.samples_ms):
            raise ValueError(
                f"{counted(len(self.samples_ms), 'sample')} in {counted(len(self.blocks), 'block')}"
            )
        # Intervals are bootstrapped over the blocks, by number: a gap would be an empty block.
        if any(step not in (0, 1) for step in map(sub, self.blocks, (0, *self.blocks))):
            raise ValueError("the numbers of blocks do not rise from 0 by 1")

    @property
    def samples(self) -> int:
        """Number of timed inferences."""
        return len(self.samples_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredThroughput:
    """Engine and reference with several inferences under way at a time, interleaved in one run."""

    json_keys = (
        "mode",
        "streams",
        "batch_size",
        "ratio",
        "ratio_ci95",
        "engine_ci95",
        "reference_ci95",
        "engine",
        "reference",
    )

    mode: str
    """What an inference covers and where, such as `end-to-end, batch 1, 4 streams: ...`."""
    streams: int
    """Inferences under way at a time."""
    batch_size: int
    engine: LatencyStats
    """Time from one finished batch to the next on average, over rounds of as many batches as there
    are streams."""
    reference: LatencyStats
    ratio_ci95: Interval | None = None
    """95 % interval of `ratio`; None where there are too few blocks."""

    def __post_init__(self) -> None:
        if min(self.batch_size, self.streams) < 1:
            raise ValueError(
                f"{counted(self.streams, 'stream')} of batch {self.batch_size}, expected 1 or more"
            )

    @property
    def ratio(self) -> float:
        """The engine's images a second over the reference's."""
        return self.reference.mean_ms / self.engine.mean_ms

    @property
    def engine_ci95(self) -> Interval | None:
        """95 % interval of the engine's images a second."""
        return self._interval(self.engine)

    @property
    def reference_ci95(self) -> Interval | None:
        """The same of the reference."""
        return self._interval(self.reference)

    def images_per_s(self, stats: LatencyStats) -> float:
        """Images a second of one of both."""
        return 1000 * self.batch_size / stats.mean_ms

    def _interval(self, stats: LatencyStats) -> Interval | None:
        if stats.ci95 is None or stats.ci95.mean_ms is None:
            return None
        low_ms, high_ms = stats.ci95.mean_ms
        return 1000 * self.batch_size / high_ms, 1000 * self.batch_size / low_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Images a second: measured with several streams, or at the mean latency of one."""

    json_keys = ("engine_images_per_s", "reference_images_per_s", "streams", "measured")

    engine_images_per_s: float
    reference_images_per_s: float
    measured: MeasuredThroughput | None = None
    """None: derived from the latency, one batch after the other."""

    @property
    def streams(self) -> int | None:
        """Inferences under way at a time while it was measured; None where it was not."""
        return None if self.measured is None else self.measured.streams


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedLatency:
    """Engine and reference, timed interleaved in one run."""

    json_keys = (
        "mode",
        "batch_size",
        "engine",
        "reference",
        "speedup",
        "speedup_ci95",
        "overhead_ms",
    )

    mode: str
    """What a sample covers and where, such as `onnxruntime-cpu end-to-end, batch 1`."""
    batch_size: int
    engine: LatencyStats
    reference: LatencyStats
    speedup_ci95: Interval | None = None
    """95 % interval of `speedup`; None where there are too few blocks."""
    overhead_ms: float | None = None
    """Time in each sample that is not inference: the clock and the loop."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch size {self.batch_size}, expected at least 1")

    @property
    def speedup(self) -> float:
        """Ratio of the reference's median latency to the engine's."""
        # Of the medians: the tail is the system's, and a few outliers would decide a ratio of means.
        return self.reference.p50_ms / self.engine.p50_ms

    @property
    def throughput(self) -> Throughput:
        """Images a second of both networks."""
        return Throughput(
            engine_images_per_s=self.images_per_s(self.engine),
            reference_images_per_s=self.images_per_s(self.reference),
        )

    def images_per_s(self, stats: LatencyStats) -> float:
        """Images a second at the mean latency, one batch after the other."""
        # The mean, not the median: throughput is work over total time, outliers included.
        return 1000 * self.batch_size / stats.mean_ms


def throughput_of(
    latency: PairedLatency | None, measured: MeasuredThroughput | None
) -> Throughput | None:
    """Returns images a second, measured or else derived from the latency; None without either."""
    if measured is None:
        return None if latency is None else latency.throughput
    return Throughput(
        engine_images_per_s=measured.images_per_s(measured.engine),
        reference_images_per_s=measured.images_per_s(measured.reference),
        measured=measured,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTime:
    """One kernel of an engine, in the order of execution."""

    name: str
    """Of the network's operator that it computes, where the runtime kept it."""
    operator: str
    """Type of that operator, such as `Conv`."""
    kind: str
    """What the runtime calls the kernel, such as `QLinearConv`."""
    ms: float
    """Median over the inferences."""
    precision: Precision | None = None
    """What it computes in; None where that is not known."""
    is_reformat: bool = False
    """Whether it only changes layout or type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRow:
    """A residual block, or a layer of it, in the engine and in the reference."""

    block: str
    layer: str | None
    """None for all of the block."""
    engine_ms: float
    reference_ms: float
    why: str
    """Why the engine is hardly faster here, as far as its kernels show; empty where it is faster,
    or they do not show it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadGenResult:
    """The outcome of one scenario, in LoadGen's own words."""

    json_keys = ("*", "result")

    scenario: str
    valid: bool
    """LoadGen's verdict on the run: VALID or INVALID."""
    metric: str
    """What `value` is, such as `90th percentile latency, early stopping`."""
    value: float | None
    """None where LoadGen does not report it."""
    unit: str
    queries: int
    seconds: float
    """Requested duration. A submission to MLPerf takes 600."""
    reasons: tuple[str, ...]
    """Why it is invalid; empty where it is valid."""
    logs: str | None
    """Folder of LoadGen's own logs; None where they were not kept."""

    @property
    def result(self) -> str:
        """`VALID` or `INVALID`."""
        return "VALID" if self.valid else "INVALID"

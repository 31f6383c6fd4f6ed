"""Latency of one inference: engine and reference timed interleaved, in blocks.

Knows runners by their interface alone. By default a sample is the `infer` call and nothing else:
from images in host memory to logits in host memory.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from statistics import median
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeres.core.bench_requests import BenchRequest
from edgeres.core.verdict import (
    Drift,
    Interval,
    LatencyIntervals,
    LatencyStats,
    Outliers,
    PairedLatency,
    TailCount,
)
from edgeres.errors import DataError, RunnerError
from edgeres.evaluation.stopwatch import clock_overhead_ns, stopwatch, trtexec_samples
from edgeres.plurals import counted
from edgeres.progress import Progress, silent, tracked
from edgeres.statistics import (
    FEWEST_BLOCKS,
    BlockBootstrap,
    draw_blocks,
    interval95,
    outer_fence,
    percentiles,
    samples_needed,
    trend,
)
from edgeres.targets.runner import Runner

BLOCK = 20
"""Timed inferences of one network before the other's: short compared with the drift of a clock
frequency or a temperature, which so affects both alike."""

SETTLING = 5
"""Untimed inferences at the start of each block. The first ones after a switch find the other
network's weights in the caches and its threads still spinning: measured with ResNet-50 on ONNX
Runtime's CPU, FP32 takes 1.55 times the median in the first one, INT8 1.05 times or more up to
the fifth."""

PERCENTILES = (50, 90, 95, 99)
"""Percentiles that are reported."""

Clock = Callable[[], int]
"""Returns nanoseconds, as `time.perf_counter_ns` does."""

Measure = Callable[[], int]
"""Infers once and returns how long that took, in nanoseconds."""


class Samples(Protocol):
    """Samples of one network as they are taken, in blocks."""

    name: str
    started_ns: list[int]
    durations_ns: list[int]
    blocks: list[int]

    def skip(self, count: int) -> None:
        """Infers without keeping the time."""

    def take(self, count: int, block: int) -> None:
        """Keeps the time of `count` inferences, as one block."""


class Timings:
    """Samples of one network, one inference after the other, on the host's clock."""

    def __init__(self, name: str, measure: Measure, clock: Clock) -> None:
        """Takes nothing yet.

        Args:
            name: of the network.
            measure: infers once and returns nanoseconds.
            clock: the host's, in nanoseconds.
        """
        self.name = name
        self.started_ns: list[int] = []
        self.durations_ns: list[int] = []
        self.blocks: list[int] = []
        self._measure = measure
        self._clock = clock

    def skip(self, count: int) -> None:
        """Infers without keeping the time."""
        for _ in range(count):
            self._measure()

    def take(self, count: int, block: int) -> None:
        """Keeps the time of `count` inferences, as one block."""
        # Of full length from the start: growing a list would now and then be in a sample.
        started, durations = [0] * count, [0] * count
        for position in range(count):
            started[position] = self._clock()
            durations[position] = self._measure()
        self.started_ns += started
        self.durations_ns += durations
        self.blocks += [block] * count

    def take_as_trtexec(self) -> None:
        """Keeps what trtexec would, in blocks of `BLOCK`."""
        started: list[int] = []

        def measure() -> int:
            started.append(self._clock())
            return self._measure()

        self.durations_ns = trtexec_samples(measure, self._clock)
        # Warm-up runs were started too; only the last ones are samples.
        self.started_ns = started[-len(self.durations_ns) :]
        self.blocks = [number // BLOCK for number in range(len(self.durations_ns))]


def benchmark_pair(
    reference: Runner,
    engine: Runner,
    images: NDArray[np.float32],
    config: BenchRequest,
    *,
    clock: Clock = time.perf_counter_ns,
    progress: Progress = silent,
) -> PairedLatency:
    """Returns the latency of both networks on the same batch, timed interleaved.

    What a sample covers is `config.timing`. After `config.warmup` warm-up runs of each, blocks of
    `BLOCK` timed ones alternate, and so does which of the two goes first, until each has
    `config.iterations` samples. Garbage collection is off meanwhile. In trtexec's modes one is
    timed after the other, as that does.

    Args:
        reference: the network to compare with.
        engine: the network under test.
        images: (`config.latency_batch`, 3, H, W) float32, preprocessed.
        config: batch size, mode and counts.
        clock: returns nanoseconds.
        progress: receives how far the timing is, where it changes from one network to the other.

    Raises:
        DataError: `images` has another batch size than `config`.
        ConfigError: the mode needs a GPU that a runner does not have.
        RunnerError: inference failed, or took no time by this clock.
    """
    if config.latency_batch not in {None, len(images)}:
        raise DataError(
            f"The latency batch is {config.latency_batch}, but the data given has "
            f"{counted(len(images), 'image')}. Pass as many images as the batch has, or set the "
            "latency batch to what there is."
        )
    pair = tuple(
        Timings(runner.name, stopwatch(runner, images, config.timing, clock), clock)
        for runner in (reference, engine)
    )
    first, second = pair
    with collection_paused():
        # Reading the device's own clock adds nothing to a sample.
        overhead_ns = 0.0 if config.timing.on_device else clock_overhead_ns(clock)
        if config.timing.trtexec:
            for timings in tracked(pair, "Timing", progress):
                timings.take_as_trtexec()
        else:
            take_interleaved(pair, config, "Timing", progress)
    # One zero for both, so that their samples lie on one time axis.
    zero_ns = min(first.started_ns[0], second.started_ns[0])
    return PairedLatency(
        mode=f"{config.timing}, batch {len(images)}: {engine.name} against {reference.name}",
        batch_size=len(images),
        engine=stats_of(second, zero_ns),
        reference=stats_of(first, zero_ns),
        speedup_ci95=_speedup_interval(first, second, paired=not config.timing.trtexec),
        overhead_ms=overhead_ns / 1e6,
    )


def take_interleaved(
    pair: Sequence[Samples], config: BenchRequest, stage: str, progress: Progress
) -> None:
    """Warms both networks up, then takes their samples in blocks that alternate."""
    starts = range(0, config.iterations, BLOCK)
    # Reported before the warm-up, since a display then leaves the processor alone.
    progress(stage, 0, len(starts))
    for samples in pair:
        samples.skip(config.warmup)
    for block, start in enumerate(starts):
        # Alternating cancels what the one that runs second gains or suffers by it.
        for turn, samples in enumerate(pair[::-1] if block % 2 else pair):
            # Before what settles the caches again after the switch.
            progress(stage, block + turn / len(pair), len(starts))
            samples.skip(SETTLING)
            samples.take(min(BLOCK, config.iterations - start), block)
    progress(stage, len(starts), len(starts))


def stats_of(timings: Samples, zero_ns: int) -> LatencyStats:
    """Summarises the samples; percentiles are numpy's `linear`, Hyndman and Fan's type 7.

    Raises:
        RunnerError: an inference took no time by the clock.
    """
    durations_ns, blocks = timings.durations_ns, timings.blocks
    if min(durations_ns) <= 0:
        raise RunnerError(
            f"{timings.name} took no time by the clock in {sum(d <= 0 for d in durations_ns)} of "
            f"{counted(len(durations_ns), 'inference')}. A duration must be positive: use a clock "
            "that resolves one inference."
        )
    samples = tuple(duration / 1e6 for duration in durations_ns)
    p50, p90, p95, p99 = percentiles(samples, PERCENTILES)
    limit = outer_fence(samples)
    ci95 = drift = None
    if (count := blocks[-1] + 1) >= FEWEST_BLOCKS:
        # Whole blocks are resampled: neighbouring samples are alike, so single ones would give
        # intervals that are too narrow.
        resampled = BlockBootstrap(samples, blocks, draw_blocks(count))
        # Below MLPerf's number of samples nothing can be stated on a percentile.
        ends = {
            p: interval95(resampled.percentile(p), value, count)
            if len(samples) >= samples_needed(p)
            else None
            for p, value in zip(PERCENTILES, (p50, p90, p95, p99), strict=True)
        }
        ci95 = LatencyIntervals(
            p50_ms=ends[50],
            p90_ms=ends[90],
            p95_ms=ends[95],
            p99_ms=ends[99],
            mean_ms=interval95(resampled.mean(), float(np.mean(samples)), count),
        )
        grouped = groupby(zip(blocks, samples, strict=True), key=itemgetter(0))
        change, p_value = trend([median(ms for _, ms in block) for _, block in grouped])
        drift = Drift(change=change, p_value=p_value)
    return LatencyStats(
        samples_ms=samples,
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        mean_ms=float(np.mean(samples)),
        started_ms=tuple((start - zero_ns) / 1e6 for start in timings.started_ns),
        blocks=tuple(blocks),
        ci95=ci95,
        drift=drift,
        # Counted, and kept in every figure: a slow inference is slow for the user too.
        outliers=Outliers(
            limit_ms=limit, count=sum(ms > limit for ms in samples), largest_ms=max(samples)
        ),
        tails=tuple(
            TailCount(percentile=p, needed=samples_needed(p), had=len(samples)) for p in PERCENTILES
        ),
    )


def _speedup_interval(reference: Timings, engine: Timings, *, paired: bool) -> Interval | None:
    """Returns the 95 % interval of the ratio of medians; None below `FEWEST_BLOCKS`.

    Args:
        reference: the samples of one network.
        engine: the samples of the other.
        paired: whether their blocks alternated.
    """
    counts = [timings.blocks[-1] + 1 for timings in (reference, engine)]
    if min(counts) < FEWEST_BLOCKS:
        return None
    # One seed resamples the same blocks of both, so that drift common to them cancels.
    first, second = (
        BlockBootstrap(
            timings.durations_ns, timings.blocks, draw_blocks(count, seed=0 if paired else seed)
        ).percentile(50)
        for seed, (timings, count) in enumerate(zip((reference, engine), counts, strict=True))
    )
    speedup = median(reference.durations_ns) / median(engine.durations_ns)
    return interval95(first / second, speedup, min(counts))


@contextmanager
def collection_paused() -> Iterator[None]:
    """Keeps Python's garbage collector out of the samples, and restores it on every way out."""
    # The caller may have switched it off, and then it stays off.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

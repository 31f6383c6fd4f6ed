"""How long one inference takes, for engine and reference in turns on a clock that is given.

Knows runners by their interface alone. By default a sample holds the `infer` call and nothing
else: from images in host memory to logits in host memory.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import numpy as np
from numpy.typing import NDArray

from edgeres.core.bench_requests import BenchConfig
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
from edgeres.evaluation.stopwatch import stopwatch, trtexec_samples
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
"""Timed inferences of one network before the other's turn: short beside the drift of a clock
frequency or a temperature, which so falls on both alike."""

SETTLING = 5
"""Untimed inferences at the start of each block. The first ones after a switch find the other
network's weights in the caches and its threads still spinning: measured with ResNet-50 on ONNX
Runtime's CPU, FP32 takes 1.55 times the median in the first one, INT8 1.05 times or more up to
the fifth."""

PERCENTILES = (50, 90, 95, 99)
"""Percentiles that are told."""

Clock = Callable[[], int]
"""Returns nanoseconds, as `time.perf_counter_ns` does."""

Measure = Callable[[], int]
"""Infers once and returns how long that took, in nanoseconds."""


class Timings:
    """Samples of one network as they are taken, each with its start on the host's clock."""

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
        started, durations = [0] * count, [0] * count
        for position in range(count):
            started[position] = self._clock()
            durations[position] = self._measure()
        self._add(started, durations, [block] * count)

    def take_as_trtexec(self) -> None:
        """Keeps what trtexec would, in blocks of `BLOCK`."""
        started: list[int] = []

        def measure() -> int:
            started.append(self._clock())
            return self._measure()

        durations = trtexec_samples(measure, self._clock)
        blocks = [number // BLOCK for number in range(len(durations))]
        self._add(started[-len(durations) :], durations, blocks)

    def _add(self, started: list[int], durations: list[int], blocks: list[int]) -> None:
        self.started_ns += started
        self.durations_ns += durations
        self.blocks += blocks


def benchmark_pair(
    reference: Runner,
    engine: Runner,
    images: NDArray[np.float32],
    config: BenchConfig,
    *,
    clock: Clock = time.perf_counter_ns,
) -> PairedLatency:
    """Returns the latency of both networks on the same batch, timed in turns.

    What a sample covers is `config.timing`. Each has `config.warmup` untimed inferences. Then
    blocks of `BLOCK` timed ones alternate, and so does which of the two goes first, until each
    has `config.iterations` samples. Garbage collection is off meanwhile. In trtexec's modes one is
    timed after the other, as that does.

    Args:
        reference: the network to compare with.
        engine: the network under test.
        images: (`config.latency_batch`, 3, H, W) float32, preprocessed.
        config: batch size, mode and counts.
        clock: returns nanoseconds.

    Raises:
        DataError: `images` has another batch size than `config` asks for.
        ConfigError: the mode needs a GPU that a runner does not have.
        RunnerError: inference failed, or took no time by this clock.
    """
    _check_batch(images, config.latency_batch)
    first, second = (
        Timings(runner.name, stopwatch(runner, images, config.timing, clock), clock)
        for runner in (reference, engine)
    )
    with _collection_paused():
        overhead_ns = 0.0 if config.timing.on_device else _overhead_ns(clock)
        if config.timing.trtexec:
            for timings in (first, second):
                timings.take_as_trtexec()
        else:
            _take_turns(first, second, config)
    zero_ns = min(first.started_ns[0], second.started_ns[0])
    return PairedLatency(
        mode=f"{config.timing}, batch {len(images)}: {engine.name} against {reference.name}",
        batch_size=len(images),
        engine=_stats(second, zero_ns),
        reference=_stats(first, zero_ns),
        speedup_ci95=_speedup_interval(first, second, paired=not config.timing.trtexec),
        overhead_ms=overhead_ns / 1e6,
    )


def _take_turns(reference: Timings, engine: Timings, config: BenchConfig) -> None:
    """Warms both up, then takes blocks that alternate in which of the two goes first."""
    pair = (reference, engine)
    for timings in pair:
        timings.skip(config.warmup)
    for turn, count in enumerate(_blocks(config.iterations)):
        for timings in pair[::-1] if turn % 2 else pair:
            timings.skip(SETTLING)
            timings.take(count, turn)


def _check_batch(images: NDArray[np.float32], batch: int) -> None:
    if len(images) != batch:
        raise DataError(
            f"Latency is asked for batches of {batch} images, but {len(images)} are given. "
            "Pass as many images as the batch has, or set the latency batch to what there is."
        )


def _blocks(iterations: int) -> tuple[int, ...]:
    """Returns the number of timed inferences of each block."""
    return tuple(min(BLOCK, iterations - start) for start in range(0, iterations, BLOCK))


def _overhead_ns(clock: Clock) -> float:
    """Returns what a sample on the host's clock holds although nothing is inferred."""

    def measure() -> int:
        start = clock()
        _nothing()
        return clock() - start

    return median(measure() for _ in range(10 * BLOCK))


def _nothing() -> None:
    """Takes the place of an inference."""


def _stats(timings: Timings, zero_ns: int) -> LatencyStats:
    """Summarises the samples; percentiles are numpy's `linear`, Hyndman and Fan's type 7."""
    _check_durations(timings.name, timings.durations_ns)
    samples = tuple(duration / 1e6 for duration in timings.durations_ns)
    p50, p90, p95, p99 = percentiles(samples, PERCENTILES)
    return LatencyStats(
        samples_ms=samples,
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        mean_ms=float(np.mean(samples)),
        started_ms=tuple((start - zero_ns) / 1e6 for start in timings.started_ns),
        blocks=tuple(timings.blocks),
        ci95=_intervals(samples, timings.blocks),
        drift=_drift(samples, timings.blocks),
        outliers=_outliers(samples),
        tails=tuple(
            TailCount(percentile=p, needed=samples_needed(p), had=len(samples)) for p in PERCENTILES
        ),
    )


def _check_durations(name: str, durations_ns: list[int]) -> None:
    if min(durations_ns) <= 0:
        raise RunnerError(
            f"{name} took no time by the clock in {sum(d <= 0 for d in durations_ns)} of "
            f"{len(durations_ns)} inferences. A duration must be positive: use a clock that "
            "resolves one inference."
        )


def _intervals(samples: tuple[float, ...], blocks: list[int]) -> LatencyIntervals | None:
    """Returns 95 % intervals by drawing blocks anew; None below `FEWEST_BLOCKS`."""
    count = blocks[-1] + 1
    if count < FEWEST_BLOCKS:
        return None
    drawn = BlockBootstrap(samples, blocks, draw_blocks(count))
    p50, p90, p95, p99 = (
        interval95(drawn.percentile(p)) if len(samples) >= samples_needed(p) else None
        for p in PERCENTILES
    )
    return LatencyIntervals(
        p50_ms=p50, p90_ms=p90, p95_ms=p95, p99_ms=p99, mean_ms=interval95(drawn.mean())
    )


def _speedup_interval(reference: Timings, engine: Timings, *, paired: bool) -> Interval | None:
    """Returns the 95 % interval of the ratio of medians.

    Args:
        reference: the samples of one network.
        engine: the samples of the other.
        paired: whether they took turns, so that the same turns of both are drawn.
    """
    counts = [timings.blocks[-1] + 1 for timings in (reference, engine)]
    if min(counts) < FEWEST_BLOCKS:
        return None
    first, second = (
        BlockBootstrap(
            timings.durations_ns, timings.blocks, draw_blocks(count, seed=0 if paired else seed)
        ).percentile(50)
        for seed, (timings, count) in enumerate(zip((reference, engine), counts, strict=True))
    )
    return interval95(first / second)


def _drift(samples: tuple[float, ...], blocks: list[int]) -> Drift | None:
    """Returns the trend of the blocks' medians; None below `FEWEST_BLOCKS`."""
    count = blocks[-1] + 1
    if count < FEWEST_BLOCKS:
        return None
    grouped: list[list[float]] = [[] for _ in range(count)]
    for sample, block in zip(samples, blocks, strict=True):
        grouped[block].append(sample)
    change, p_value = trend([median(group) for group in grouped])
    return Drift(change=change, p_value=p_value)


def _outliers(samples: tuple[float, ...]) -> Outliers:
    limit = outer_fence(samples)
    return Outliers(
        limit_ms=limit, count=sum(sample > limit for sample in samples), largest_ms=max(samples)
    )


@contextmanager
def _collection_paused() -> Iterator[None]:
    """Keeps Python's garbage collector out of the samples, and restores it on every way out."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

"""How long one inference takes, for engine and reference in turns on a clock that is given.

Knows runners by their interface alone. A sample holds the `infer` call and nothing else: from
images in host memory to logits in host memory.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from statistics import median

import numpy as np
from numpy.typing import NDArray

from edgeres.errors import DataError, RunnerError
from edgeres.results import (
    Drift,
    Interval,
    LatencyIntervals,
    LatencyStats,
    Outliers,
    PairedLatency,
    TailCount,
)
from edgeres.runners.base import Runner
from edgeres.spec import BenchConfig
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


@dataclass(slots=True)
class Timings:
    """Samples of one network as they are taken."""

    started_ns: list[int] = field(default_factory=list)
    durations_ns: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)

    def add(self, block: int, started_ns: list[int], durations_ns: list[int]) -> None:
        """Takes in the samples of one block."""
        self.started_ns += started_ns
        self.durations_ns += durations_ns
        self.blocks += [block] * len(durations_ns)


def benchmark_pair(
    reference: Runner,
    engine: Runner,
    images: NDArray[np.float32],
    config: BenchConfig,
    *,
    clock: Clock = time.perf_counter_ns,
) -> PairedLatency:
    """Returns the latency of both networks on the same batch, timed in turns.

    Each has `config.warmup` untimed inferences. Then blocks of `BLOCK` timed ones alternate, and
    so does which of the two goes first, until each has `config.iterations` samples. Garbage
    collection is off meanwhile.

    Args:
        reference: the network to compare with.
        engine: the network under test.
        images: (`config.latency_batch`, 3, H, W) float32, preprocessed.
        config: batch size and counts.
        clock: returns nanoseconds.

    Raises:
        DataError: `images` has another batch size than `config` asks for.
        RunnerError: inference failed, or took no time by this clock.
    """
    _check_batch(images, config.latency_batch)
    pair = ((reference, Timings()), (engine, Timings()))
    with _collection_paused():
        overhead_ns = _overhead_ns(clock)
        for runner, _ in pair:
            _run_untimed(runner, images, config.warmup)
        for turn, count in enumerate(_blocks(config.iterations)):
            for runner, timings in pair[::-1] if turn % 2 else pair:
                _run_untimed(runner, images, SETTLING)
                timings.add(turn, *_timed_ns(partial(runner.infer, images), count, clock))
    return summarise(pair, overhead_ns, len(images))


def summarise(
    pair: tuple[tuple[Runner, Timings], tuple[Runner, Timings]], overhead_ns: float, batch: int
) -> PairedLatency:
    """Returns what the samples of reference and engine say.

    Args:
        pair: reference and engine with their samples.
        overhead_ns: what a sample holds besides the inference.
        batch: images per inference.

    Raises:
        RunnerError: a sample took no time by the clock.
    """
    (reference, first), (engine, second) = pair
    zero_ns = min(first.started_ns[0], second.started_ns[0])
    return PairedLatency(
        mode=f"end-to-end, batch {batch}: {engine.name} against {reference.name}",
        batch_size=batch,
        engine=_stats(engine.name, second, zero_ns),
        reference=_stats(reference.name, first, zero_ns),
        speedup_ci95=_speedup_interval(first, second),
        overhead_ms=overhead_ns / 1e6,
    )


def _check_batch(images: NDArray[np.float32], batch: int) -> None:
    if len(images) != batch:
        raise DataError(
            f"Latency is asked for batches of {batch} images, but {len(images)} are given. "
            "Pass as many images as the batch has, or set the latency batch to what there is."
        )


def _blocks(iterations: int) -> tuple[int, ...]:
    """Returns the number of timed inferences of each block."""
    return tuple(min(BLOCK, iterations - start) for start in range(0, iterations, BLOCK))


def _run_untimed(runner: Runner, images: NDArray[np.float32], count: int) -> None:
    for _ in range(count):
        runner.infer(images)


def _timed_ns(call: Callable[[], object], count: int, clock: Clock) -> tuple[list[int], list[int]]:
    """Returns when each of `count` calls began, and how long it took."""
    started, durations = [0] * count, [0] * count
    for position in range(count):
        start = clock()
        call()
        durations[position] = clock() - start
        started[position] = start
    return started, durations


def _overhead_ns(clock: Clock) -> float:
    """Returns what a sample holds although nothing is inferred."""
    return median(_timed_ns(lambda: None, 10 * BLOCK, clock)[1])


def _stats(name: str, timings: Timings, zero_ns: int) -> LatencyStats:
    """Summarises the samples; percentiles are numpy's `linear`, Hyndman and Fan's type 7."""
    _check_durations(name, timings.durations_ns)
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
        intervals=_intervals(samples, timings.blocks),
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


def _speedup_interval(reference: Timings, engine: Timings) -> Interval | None:
    """Returns the 95 % interval of the ratio of medians, drawing the same turns of both."""
    count = reference.blocks[-1] + 1
    if count < FEWEST_BLOCKS:
        return None
    choices = draw_blocks(count)
    medians = (
        BlockBootstrap(timings.durations_ns, timings.blocks, choices).percentile(50)
        for timings in (reference, engine)
    )
    first, second = medians
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

"""How long one inference takes, for engine and reference in turns on a clock that is given.

Knows runners by their interface alone. By default a sample holds the `infer` call and nothing
else: from images in host memory to logits in host memory.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from edgeres.errors import DataError, RunnerError
from edgeres.results import LatencyStats, PairedLatency
from edgeres.runners.base import Runner
from edgeres.spec import BenchConfig
from edgeres.stopwatch import stopwatch, trtexec_samples

BLOCK = 20
"""Timed inferences of one network before the other's turn: short beside the drift of a clock
frequency or a temperature, which so falls on both alike."""

SETTLING = 5
"""Untimed inferences at the start of each block. The first ones after a switch find the other
network's weights in the caches and its threads still spinning: measured with ResNet-50 on ONNX
Runtime's CPU, FP32 takes 1.55 times the median in the first one, INT8 1.05 times or more up to
the fifth."""


def benchmark_pair(
    reference: Runner,
    engine: Runner,
    images: NDArray[np.float32],
    config: BenchConfig,
    *,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> PairedLatency:
    """Returns the latency of both networks on the same batch, timed in turns.

    What a sample covers is `config.timing`. Each has `config.warmup` untimed inferences. Then blocks of `BLOCK` timed ones alternate, and
    so does which of the two goes first, until each has `config.iterations` samples. Garbage
    collection is off meanwhile. In trtexec's modes one is timed after the other, as that does.

    Args:
        reference: the network to compare with.
        engine: the network under test.
        images: (`config.latency_batch`, 3, H, W) float32, preprocessed.
        config: batch size and counts.
        clock: returns nanoseconds.

    Raises:
        DataError: `images` has another batch size than `config` asks for.
        ConfigError: the mode needs a GPU that a runner does not have.
        RunnerError: inference failed, or took no time by this clock.
    """
    _check_batch(images, config.latency_batch)
    runners = {"reference": reference, "engine": engine}
    measures = {
        role: stopwatch(runner, images, config.timing, clock) for role, runner in runners.items()
    }
    with _collection_paused():
        if config.timing.trtexec:
            samples = {role: trtexec_samples(call, clock) for role, call in measures.items()}
        else:
            samples = _in_turns(measures, config)
    return PairedLatency(
        mode=f"{config.timing}, batch {len(images)}: {engine.name} against {reference.name}",
        batch_size=len(images),
        engine=_stats(engine.name, samples["engine"]),
        reference=_stats(reference.name, samples["reference"]),
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


def _in_turns(
    measures: Mapping[str, Callable[[], int]], config: BenchConfig
) -> dict[str, list[int]]:
    """Returns the samples of both, taken in blocks that alternate."""
    samples: dict[str, list[int]] = {role: [] for role in measures}
    for measure in measures.values():
        _take(measure, config.warmup)
    for turn, count in enumerate(_blocks(config.iterations)):
        for role in list(measures)[:: -1 if turn % 2 else 1]:
            _take(measures[role], SETTLING)
            samples[role] += _take(measures[role], count)
    return samples


def _take(measure: Callable[[], int], count: int) -> list[int]:
    """Returns the time of each of `count` inferences."""
    durations = [0] * count
    for position in range(count):
        durations[position] = measure()
    return durations


def _stats(name: str, durations_ns: Sequence[int]) -> LatencyStats:
    """Summarises the samples; percentiles are numpy's `linear`, Hyndman and Fan's type 7."""
    if min(durations_ns) <= 0:
        raise RunnerError(
            f"{name} took no time by the clock in {sum(d <= 0 for d in durations_ns)} of "
            f"{len(durations_ns)} inferences. A duration must be positive: use a clock that "
            "resolves one inference."
        )
    samples_ms = np.asarray(durations_ns, dtype=np.float64) / 1e6
    p50, p90, p99 = np.percentile(samples_ms, (50, 90, 99), method="linear").tolist()
    return LatencyStats(
        samples_ms=tuple(samples_ms.tolist()),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        mean_ms=float(samples_ms.mean()),
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

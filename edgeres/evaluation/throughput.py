"""Throughput with several inferences under way: engine and reference interleaved, in blocks.

Each stream is a thread that infers in a loop, from images in host memory to logits there.
What is sampled is a round: the time in which as many batches finish as there are streams, over
their number. Only batches that finish while every stream is busy count: the first round fills the
streams, and none stops before the last batch that is counted.
"""

from __future__ import annotations

import itertools
import math
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from threading import Event, Lock

import numpy as np
from numpy.typing import NDArray

from edgeres.core.bench_requests import BenchRequest, Timing
from edgeres.core.verdict import Interval, MeasuredThroughput
from edgeres.errors import ConfigError
from edgeres.evaluation.benchmark import Clock, collection_paused, stats_of, take_interleaved
from edgeres.plurals import counted
from edgeres.progress import Progress, silent
from edgeres.statistics import FEWEST_BLOCKS, BlockBootstrap, draw_blocks, interval95
from edgeres.targets.runner import Runner, Streamed


class StreamSamples:
    """Samples of one network with several inferences under way; see `Samples`."""

    def __init__(
        self, runner: Runner, images: NDArray[np.float32], streams: int, clock: Clock
    ) -> None:
        """Takes nothing yet.

        Args:
            runner: open, and good for `streams` threads.
            images: (N, 3, H, W) float32, the batch of every inference.
            streams: inferences under way at a time.
            clock: the host's, in nanoseconds, for any thread.
        """
        self.name = runner.name
        self.started_ns: list[int] = []
        self.durations_ns: list[int] = []
        self.blocks: list[int] = []
        self._runner = runner
        self._images = images
        self._streams = streams
        self._clock = clock

    def skip(self, count: int) -> None:
        """Infers at least so often without keeping the time."""
        self._finished(math.ceil(count / self._streams))

    def take(self, count: int, block: int) -> None:
        """Keeps the time of the rounds that at least `count` inferences take, as one block."""
        finished = self._finished(1 + math.ceil(count / self._streams))
        ends = finished[self._streams - 1 :: self._streams]
        self.started_ns += ends[:-1]
        self.durations_ns += [
            round((end - start) / self._streams) for start, end in itertools.pairwise(ends)
        ]
        self.blocks += [block] * (len(ends) - 1)

    def _finished(self, rounds: int) -> list[int]:
        """Returns when each batch finished, in order, with every stream busy until the last one."""
        wanted = rounds * self._streams
        finished: list[int] = []
        lock, stopped = Lock(), Event()

        def infer_until_enough() -> None:
            try:
                while len(finished) < wanted and not stopped.is_set():
                    self._runner.infer(self._images)
                    # Read inside, so that the list is in the order of its times.
                    with lock:
                        finished.append(self._clock())
            finally:
                stopped.set()

        with ThreadPoolExecutor(self._streams) as threads:
            streams = [threads.submit(infer_until_enough) for _ in range(self._streams)]
            try:
                for stream in streams:
                    stream.result()
            finally:
                # An interrupt arrives here alone, and the others would infer to the end.
                stopped.set()
                wait(streams)
        return finished[:wanted]


def measure_throughput(
    reference: Runner,
    engine: Runner,
    images: NDArray[np.float32],
    config: BenchRequest,
    *,
    streams: int,
    clock: Clock = time.perf_counter_ns,
    progress: Progress = silent,
) -> MeasuredThroughput:
    """Returns the throughput of both networks, each with `streams` inferences under way.

    Warm-up, blocks, their order and the intervals are the latency's; counts that the streams do
    not divide are rounded up.

    Args:
        reference: the network to compare with; neither has to be open.
        engine: the network under test.
        images: (N, 3, H, W) float32, the batch of every inference.
        config: counts, and whether a CUDA graph is replayed.
        streams: inferences under way at a time.
        clock: returns nanoseconds, in any thread.
        progress: receives how far the timing is, where it changes from one network to the other.

    Raises:
        ConfigError: a runtime has one inference under way at a time, or the machine no place for
            so many.
        RunnerError: inference failed, or took no time by this clock.
    """
    graph = config.timing.graph
    with ExitStack() as opened:
        pair = tuple(
            StreamSamples(
                opened.enter_context(with_streams(runner, config, streams)),
                images,
                streams,
                clock,
            )
            for runner in (reference, engine)
        )
        with collection_paused():
            take_interleaved(pair, config, f"Timing {counted(streams, 'stream')}", progress)
    first, second = pair
    zero_ns = min(first.started_ns[0], second.started_ns[0])
    timing = Timing.END_TO_END_GRAPH if graph else Timing.END_TO_END
    return MeasuredThroughput(
        mode=f"{timing}, batch {len(images)}, {streams} at a time: {second.name} against "
        f"{first.name}",
        streams=streams,
        batch_size=len(images),
        engine=stats_of(second, zero_ns),
        reference=stats_of(first, zero_ns),
        ratio_ci95=_ratio_interval(first, second),
    )


def with_streams(runner: Runner, config: BenchRequest, streams: int) -> Runner:
    """Returns a runner of the same engine, not yet open, for so many inferences at a time.

    Raises:
        ConfigError: its runtime has one at a time, or the machine no place for so many.
    """
    if not isinstance(runner, Streamed):
        raise ConfigError(
            f"--streams needs a runtime that has several inferences under way, and {runner.name} "
            "has one. Leave it out."
        )
    return runner.with_streams(streams, graph=config.timing.graph)


def _ratio_interval(reference: StreamSamples, engine: StreamSamples) -> Interval | None:
    """Returns the 95 % interval of the ratio of throughputs; None below `FEWEST_BLOCKS`."""
    count = engine.blocks[-1] + 1
    if count < FEWEST_BLOCKS:
        return None
    # The same blocks of both, so that drift common to them cancels.
    drawn = draw_blocks(count)
    first, second = (
        BlockBootstrap(one.durations_ns, one.blocks, drawn).mean() for one in (reference, engine)
    )
    ratio = float(np.mean(reference.durations_ns) / np.mean(engine.durations_ns))
    return interval95(first / second, ratio, count)

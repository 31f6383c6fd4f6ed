"""Throughput with several streams, against sums by hand and runners whose capacity is known."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeres.core.bench_requests import BenchRequest, Timing
from edgeres.core.verdict import MeasuredThroughput
from edgeres.errors import ConfigError, RunnerError
from edgeres.evaluation.benchmark import BLOCK, SETTLING
from edgeres.evaluation.throughput import StreamSamples, measure_throughput
from edgeres.testing import FakeRunner

IMAGES = np.zeros((2, 3, 4, 4), np.float32)
MS = 1_000_000


@dataclass
class Shop(FakeRunner):
    """A runner of which so many inferences can be served at a time, each for so long."""

    places: int = 1
    seconds: float = 0.0
    opened: list[tuple[int, bool]] = field(default_factory=list)
    most: int = 0
    inside: int = 0
    before_each: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._places = threading.Semaphore(self.places)
        self._count = threading.Lock()

    def with_streams(self, count: int, *, graph: bool) -> Shop:
        """Itself."""
        self.opened.append((count, graph))
        return self

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Waits for a place, and keeps it for a while."""
        with self._count:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.before_each()
        with self._places:
            time.sleep(self.seconds)
        with self._count:
            self.inside -= 1
        return images[:, 0, 0]


def shop(places: int = 64, seconds: float = 0.0, name: str = "shop") -> Shop:
    """Returns one that is open."""
    return Shop(logits=lambda images: images, name=name, places=places, seconds=seconds)


def ticking(step_ns: int = MS) -> Callable[[], int]:
    """Returns a clock that is later by a step at every reading: a batch finishes every step."""
    times: Iterator[int] = count(step_ns, step_ns)
    return lambda: next(times)


@pytest.mark.parametrize("streams", [1, 2, 3, 7])
def test_a_round_is_as_many_batches_as_streams(streams: int) -> None:
    """A batch every millisecond is 1 ms a batch whatever the streams; blocks hold whole rounds."""
    samples = StreamSamples(shop(), IMAGES, streams, ticking())
    samples.skip(SETTLING)
    samples.take(BLOCK, 0)
    samples.take(3, 1)
    rounds = -(-BLOCK // streams), -(-3 // streams)
    assert samples.durations_ns == [MS] * sum(rounds)
    assert samples.blocks == [0] * rounds[0] + [1] * rounds[1]
    steps = np.diff(samples.started_ns[: rounds[0]])
    assert set(steps.tolist()) <= {streams * MS}


def measured(reference: Shop, engine: Shop, streams: int, **changes: object) -> MeasuredThroughput:
    """Returns the throughput of both, on the real clock."""
    config = BenchRequest(**{"iterations": 60, "warmup": 2, **changes})  # type: ignore[arg-type]
    return measure_throughput(reference, engine, IMAGES, config, streams=streams)


def test_streams_fill_the_places_that_there_are() -> None:
    """The engine serves four at a time, the reference one: its throughput is four times as high."""
    reference, engine = shop(1, 0.002, "old"), shop(4, 0.002, "new")
    found = measured(reference, engine, 4)
    assert (reference.most, engine.most) == (4, 4)
    assert 2.5 < found.ratio < 5
    assert found.images_per_s(found.engine) == pytest.approx(2 * 1000 / found.engine.mean_ms)
    assert (found.streams, found.batch_size) == (4, 2)
    assert found.mode == "end-to-end, batch 2, 4 at a time: new against old"


def test_every_stream_is_busy_until_the_last_batch_that_counts() -> None:
    """None stops early: others are inside when a batch ends, on average and at the last ends too.

    Each batch takes the same time, so all streams may end one at the same moment.
    """
    engine = shop(3, 0.001)
    busy: list[int] = []

    def clock() -> int:
        # Read when a batch has finished, while its stream is between two of them.
        busy.append(engine.inside)
        return time.perf_counter_ns()

    StreamSamples(engine, IMAGES, 3, clock).take(BLOCK, 0)
    assert np.mean(busy[2 : 3 * 8]) > 1.4
    assert max(busy[3 * 7 : 3 * 8]) >= 1


def test_statistics_are_the_latency_s() -> None:
    """Intervals of the mean, turned into images a second, and of the ratio."""
    steady = measured(shop(seconds=0.001), shop(seconds=0.001), 2, iterations=BLOCK * 6)
    assert len(steady.engine.samples_ms) == 6 * BLOCK / 2
    assert steady.ratio_ci95 is not None
    assert steady.ratio_ci95[0] < steady.ratio < steady.ratio_ci95[1]
    assert steady.engine.ci95 is not None
    ends, in_ms = steady.engine_ci95, steady.engine.ci95.mean_ms
    assert ends is not None
    assert in_ms is not None
    assert ends == pytest.approx((2000 / in_ms[1], 2000 / in_ms[0]))
    few = measured(shop(seconds=0.001), shop(seconds=0.001), 2, iterations=BLOCK)
    assert few.engine_ci95 is None
    assert few.ratio_ci95 is None


@pytest.mark.parametrize(
    ("timing", "graph", "mode"),
    [
        (Timing.END_TO_END, False, "end-to-end"),
        (Timing.COMPUTE, False, "end-to-end"),
        (Timing.COMPUTE_GRAPH, True, "end-to-end-graph"),
        (Timing.TRTEXEC_11, True, "end-to-end-graph"),
    ],
)
def test_a_graph_is_replayed_where_latency_replays_one(
    timing: Timing, graph: bool, mode: str
) -> None:
    """Images come from the host's memory in every mode, and that is what it says."""
    engine = shop()
    found = measure_throughput(
        shop(), engine, IMAGES, BenchRequest(timing=timing, iterations=3), streams=2
    )
    assert engine.opened == [(2, graph)]
    assert found.mode.startswith(f"{mode}, ")


def test_an_error_in_a_stream_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is raised as it is, and no thread is left."""
    engine = shop(seconds=0.0005)
    calls = count()

    def fail() -> None:
        if next(calls) == 9:
            raise RunnerError("the device is gone")

    engine.before_each = fail
    before = threading.active_count()
    with pytest.raises(RunnerError, match="the device is gone"):
        measured(shop(), engine, 4)
    assert threading.active_count() == before


def test_a_runtime_without_streams_is_refused() -> None:
    """By its name."""
    alone = FakeRunner(logits=lambda images: images, name="lonely.onnx on fake")
    with pytest.raises(ConfigError, match=r"--streams needs .* lonely.onnx on fake has one"):
        measure_throughput(alone, shop(), IMAGES, BenchRequest(), streams=2)


@pytest.mark.parametrize("streams", [0, -3])
def test_no_stream_is_no_request(streams: int) -> None:
    """At least one inference is under way."""
    with pytest.raises(ConfigError, match=f"--streams is {streams}"):
        BenchRequest(streams=streams)

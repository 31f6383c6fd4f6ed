"""Interleaved timing: exact on a clock that moves only when it is advanced."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeres.core.bench_requests import BenchRequest, Timing
from edgeres.core.verdict import Drift, LatencyIntervals, Outliers
from edgeres.errors import DataError, RunnerError
from edgeres.evaluation.benchmark import BLOCK, SETTLING, benchmark_pair
from edgeres.statistics import FEWEST_BLOCKS, draw_blocks
from edgeres.testing import FakeClock, FakeRunner

IMAGES = np.zeros((1, 3, 4, 4), np.float32)
MS = 1_000_000


class Bench:
    """A pair of fake runners on one clock, with a record of who ran when."""

    def __init__(self) -> None:
        """Starts the clock at zero, with a reference of 4 ms and an engine of 1 ms."""
        self.clock = FakeClock()
        self.calls: list[str] = []
        self.before_each: Callable[[], None] = lambda: None
        self.reference = self._runner("reference", 4 * MS)
        self.engine = self._runner("engine", 1 * MS)

    def _runner(self, name: str, latency_ns: int) -> FakeRunner:
        def logits(images: NDArray[np.float32]) -> NDArray[np.float32]:
            self.calls.append(name)
            self.before_each()
            return np.zeros((len(images), 10), np.float32)

        return FakeRunner(logits=logits, name=name, clock=self.clock, latency_ns=latency_ns)


@pytest.fixture
def bench() -> Bench:
    """A fresh pair."""
    return Bench()


def test_a_constant_latency_comes_out_exactly(bench: Bench) -> None:
    """Every sample, every percentile and the speed-up."""
    config = BenchRequest(iterations=25, warmup=3)
    latency = benchmark_pair(bench.reference, bench.engine, IMAGES, config, clock=bench.clock)
    assert latency.reference.samples_ms == (4.0,) * 25
    assert latency.engine.samples_ms == (1.0,) * 25
    assert latency.speedup == 4.0
    assert latency.images_per_s(latency.engine) == 1000.0
    assert latency.mode == "end-to-end, batch 1: engine against reference"


def test_the_two_are_warmed_up_and_then_alternate_in_blocks(bench: Bench) -> None:
    """Warm-up of each; then blocks, the engine going first in every second turn."""
    config = BenchRequest(iterations=2 * BLOCK + 3, warmup=2)
    benchmark_pair(bench.reference, bench.engine, IMAGES, config, clock=bench.clock)
    full, rest = SETTLING + BLOCK, SETTLING + 3
    assert bench.calls == [
        *["reference"] * 2 + ["engine"] * 2,
        *["reference"] * full + ["engine"] * full,
        *["engine"] * full + ["reference"] * full,
        *["reference"] * rest + ["engine"] * rest,
    ]


def test_progress_is_reported_at_switches_alone(bench: Bench) -> None:
    """Before the warm-up, and never while one is timed, so that drawing a bar is in no sample."""
    reports: list[tuple[float, float, int]] = []

    def progress(stage: str, done: float, total: float, note: str = "") -> None:
        assert stage == "Timing"
        bench.clock.advance(50 * MS)
        reports.append((done, total, len(bench.calls)))

    config = BenchRequest(iterations=2 * BLOCK, warmup=2)
    latency = benchmark_pair(
        bench.reference, bench.engine, IMAGES, config, clock=bench.clock, progress=progress
    )
    turn, warm = SETTLING + BLOCK, 2 * config.warmup
    turns = [(number / 2, 2, warm + number * turn) for number in range(5)]
    assert reports == [(0, 2, 0), *turns]
    assert set(latency.engine.samples_ms) == {1.0}


def test_the_inference_after_a_switch_is_not_a_sample(bench: Bench) -> None:
    """A first inference that finds cold caches is run and left out."""

    def cold_after_a_switch() -> None:
        if bench.calls[-2:-1] != bench.calls[-1:]:
            bench.clock.advance(50 * MS)

    bench.before_each = cold_after_a_switch
    config = BenchRequest(iterations=40, warmup=1)
    latency = benchmark_pair(bench.reference, bench.engine, IMAGES, config, clock=bench.clock)
    assert set(latency.reference.samples_ms) == {4.0}
    assert set(latency.engine.samples_ms) == {1.0}


def test_samples_stay_in_the_order_taken(bench: Bench) -> None:
    """A latency that grows by 1 us an inference shows as it was, warm-up left out."""

    def slower() -> None:
        bench.engine.latency_ns += 1000 * (bench.calls[-1] == "engine")

    bench.before_each = slower
    config = BenchRequest(iterations=BLOCK, warmup=5)
    latency = benchmark_pair(bench.reference, bench.engine, IMAGES, config, clock=bench.clock)
    first = 1 + 0.001 * (5 + SETTLING)
    expected = [first + 0.001 * i for i in range(BLOCK)]
    assert latency.engine.samples_ms == pytest.approx(expected, abs=1e-9)


def test_a_machine_that_slows_down_hits_both_alike(bench: Bench) -> None:
    """The whole machine drifts to twice its latencies; the speed-up stays within 1 %."""

    def drift() -> None:
        factor = 1 + len(bench.calls) / 900
        bench.reference.latency_ns = round(4 * MS * factor)
        bench.engine.latency_ns = round(MS * factor)

    bench.before_each = drift
    config = BenchRequest(iterations=400, warmup=20)
    latency = benchmark_pair(bench.reference, bench.engine, IMAGES, config, clock=bench.clock)
    assert latency.engine.samples_ms[-1] > 1.8 * latency.engine.samples_ms[0]
    assert latency.speedup == pytest.approx(4.0, rel=0.01)


def test_percentiles_are_linear_between_the_samples(bench: Bench) -> None:
    """1 to 100 ms: the ranks 0.5, 0.9 and 0.99 of the way from the first to the last sample."""

    def next_latency() -> None:
        following = bench.calls.count("engine") + 1
        block = (following - 1) // (SETTLING + BLOCK)
        bench.engine.latency_ns = max(1, following - SETTLING * (block + 1)) * MS

    bench.before_each = next_latency
    config = BenchRequest(iterations=100, warmup=0)
    latency = benchmark_pair(bench.reference, bench.engine, IMAGES, config, clock=bench.clock)
    stats = latency.engine
    assert stats.samples_ms == tuple(float(ms) for ms in range(1, 101))
    assert stats.mean_ms == 50.5
    assert (stats.p50_ms, stats.p90_ms, stats.p99_ms) == pytest.approx((50.5, 90.1, 99.01))


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_off_while_timing_and_restored(bench: Bench, enabled: bool) -> None:
    """It returns to what it was, on or off, also when a runner fails."""
    enabled_while_timed: list[bool] = []
    bench.before_each = lambda: enabled_while_timed.append(gc.isenabled())
    config = BenchRequest(iterations=2, warmup=1)
    was = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        benchmark_pair(bench.reference, bench.engine, IMAGES, config, clock=bench.clock)
        assert gc.isenabled() is enabled
        bench.before_each = interrupt
        with pytest.raises(KeyboardInterrupt):
            benchmark_pair(bench.reference, bench.engine, IMAGES, config, clock=bench.clock)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()
    assert not any(enabled_while_timed)


def interrupt() -> None:
    """Does what Ctrl-C does."""
    raise KeyboardInterrupt


def test_a_batch_of_another_size_is_refused(bench: Bench) -> None:
    """The size requested and the size given are named, and nothing is run."""
    with pytest.raises(DataError) as refused:
        benchmark_pair(bench.reference, bench.engine, IMAGES, BenchRequest(latency_batch=8))
    assert bench.calls == []
    assert str(refused.value) == (
        "The latency batch is 8, but the data given has 1 image. Pass as many images as the batch has, or "
        "set the latency batch to what there is."
    )


def test_throughput_counts_the_images_of_a_batch(bench: Bench) -> None:
    """Eight images in 1 ms are 8000 a second."""
    images = np.zeros((8, 3, 4, 4), np.float32)
    config = BenchRequest(latency_batch=8, iterations=3, warmup=0)
    latency = benchmark_pair(bench.reference, bench.engine, images, config, clock=bench.clock)
    assert latency.batch_size == 8
    assert latency.images_per_s(latency.engine) == 8000.0


def test_a_clock_that_stands_still_is_refused(bench: Bench) -> None:
    """No ratio is made of durations of zero."""
    bench.engine.latency_ns = 0
    config = BenchRequest(iterations=12, warmup=0)
    with pytest.raises(RunnerError) as refused:
        benchmark_pair(bench.reference, bench.engine, IMAGES, config, clock=bench.clock)
    assert str(refused.value) == (
        "engine took no time by the clock in 12 of 12 inferences. A duration must be positive: "
        "use a clock that resolves one inference."
    )


def test_the_default_clock_gives_positive_samples(bench: Bench) -> None:
    """With `time.perf_counter_ns`, as many samples as iterations."""
    config = BenchRequest(iterations=15, warmup=1)
    latency = benchmark_pair(bench.reference, bench.engine, IMAGES, config)
    assert len(latency.engine.samples_ms) == len(latency.reference.samples_ms) == 15
    assert min(latency.engine.samples_ms) > 0


def test_samples_know_when_they_began_and_in_which_turn(bench: Bench) -> None:
    """By hand: warm-up and settling pass before the first, and the other's block in between."""
    config = BenchRequest(iterations=BLOCK + 1, warmup=1)
    latency = benchmark_pair(bench.reference, bench.engine, IMAGES, config, clock=bench.clock)
    reference, engine = latency.reference, latency.engine
    assert reference.started_ms[:2] == (0.0, 4.0)
    first = BLOCK * 4.0 + SETTLING * 1.0
    assert engine.started_ms[:2] == (first, first + 1.0)
    assert engine.blocks == reference.blocks == (*[0] * BLOCK, 1)
    last = first + BLOCK + SETTLING * 1.0
    assert (engine.started_ms[-1], reference.started_ms[-1]) == (last, last + 1 + SETTLING * 4.0)


def test_a_constant_latency_has_no_uncertainty(bench: Bench) -> None:
    """Intervals of no width, no trend, no outlier, no overhead on a clock that stands."""
    config = BenchRequest(iterations=700, warmup=0)
    latency = benchmark_pair(bench.reference, bench.engine, IMAGES, config, clock=bench.clock)
    stats, one = latency.engine, (1.0, 1.0)
    assert stats.ci95 == LatencyIntervals(
        p50_ms=one, p90_ms=one, p95_ms=one, p99_ms=one, mean_ms=one
    )
    assert stats.drift == Drift(change=0.0, p_value=1.0)
    assert stats.outliers == Outliers(limit_ms=1.0, count=0, largest_ms=1.0)
    assert (latency.speedup_ci95, latency.overhead_ms) == ((4.0, 4.0), 0.0)
    assert [(t.percentile, t.needed, t.enough) for t in stats.tails] == [
        (50, 11, True),
        (90, 64, True),
        (95, 130, True),
        (99, 662, True),
    ]


def test_a_known_distribution_comes_out_to_the_sample(bench: Bench) -> None:
    """Seeded latencies: percentiles and intervals are those that numpy makes of the same blocks."""
    given = np.random.default_rng(2).integers(MS, 3 * MS, 400)
    queue = iter(given.tolist())

    def next_latency() -> None:
        follows = bench.calls.count("engine") % (SETTLING + BLOCK) >= SETTLING
        if bench.calls[-1] == "engine" and follows:
            bench.engine.latency_ns = next(queue)

    bench.before_each = next_latency
    config = BenchRequest(iterations=400, warmup=0)
    latency = benchmark_pair(bench.reference, bench.engine, IMAGES, config, clock=bench.clock)
    stats, samples = latency.engine, given / 1e6
    assert stats.samples_ms == tuple(samples.tolist())
    reported = (stats.p50_ms, stats.p90_ms, stats.p95_ms, stats.p99_ms)
    assert reported == tuple(np.percentile(samples, (50, 90, 95, 99)).tolist())
    blocks = samples.reshape(-1, BLOCK)
    draws = [np.repeat(np.arange(len(blocks)), times) for times in draw_blocks(len(blocks))]
    medians = np.array([np.median(blocks[draw]) for draw in draws])
    assert stats.ci95 is not None
    # 20 blocks: Student's tabulated quantile over the normal one, times sqrt(20 / 19).
    wider = 2.100922 / 1.959964 * (20 / 19) ** 0.5
    ends = (np.quantile(medians, (0.025, 0.975)) / stats.p50_ms) ** wider
    assert stats.ci95.p50_ms == pytest.approx(stats.p50_ms * ends)
    assert latency.speedup_ci95 == pytest.approx(latency.speedup / ends[::-1])
    assert stats.ci95.p99_ms is None


def test_few_blocks_make_no_interval(bench: Bench) -> None:
    """What would rest on a handful of blocks is left out, not guessed."""
    config = BenchRequest(iterations=(FEWEST_BLOCKS - 1) * BLOCK, warmup=0)
    latency = benchmark_pair(bench.reference, bench.engine, IMAGES, config, clock=bench.clock)
    assert (latency.speedup_ci95, latency.engine.ci95, latency.engine.drift) == (None, None, None)


def test_a_trend_is_found(bench: Bench) -> None:
    """An engine that becomes slower by 1 us with every call, and a reference that does not."""

    def slower() -> None:
        bench.engine.latency_ns += 1000 * (bench.calls[-1] == "engine")

    bench.before_each = slower
    config = BenchRequest(iterations=400, warmup=0)
    latency = benchmark_pair(bench.reference, bench.engine, IMAGES, config, clock=bench.clock)
    assert latency.engine.drift is not None
    assert latency.reference.drift == Drift(change=0.0, p_value=1.0)
    calls_between, median_ms = 19 * (SETTLING + BLOCK), latency.engine.p50_ms
    assert latency.engine.drift.change == pytest.approx(calls_between / 1000 / median_ms, rel=1e-6)
    assert latency.engine.drift.p_value < 1e-6


def test_outliers_are_counted_and_kept(bench: Bench) -> None:
    """Every 110th inference takes ten times as long."""

    def hiccup() -> None:
        bench.engine.latency_ns = 10 * MS if bench.calls.count("engine") % 110 == 0 else MS

    bench.before_each = hiccup
    config = BenchRequest(iterations=400, warmup=0)
    latency = benchmark_pair(bench.reference, bench.engine, IMAGES, config, clock=bench.clock)
    assert latency.engine.outliers == Outliers(limit_ms=1.0, count=4, largest_ms=10.0)
    assert latency.engine.samples_ms.count(10.0) == 4


def test_the_overhead_is_below_a_hundredth(bench: Bench) -> None:
    """Of an inference that keeps the processor busy for a millisecond, on the real clock."""

    def busy() -> None:
        end = time.perf_counter_ns() + MS
        while time.perf_counter_ns() < end:
            pass

    bench.before_each = busy
    latency = benchmark_pair(
        bench.reference, bench.engine, IMAGES, BenchRequest(iterations=20, warmup=0)
    )
    assert latency.overhead_ms is not None
    assert 0 < latency.overhead_ms < 0.01 * latency.engine.p50_ms


class DeviceRunner(FakeRunner):
    """A runner with a device: an inference takes 30 ms on the host's clock, 20 on its own."""

    def stopwatch(
        self, images: NDArray[np.float32], timing: Timing, clock: Callable[[], int]
    ) -> Callable[[], int]:
        """Returns a call that lets the host's time pass."""

        def measure() -> int:
            self.clock.advance(30 * MS)
            return 20 * MS

        return measure


def test_trtexecs_counts_are_taken_one_network_after_the_other() -> None:
    """100 samples in 3 seconds after 7 of warm-up, in blocks; the device's clock costs nothing."""
    clock = FakeClock()
    pair = [
        DeviceRunner(logits=lambda images: images, name=name, clock=clock) for name in ("a", "b")
    ]
    config = BenchRequest(timing=Timing.TRTEXEC_11)
    latency = benchmark_pair(pair[0], pair[1], IMAGES, config, clock=clock)
    assert latency.mode == "trtexec-11, batch 1: b against a"
    assert latency.reference.samples_ms == latency.engine.samples_ms == (20.0,) * 100
    assert latency.reference.started_ms[:2] == (0.0, 30.0)
    assert latency.engine.started_ms[0] == 3000.0 + 7 * 30.0
    assert latency.engine.blocks == tuple(number // BLOCK for number in range(100))
    assert (latency.overhead_ms, latency.speedup_ci95) == (0.0, (1.0, 1.0))

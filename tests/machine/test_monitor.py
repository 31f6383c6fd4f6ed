"""Monitoring beside a measurement: samples before, during and after, at next to no cost."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from machine_files import CALM, CPU, THERMAL, lay_out

from edgeres.machine import monitor_stability, open_gpu
from edgeres.machine.gpu import GpuState
from edgeres.machine.sample import Probe
from edgeres.machine.ticker import every
from edgeres.testing import FakeClock


class Seconds(FakeClock):
    """The test clock in seconds, as `time.monotonic` gives them."""

    def __call__(self) -> float:  # type: ignore[override]
        """Returns the time."""
        return self.now_ns / 1e9


def test_a_calm_measurement(tmp_path: Path) -> None:
    """Samples before, when the block takes one and after; by the given clock."""
    root, clock = lay_out(tmp_path, CALM), Seconds()
    with monitor_stability(root, gpu=open_gpu(root), interval_s=None, clock=clock) as monitor:
        clock.advance(2_000_000_000)
        monitor.sample()
        clock.advance(1_000_000_000)
    stability = monitor.stability()
    assert [sample.at_s for sample in stability.samples] == [0.0, 2.0, 3.0]
    assert (stability.findings, stability.unavailable, stability.stable) == ((), (), True)


def test_throttling_in_the_files_is_found(tmp_path: Path) -> None:
    """A board that gets hot midway: its GPU's clock falls, and the alert gives the reason."""
    root, clock = lay_out(tmp_path, CALM), Seconds()
    with monitor_stability(root, gpu=open_gpu(root), interval_s=None, clock=clock) as monitor:
        monitor.sample()
        lay_out(
            root,
            {
                "sys/class/devfreq/17000000.gpu/cur_freq": "612000000\n",
                f"{THERMAL}/cooling_device1/cur_state": "1\n",
                f"{CPU}/cpufreq/policy4/scaling_governor": "schedutil\n",
            },
        )
        monitor.sample()
    stability = monitor.stability()
    assert not stability.stable
    assert [finding.name for finding in stability.findings] == [
        "gpu_clock",
        "thermal_throttled",
        "cpu_governor",
    ]
    assert "612 to 1300 MHz" in stability.findings[0].sentence


def test_the_thread_samples_by_itself(tmp_path: Path) -> None:
    """Several times while the block runs, in order."""
    gpu = CountingGpu(enough=5)
    with monitor_stability(lay_out(tmp_path, CALM), gpu=gpu, interval_s=0.001) as monitor:
        assert gpu.enough_reads.wait(timeout=20)
    times = [sample.at_s for sample in monitor.stability().samples]
    assert len(times) >= 6
    assert times == sorted(times)


def test_an_error_in_the_block_passes_through(tmp_path: Path) -> None:
    """The thread has ended and the GPU is closed then too."""
    gpu = CountingGpu()
    with (
        pytest.raises(RuntimeError, match="inference failed"),
        monitor_stability(tmp_path, gpu=gpu),
    ):
        raise RuntimeError("inference failed")
    assert gpu.closed == 1
    assert not any(thread.name == "edgeres-ticker" for thread in threading.enumerate())


class CountingGpu:
    """A GPU that reports nothing and counts how often it is read and closed."""

    name = "fake"
    unavailable = None

    def __init__(self, enough: int = 1) -> None:
        """Sets `enough_reads` at read number `enough`."""
        self.enough = enough
        self.reads = 0
        self.closed = 0
        self.enough_reads = threading.Event()

    def read(self) -> GpuState:
        """Counts."""
        self.reads += 1
        if self.reads >= self.enough:
            self.enough_reads.set()
        return GpuState()

    def close(self) -> None:
        """Counts."""
        self.closed += 1


def test_an_error_in_the_thread_is_not_lost() -> None:
    """It ends the calls and comes out of the block."""

    def fail() -> None:
        raise OSError("sensor gone")

    with pytest.raises(OSError, match="sensor gone"), every(0.001, fail):
        time.sleep(0.02)


def test_the_blocks_own_error_comes_before_the_threads() -> None:
    """What the measurement raised is what its caller must see."""

    def fail() -> None:
        raise OSError("sensor gone")

    def measure() -> None:
        time.sleep(0.02)
        raise RuntimeError("first")

    with pytest.raises(RuntimeError, match="first"), every(0.001, fail):
        measure()


def test_a_sample_costs_less_than_a_hundredth_of_the_interval(tmp_path: Path) -> None:
    """Processor time, not the clock's: a busy machine must not decide. The best of five."""
    root = lay_out(tmp_path, CALM)
    probe = Probe.find(root, open_gpu(root))
    costs = []
    for _ in range(5):
        start = time.thread_time()
        for _ in range(10):
            probe.read(0.0)
        costs.append((time.thread_time() - start) / 10)
    assert min(costs) < 0.01

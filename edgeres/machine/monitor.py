"""Samples the machine while something is measured on it.

Use::

    with monitor_stability(gpu=open_gpu()) as monitor:
        ...measure...
    stability = monitor.stability()

A thread takes a sample every second. Where a sample between two blocks is better than one at any
moment, turn the thread off with `interval_s=None` and call `monitor.sample()` there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeres.machine.gpu import GpuProbe
from edgeres.machine.sample import Probe, Sample
from edgeres.machine.stability import Stability, stability_of
from edgeres.machine.ticker import every

INTERVAL_S = 1.0
"""Time between two samples: clocks and temperatures change over seconds."""


class StabilityMonitor:
    """The samples of one measurement so far; safe to use from several threads."""

    def __init__(self, probe: Probe, clock: Callable[[], float]) -> None:
        """Starts now, by a clock in seconds, without a sample yet."""
        self._probe = probe
        self._clock = clock
        self._start = clock()
        self._samples: list[Sample] = []
        self._lock = threading.Lock()

    def sample(self) -> None:
        """Takes one sample now."""
        with self._lock:
            self._samples.append(self._probe.read(self._clock() - self._start))

    def stability(self) -> Stability:
        """Returns what the samples taken so far show; complete after the monitored block.

        Raises:
            ValueError: the block has not ended and fewer than two samples were taken.
        """
        with self._lock:
            samples = tuple(self._samples)
        gpu = self._probe.gpu
        return stability_of(samples, gpu_unavailable=None if gpu is None else gpu.unavailable)


@contextmanager
def monitor_stability(
    root: Path = Path("/"),
    *,
    gpu: GpuProbe | None = None,
    interval_s: float | None = INTERVAL_S,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[StabilityMonitor]:
    """Yields a monitor that samples the machine before, during and after the block.

    Args:
        root: where the machine's /proc and /sys are read.
        gpu: the GPU that is measured (`open_gpu`), closed at the end; None measures on the CPU.
        interval_s: seconds between two samples; None takes those before and after, and those that
            the block takes itself.
        clock: returns seconds.
    """
    monitor = StabilityMonitor(Probe.find(root, gpu), clock)
    try:
        monitor.sample()
        with every(interval_s, monitor.sample):
            yield monitor
        # A last sample, so that counters show what happened since the thread's own.
        monitor.sample()
    finally:
        if gpu is not None:
            gpu.close()

"""Watches the machine while something is measured on it.

Use::

    with watch(gpu=open_gpu()) as guard:
        ...measure...
    stability = guard.report()

A thread looks once a second. Where a look between two blocks is better than one at any moment,
turn the thread off with `interval_s=None` and call `guard.look()` there.
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
"""Time between two looks: clocks and temperatures change over seconds."""


class Guard:
    """The samples of one measurement so far; safe to use from several threads."""

    def __init__(self, probe: Probe, clock: Callable[[], float]) -> None:
        """Starts now, by a clock in seconds, without a sample yet."""
        self._probe = probe
        self._clock = clock
        self._start = clock()
        self._samples: list[Sample] = []
        self._lock = threading.Lock()

    def look(self) -> None:
        """Takes one sample now."""
        with self._lock:
            self._samples.append(self._probe.read(self._clock() - self._start))

    def report(self) -> Stability:
        """Returns what was seen until now; complete when the watch has ended.

        Raises:
            ValueError: the watch has not ended and fewer than two samples were taken.
        """
        with self._lock:
            samples = tuple(self._samples)
        gpu = self._probe.gpu
        return stability_of(samples, gpu_unseen=None if gpu is None else gpu.unseen)


@contextmanager
def watch(
    root: Path = Path("/"),
    *,
    gpu: GpuProbe | None = None,
    interval_s: float | None = INTERVAL_S,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Guard]:
    """Yields a guard that looks at the machine before, during and after the block.

    Args:
        root: where the machine's /proc and /sys are read.
        gpu: the GPU that is measured (`open_gpu`), closed at the end; None measures on the CPU.
        interval_s: seconds between two looks; None looks before and after only, and when told to.
        clock: returns seconds.
    """
    guard = Guard(Probe.find(root, gpu), clock)
    try:
        guard.look()
        with every(interval_s, guard.look):
            yield guard
        guard.look()
    finally:
        if gpu is not None:
            gpu.close()

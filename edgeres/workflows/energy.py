"""What an inference costs in joules, for engine and reference by the same meter."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgeres.core.verdict import Energies
from edgeres.machine import Meter, NoEnergy, NoMeter, idle_watts, measure_energy
from edgeres.progress import Progress, silent, tracked
from edgeres.targets.runner import Runner

WORK_S = 5.0
"""Time that each network works for the meter: twice what the slowest one, NVML's, must see."""

_STAGE = "Metering energy"

OpenMeter = Callable[[], Meter | NoMeter]
"""Opens the meter of what the engine runs on."""


def measure_energies(
    reference: Runner,
    engine: Runner,
    images: NDArray[np.float32],
    open_meter: OpenMeter,
    progress: Progress = silent,
) -> Energies | NoEnergy:
    """Returns what both networks cost on the same batch, or why that is unavailable.

    Without a meter nothing is run.

    Args:
        reference: the network to compare with.
        engine: the network under test.
        images: (N, 3, H, W) float32, preprocessed.
        open_meter: opens the meter, which is closed here.
        progress: receives how many of the three measurements are done, between two of them.

    Raises:
        RunnerError: inference failed.
    """

    def after_idle(stage: str, done: float, total: float, note: str = "") -> None:
        progress(stage, 1 + done, 1 + total, note)

    def infer(runner: Runner) -> int:
        """Infers for `WORK_S` and returns the number of images."""
        count, end = 0, time.monotonic() + WORK_S
        while time.monotonic() < end:
            runner.infer(images)
            count += len(images)
        return count

    with closing(open_meter()) as meter:
        if isinstance(meter, NoMeter):
            return NoEnergy(reason=meter.reason)
        # Once, before either works: a chip that has just worked stays warm and draws more.
        progress(_STAGE, 0, 3)
        idle = idle_watts(meter)
        first, second = (
            measure_energy(meter, partial(infer, runner), idle_watts=idle)
            for runner in tracked((reference, engine), _STAGE, after_idle)
        )
    if isinstance(first, NoEnergy):
        return first
    return second if isinstance(second, NoEnergy) else Energies(engine=second, reference=first)

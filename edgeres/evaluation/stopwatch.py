"""Time of one inference: by the host's clock for any runner, by the device's for one that has it.

Knows runners by their interface alone.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import numpy as np
from numpy.typing import NDArray

from edgeres.core.bench_requests import Timing
from edgeres.errors import ConfigError
from edgeres.targets.runner import DeviceTimed, Runner

TRTEXEC_WARMUP_NS = 200_000_000
TRTEXEC_DURATION_NS = 3_000_000_000
TRTEXEC_ITERATIONS = 10
"""Warm-up, duration and least number of inferences, as trtexec has them by default. Source:
NVIDIA/TensorRT, samples/common/sampleOptions.h (`defaultWarmUp`, `defaultDuration`,
`defaultIterations`)."""


def stopwatch(
    runner: Runner, images: NDArray[np.float32], timing: Timing, clock: Callable[[], int]
) -> Callable[[], int]:
    """Returns a call that infers once and returns how long that took, in nanoseconds.

    Args:
        runner: open, and to stay so.
        images: (N, 3, H, W) float32, the batch of every inference.
        timing: what a sample covers.
        clock: the host's, in nanoseconds.

    Raises:
        ConfigError: the runner has no device for this mode.
        MismatchError: the images' shape is not one that the engine takes.
        RunnerError: the runtime failed.
    """
    if isinstance(runner, DeviceTimed):
        return runner.stopwatch(images, timing, clock)
    if timing is not Timing.END_TO_END:
        raise ConfigError(
            f"--timing {timing} needs a GPU, and {runner.name} has none. Use --timing "
            f"{Timing.END_TO_END}, or build the engine with --target tensorrt."
        )

    def host_time() -> int:
        start = clock()
        runner.infer(images)
        return clock() - start

    return host_time


def trtexec_samples(measure: Callable[[], int], clock: Callable[[], int]) -> list[int]:
    """Returns the samples that trtexec would take: its warm-up, its duration, its least number.

    Args:
        measure: infers once and returns nanoseconds.
        clock: the host's, in nanoseconds, for warm-up and duration.

    Raises:
        RunnerError: the runtime failed.
    """
    start = clock()
    while clock() - start < TRTEXEC_WARMUP_NS:
        measure()
    samples: list[int] = []
    # The duration is read from the host's clock even where a sample is the device's own time.
    start = clock()
    # As in trtexec both must be reached, the number and the duration.
    while len(samples) < TRTEXEC_ITERATIONS or clock() - start < TRTEXEC_DURATION_NS:
        samples.append(measure())
    return samples


def clock_overhead_ns(clock: Callable[[], int], *, count: int = 200) -> float:
    """Returns what a sample on the host's clock takes where the call does nothing."""

    def nothing() -> None:
        """Takes the place of an inference: the call itself costs time too."""

    def measure() -> int:
        start = clock()
        nothing()
        return clock() - start

    return median(measure() for _ in range(count))

"""One timed inference, by whose clock, and as many of them as trtexec takes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeres.core.bench_requests import Timing
from edgeres.errors import ConfigError
from edgeres.evaluation.stopwatch import stopwatch, trtexec_samples
from edgeres.testing import FakeClock, FakeRunner

IMAGES = np.zeros((2, 3, 4, 4), np.float32)
MS = 1_000_000


def runner(latency_ns: int = 7) -> FakeRunner:
    """Returns a runner of the CPU's kind."""
    return FakeRunner(logits=lambda images: images[:, 0, 0, :2], latency_ns=latency_ns)


class DeviceRunner(FakeRunner):
    """A runner whose device takes 5 ns by its own clock."""

    def stopwatch(
        self, images: NDArray[np.float32], timing: Timing, clock: Callable[[], int]
    ) -> Callable[[], int]:
        """Keeps what was asked for."""
        self.asked = (len(images), timing, clock)
        return lambda: 5


def test_from_host_to_host_any_runner_is_timed() -> None:
    """A sample is the inference and nothing else."""
    fake = runner()
    measure = stopwatch(fake, IMAGES, Timing.END_TO_END, fake.clock)
    assert [measure(), measure()] == [7, 7]
    fake.latency_ns = 9
    assert measure() == 9


@pytest.mark.parametrize("timing", [t for t in Timing if t is not Timing.END_TO_END])
def test_a_mode_of_the_gpu_s_is_refused_without_one(timing: Timing) -> None:
    """With the mode that works, and the target that has the others."""
    fake = runner()
    with pytest.raises(ConfigError) as refused:
        stopwatch(fake, IMAGES, timing, fake.clock)
    assert str(refused.value) == (
        f"--timing {timing} needs a GPU, and fake.onnx on fake has none. Use --timing end-to-end, "
        "or build the engine with --target tensorrt."
    )


def test_a_runner_with_a_device_times_itself() -> None:
    """In every mode, with the clock that was given."""
    fake = DeviceRunner(logits=lambda images: images[:, 0, 0, :2])
    assert [stopwatch(fake, IMAGES, timing, fake.clock)() for timing in Timing] == [5] * 6
    assert fake.asked == (2, Timing.TRTEXEC_11, fake.clock)


@pytest.mark.parametrize(
    ("latency_ms", "untimed", "timed"),
    [(1, 200, 3000), (30, 7, 100), (299, 1, 11), (301, 1, 10), (1000, 1, 10)],
)
def test_as_many_as_trtexec_takes(latency_ms: int, untimed: int, timed: int) -> None:
    """0.2 seconds of warm-up, then 3 seconds and at least 10."""
    clock, calls = FakeClock(), 0

    def measure() -> int:
        nonlocal calls
        calls += 1
        clock.advance(latency_ms * MS)
        return latency_ms * MS

    assert trtexec_samples(measure, clock) == [latency_ms * MS] * timed
    assert calls == untimed + timed

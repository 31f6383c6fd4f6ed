"""Public test doubles: a runner without a runtime and a clock that moves only when it is advanced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeres.core.artifacts import TensorSpec

if TYPE_CHECKING:
    from typing_extensions import Self


_INPUT = TensorSpec(name="images", shape=(None, 3, None, None))
_OUTPUT = TensorSpec(name="logits", shape=(None, None))


@dataclass(slots=True)
class FakeClock:
    """A clock in nanoseconds; reading it takes no time, so durations come out exactly."""

    now_ns: int = 0

    def __call__(self) -> int:
        """Returns the time, as `time.perf_counter_ns` does."""
        return self.now_ns

    def advance(self, duration_ns: int) -> None:
        """Lets `duration_ns` pass."""
        self.now_ns += duration_ns


@dataclass(slots=True, kw_only=True)
class FakeRunner:
    """A runner whose logits are a function of the images and whose latency is set by hand."""

    logits: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    """From images (N, 3, H, W) to logits (N, classes)."""
    name: str = "fake.onnx on fake"
    clock: FakeClock = field(default_factory=FakeClock)
    """Moved by `latency_ns` at each inference; give both runners of a pair the same one."""
    latency_ns: int = 0
    """Duration of the next inference; may be set between two calls, or from `logits`."""
    input: TensorSpec = _INPUT
    output: TensorSpec = _OUTPUT
    is_open: bool = False
    """Whether the runner is between `__enter__` and `__exit__`."""

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns `logits` of the images after `latency_ns` on the clock."""
        self.clock.advance(self.latency_ns)
        return self.logits(images)

    def __enter__(self) -> Self:
        self.is_open = True
        return self

    def __exit__(self, *error: object) -> None:
        self.is_open = False

"""What every runner offers. Evaluation and timing know this and no runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgeres.core.artifacts import TensorSpec
from edgeres.core.bench_requests import Timing
from edgeres.core.verdict import KernelTime
from edgeres.errors import MismatchError
from edgeres.names import Name

if TYPE_CHECKING:
    from typing_extensions import Self


class HostMemory(Name):
    """How images and logits come to a GPU and back."""

    COPIED = "copied"
    """Pinned host memory and device memory of its own, with a copy each way."""
    MAPPED = "mapped"
    """Pinned host memory that the GPU reads and writes in place; on a Jetson it is the same."""


_CHANNELS = (1, 3)
_TO_CHW = (0, 3, 1, 2)


def fed_to(spec: TensorSpec, images: NDArray[Any], name: str) -> NDArray[Any]:
    """Returns images as an engine's input takes them.

    Args:
        spec: the input.
        images: (N, C, H, W) float32, or (N, H, W, C) uint8, turned for an input of planes.
        name: of the runner, for the message.

    Raises:
        MismatchError: they are of another type, so that they would be normalized twice or not at
            all.
    """
    if str(images.dtype) != spec.dtype:
        does = "normalizes pixels itself" if spec.dtype == "uint8" else "takes prepared floats"
        raise MismatchError(
            f"{name} takes {spec.dtype}, and the images are {images.dtype}: the engine {does}, "
            "so they would be normalized twice, or not at all. Prepare them by the engine's own "
            "contract, as edgeres.load does."
        )
    takes_planes = len(spec.shape) == images.ndim == len(_TO_CHW) and spec.shape[1] in _CHANNELS
    if spec.dtype == "uint8" and takes_planes and spec.shape[-1] not in _CHANNELS:
        return np.ascontiguousarray(images.transpose(_TO_CHW))
    return images


class Runner(Protocol):
    """An engine that is ready to infer between `__enter__` and `__exit__`.

    Device memory, streams and sessions are taken in `__enter__` and released in `__exit__`,
    on every way out.
    """

    @property
    def name(self) -> str:
        """Short text on what runs where, such as `resnet50_int8.onnx on onnxruntime-cpu`."""

    @property
    def input(self) -> TensorSpec:
        """Shape (N, 3, H, W) float32, or of bytes; N is None where the batch is dynamic."""

    @property
    def output(self) -> TensorSpec:
        """Shape (N, classes) float32."""

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the logits, (N, classes) float32, of `images`.

        These are (N, 3, H, W) float32, or (N, H, W, 3) uint8 where the input is of bytes, whatever
        layout that has. `images` is only read. The result belongs to the caller: the next call does not touch it.

        Raises:
            MismatchError: the images' shape is not one that the engine takes.
            RunnerError: the runtime failed.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Any: ...


@runtime_checkable
class BatchLimited(Protocol):
    """What a runner offers besides whose engine knows its batch sizes itself."""

    @property
    def batch_limits(self) -> tuple[int, int]:
        """Images in the smallest and in the largest batch; known while it is open."""


@dataclass(frozen=True, slots=True)
class AnyBatch:
    """A runner that takes any number of images, where another one takes only some batches."""

    runner: Runner
    limits: tuple[int, int] | None
    """Smallest and largest batch of that one; None: any."""

    @property
    def name(self) -> str:
        """The runner's."""
        return self.runner.name

    @property
    def input(self) -> TensorSpec:
        """The runner's."""
        return self.runner.input

    @property
    def output(self) -> TensorSpec:
        """The runner's."""
        return self.runner.output

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the logits of the images, split and filled up to batches that are taken.

        Raises:
            MismatchError: the images' shape is not one that the engine takes.
            RunnerError: the runtime failed.
        """
        if self.limits is None or self.limits[0] <= len(images) <= self.limits[1]:
            return self.runner.infer(images)
        smallest, largest = self.limits
        logits = []
        for start in range(0, len(images), largest):
            part = images[start : start + largest]
            # With its own images: others would hide that images influence each other.
            filled = part[np.resize(np.arange(len(part)), max(smallest, len(part)))]
            logits.append(self.runner.infer(filled)[: len(part)])
        return np.concatenate(logits)

    def __enter__(self) -> Self:
        self.runner.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.runner.__exit__(kind, error, trace)


@runtime_checkable
class Profiled(Protocol):
    """What a runner offers besides whose runtime times each kernel by itself."""

    def kernel_times(
        self, images: NDArray[np.float32], *, iterations: int
    ) -> tuple[KernelTime, ...]:
        """Returns the kernels in the order of execution, each with its median time.

        Args:
            images: (N, C, H, W) float32, the batch of every inference.
            iterations: inferences, beside a few for warm-up.

        Raises:
            RunnerError: the runtime failed.
        """


@runtime_checkable
class DeviceTimed(Protocol):
    """What a runner offers besides that has a device with a clock of its own."""

    def stopwatch(
        self, images: NDArray[np.float32], timing: Timing, clock: Callable[[], int]
    ) -> Callable[[], int]:
        """Returns a call that infers once and returns how long that took, in nanoseconds.

        The call is good while the runner is open and until the next `stopwatch`. Its
        images are copied: the caller may reuse them.

        Args:
            images: (N, 3, H, W) float32, the batch of every inference.
            timing: what a sample covers.
            clock: the host's, in nanoseconds; modes of the device's time do not read it.

        Raises:
            MismatchError: the images' shape is not one that the engine takes.
            RunnerError: the runtime failed.
        """


@runtime_checkable
class Streamed(Protocol):
    """What a runner offers besides whose runtime can have several inferences under way."""

    def with_streams(self, count: int, *, graph: bool) -> Runner:
        """Returns a runner of the same engine, not yet open, that so many threads may infer with.

        Args:
            count: inferences under way at a time; more threads wait for one another.
            graph: whether each replays a CUDA graph, where the runtime has them.

        Raises:
            ConfigError: the machine cannot run so many side by side.
        """

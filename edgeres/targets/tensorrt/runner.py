"""Runs a TensorRT or TensorRT for RTX plan: one path for 8.6 to 11, and for both modules.

`execute_async_v3` with named tensors is what all of them have: it came with 8.5, so 8.6 needs no
call of its own. TensorRT's runtime is touched only after `preflight` has found a device that the
plan belongs to: without one, its libraries end the process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeres.core.artifacts import EngineArtifact
from edgeres.core.bench_requests import Timing
from edgeres.errors import MismatchError, RunnerError
from edgeres.targets.runner import HostMemory
from edgeres.targets.tensorrt.pool import Pool
from edgeres.targets.tensorrt.preflight import Ready, check_plan

if TYPE_CHECKING:
    from typing_extensions import Self

    from edgeres.targets.tensorrt.execution import Bindings, Lane
    from edgeres.targets.tensorrt.plan import Plan


class TensorRtRunner:
    """A plan on the first GPU, open between `__enter__` and `__exit__`, for any thread.

    Each of its `streams` has an execution context and buffers of its own, allocated once for the
    largest batch of the plan's profile; inferences of more threads than that wait for one another.
    The runner owns all of them. `infer` copies its argument in and its result out, so both stay
    the caller's. `__exit__` waits for inferences under way, on every way out.
    """

    def __init__(
        self,
        engine: EngineArtifact,
        *,
        streams: int = 1,
        graph: bool = False,
        memory: HostMemory | None = None,
    ) -> None:
        """Keeps what to open; nothing is loaded yet.

        Args:
            engine: a plan with its manifest.
            streams: inferences that may be under way at a time.
            graph: whether `infer` replays a CUDA graph; it is captured anew when the batch changes.
            memory: how images and logits come and go; None: mapped where the GPU shares the host's
                memory, copied elsewhere.
        """
        self.name = f"{engine.path.name} on {engine.manifest.target}"
        self.input = engine.manifest.input
        self.output = engine.manifest.output
        self._engine = engine
        self._streams = streams
        self._graph = graph
        self._memory = memory
        self._resources = contextlib.ExitStack()
        self._device: Any = None
        self._lanes: Pool[Lane] | None = None

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the logits, (N, classes) float32, of `images`, (N, 3, H, W) float32.

        Raises:
            MismatchError: the images' shape is not one that the plan takes.
            RunnerError: TensorRT or CUDA failed, or the runner is not open.
        """
        return self._infer(images, self._graph)

    def stopwatch(
        self, images: NDArray[np.float32], timing: Timing, clock: Callable[[], int]
    ) -> Callable[[], int]:
        """Returns a call that infers once and returns how long that took, in nanoseconds.

        The call is good while the runner is open, and until the next `infer` or `stopwatch`. Its
        images are copied.

        Args:
            images: (N, 3, H, W) float32.
            timing: what a sample covers.
            clock: the host's, in nanoseconds, for the modes from host to host.

        Raises:
            MismatchError: the images' shape is not one that the plan takes.
            RunnerError: TensorRT or CUDA failed, or the plan cannot be captured as a graph.
        """
        from edgeres.targets.tensorrt.device import explained

        batch = np.array(images, np.float32)
        if timing in {Timing.END_TO_END, Timing.END_TO_END_GRAPH}:
            return lambda: self._host_time(batch, timing.graph, clock)
        lanes = self._opened()
        with lanes.borrowed() as lane, self._device.current(), explained(f"{self.name} failed"):
            self._check(batch, lane.bindings)
            lane.watch(batch, timing)
        return lambda: self._device_time(lanes, lane)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Makes CUDA's primary context current in this thread, for the caller's own use of it.

        Raises:
            RunnerError: the runner is not open.
        """
        self._opened()
        with self._device.current():
            yield

    def _host_time(self, images: NDArray[np.float32], graph: bool, clock: Callable[[], int]) -> int:
        start = clock()
        self._infer(images, graph)
        return clock() - start

    def _device_time(self, lanes: Pool[Lane], lane: Lane) -> int:
        from edgeres.targets.tensorrt.device import explained

        with lanes.borrowed(lane), self._device.current(), explained(f"{self.name} failed"):
            return lane.sample()

    def _infer(self, images: NDArray[np.float32], graph: bool) -> NDArray[np.float32]:
        from edgeres.targets.tensorrt.device import explained

        with self._opened().borrowed() as lane, self._device.current():
            self._check(images, lane.bindings)
            with explained(f"{self.name} failed"):
                return lane.infer(images, graph=graph)

    def _opened(self) -> Pool[Lane]:
        if self._lanes is None:
            raise RunnerError(f"{self.name} is not open. Use it in a with statement.")
        return self._lanes

    def _check(self, images: NDArray[np.float32], bindings: Bindings) -> None:
        if images.ndim != 4 or images.shape[1:] != bindings.images[1:]:
            shown = ("N", *bindings.images[1:])
            raise MismatchError(
                f"{self.name} takes images of shape {shown}, not {images.shape}. "
                "Check that data and engine belong to the same model."
            )
        if not bindings.smallest <= len(images) <= bindings.largest:
            raise MismatchError(
                f"{self.name} takes batches of {bindings.smallest} to {bindings.largest} images, "
                f"not {len(images)}. Pass another batch size, or build the engine with "
                f"--batch {max(1, min(bindings.smallest, len(images)))}:{bindings.largest}:"
                f"{max(bindings.largest, len(images))}."
            )

    def __enter__(self) -> Self:
        """Checks that the plan belongs here, loads it and allocates what inference needs.

        Raises:
            MismatchError: this machine is not one that the plan runs on.
            RunnerError: TensorRT or CUDA refused.
        """
        ready = check_plan(self._engine)
        with contextlib.ExitStack() as undo:
            undo.callback(self._resources.close)
            self._open(ready)
            undo.pop_all()
        return self

    def _open(self, ready: Ready) -> None:
        from edgeres.targets.tensorrt.device import Device, explained

        self._device = Device()
        self._resources.callback(self._device.close)
        self.name = (
            f"{self._engine.path.name} on {ready.module.__name__} {ready.module.__version__}, "
            f"{ready.device.name}, {self._memory or _fitting(ready)} memory"
        )
        with self._device.current(), explained(f"{self.name} could not be opened"):
            lanes = self._open_lanes(ready)
        self._lanes = Pool(lanes, self.name)
        self._resources.callback(self._lanes.end)

    def _open_lanes(self, ready: Ready) -> list[Lane]:
        from edgeres.targets.tensorrt.execution import Lane
        from edgeres.targets.tensorrt.plan import Plan

        plan, lanes = Plan(ready.module, self._engine), list[Lane]()
        self._resources.callback(self._close_lanes, plan, lanes)
        memory = self._memory or _fitting(ready)
        for _ in range(self._streams):
            lanes.append(Lane(plan.execution, plan.bindings, memory))
        return lanes

    def _close_lanes(self, plan: Plan, lanes: list[Lane]) -> None:
        with self._device.current(), contextlib.ExitStack() as closing:
            closing.callback(plan.release)
            for lane in lanes:
                closing.callback(lane.close)
            lanes.clear()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits for inferences under way and frees everything, the last taken first."""
        try:
            self._resources.close()
        finally:
            self._lanes = self._device = None


def _fitting(ready: Ready) -> HostMemory:
    return HostMemory.MAPPED if ready.device.integrated else HostMemory.COPIED

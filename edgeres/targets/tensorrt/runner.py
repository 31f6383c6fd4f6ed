"""Runs a TensorRT or TensorRT for RTX plan: one path for 8.6 to 11, and for both modules.

`execute_async_v3` with named tensors is what all of them have: it came with 8.5, so 8.6 needs no
call of its own. TensorRT's runtime is touched only after `preflight` has found a device that the
plan belongs to: without one, its libraries end the process. Modules that import pycuda are
imported only then, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeres.core.artifacts import EngineArtifact
from edgeres.core.bench_requests import Timing
from edgeres.core.verdict import KernelTime
from edgeres.errors import RunnerError
from edgeres.targets.runner import HostMemory
from edgeres.targets.tensorrt.cuda_engine import CudaEngine
from edgeres.targets.tensorrt.layer_times import kernels_of, layer_recorder
from edgeres.targets.tensorrt.preflight import check_plan

if TYPE_CHECKING:
    from typing_extensions import Self

    from edgeres.targets.tensorrt.context_pool import ContextPool

_PROFILE_WARMUP = 3
"""Inferences before those whose layers are timed."""


class TensorRTRunner:
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
        self._pool: ContextPool | None = None

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Returns the logits, (N, classes) float32, of `images`, (N, 3, H, W) float32.

        Raises:
            MismatchError: the images' shape is not one that the plan takes.
            RunnerError: TensorRT or CUDA failed, or the runner is not open.
        """
        return self._infer(images, graph=self._graph)

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
        batch = np.array(images)

        def host_time_ns() -> int:
            start = clock()
            self._infer(batch, graph=timing.graph)
            return clock() - start

        if timing in {Timing.END_TO_END, Timing.END_TO_END_GRAPH}:
            return host_time_ns
        # A runner that was closed and opened again has other contexts: the call ends with these.
        pool = self._opened()
        with pool.borrowed() as context:
            context.start_timer(context.bindings.fed(batch, self.name), timing)

        def device_time_ns() -> int:
            with pool.borrowed(context):
                return context.sample()

        return device_time_ns

    def kernel_times(
        self, images: NDArray[np.float32], *, iterations: int
    ) -> tuple[KernelTime, ...]:
        """Returns the plan's layers in the order of execution, each with its median time.

        They run in an execution context of their own: TensorRT keeps a profiler for good.

        Args:
            images: (N, C, H, W) float32, the batch of every inference.
            iterations: inferences, beside a few for warm-up.

        Raises:
            MismatchError: the images' shape is not one that the plan takes.
            RunnerError: TensorRT or CUDA failed.
        """
        with TensorRTRunner(self._engine, memory=self._memory) as profiled:
            recorder = layer_recorder(check_plan(self._engine).module)
            with profiled._opened().borrowed() as context:
                images = context.bindings.fed(images, self.name)
                context.report_layers_to(recorder)
                for _ in range(_PROFILE_WARMUP + iterations):
                    context.infer(images, graph=False)
        return kernels_of(recorder.times_ms, self._engine.manifest, skipped=_PROFILE_WARMUP)

    def with_streams(self, count: int, *, graph: bool) -> TensorRTRunner:
        """Returns a runner of the same plan with execution contexts for so many threads."""
        return TensorRTRunner(self._engine, streams=count, graph=graph, memory=self._memory)

    @property
    def batch_limits(self) -> tuple[int, int]:
        """Images in the smallest and in the largest batch of the plan's profile.

        Raises:
            RunnerError: the runner is not open.
        """
        with self._opened().borrowed() as context:
            return context.bindings.smallest, context.bindings.largest

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Makes CUDA's primary context current in this thread, for the caller's own use of it.

        Raises:
            RunnerError: the runner is not open.
        """
        with self._opened().primary.current():
            yield

    def _infer(self, images: NDArray[np.float32], *, graph: bool) -> NDArray[np.float32]:
        with self._opened().borrowed() as context:
            return context.infer(context.bindings.fed(images, self.name), graph=graph)

    def _opened(self) -> ContextPool:
        if self._pool is None:
            raise RunnerError(f"{self.name} is not open. Use it in a with statement.")
        return self._pool

    def __enter__(self) -> Self:
        """Checks that the plan belongs here, loads it and allocates what inference needs.

        Raises:
            MismatchError: this machine is not one that the plan runs on.
            RunnerError: TensorRT or CUDA refused.
        """
        ready = check_plan(self._engine)
        from edgeres.targets.tensorrt.context_pool import ContextPool
        from edgeres.targets.tensorrt.device import PrimaryContext, cuda_errors
        from edgeres.targets.tensorrt.execution_context import ExecutionContext

        memory = self._memory or (
            HostMemory.MAPPED if ready.device.integrated else HostMemory.COPIED
        )
        with contextlib.ExitStack() as undo:
            undo.callback(self._resources.close)
            primary = PrimaryContext()
            self._resources.callback(primary.close)
            self.name = (
                f"{self._engine.path.name} on {ready.module.__name__} {ready.module.__version__}, "
                f"{ready.device.name}, {memory} memory"
            )
            contexts: list[ExecutionContext] = []
            in_context = contextlib.ExitStack()

            def close_in_context() -> None:
                with primary.current():
                    in_context.close()

            self._resources.callback(close_in_context)
            with primary.current(), cuda_errors(f"{self.name} could not be opened"):
                engine = CudaEngine(ready.module, self._engine)
                in_context.callback(engine.close)
                for _ in range(self._streams):
                    context = ExecutionContext(
                        engine.create_execution_context, engine.bindings, memory
                    )
                    in_context.callback(context.close)
                    contexts.append(context)
            pool = ContextPool(contexts, primary, self.name)
            self._resources.callback(pool.close)
            undo.pop_all()
        self._pool = pool
        return self

    def __exit__(self, *error: object) -> None:
        """Waits for inferences under way and frees everything, the last taken first."""
        try:
            self._resources.close()
        finally:
            self._pool = None

"""One IExecutionContext of a TensorRT engine with what it needs to run beside others.

Knows the objects that it is given, and nothing of where they come from. The primary context must
be current at every call, and only one thread may use an execution context at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeres.core.bench_requests import Timing
from edgeres.errors import RunnerError
from edgeres.targets.runner import HostMemory
from edgeres.targets.tensorrt.cuda_engine import Bindings
from edgeres.targets.tensorrt.cuda_graph import CudaGraph
from edgeres.targets.tensorrt.device import Buffer, Stream
from edgeres.targets.tensorrt.event_timers import ComputeTimer, PipelinedTimer


class ExecutionContext:
    """An IExecutionContext, a stream, a buffer for each binding and CUDA graphs; all its own."""

    def __init__(self, create: Callable[[], Any], bindings: Bindings, memory: HostMemory) -> None:
        """Allocates what every batch will use; nothing is allocated per inference.

        Args:
            create: returns a new IExecutionContext, which this object alone holds: a traceback
                that did too would keep it beyond the engine.
            bindings: of the engine.
            memory: how images and logits come and go.

        Raises:
            RunnerError: there is not enough memory.
        """
        self.bindings = bindings
        self._context: Any = None
        self._timer: ComputeTimer | PipelinedTimer | None = None
        self._batch = 0
        self._graphs: dict[bool, CudaGraph] = {}
        """By whether the copies are in it."""
        self._resources = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            undo.callback(self._resources.close)
            # Freed in the opposite order. TensorRT's context goes with its last reference, last of
            # all, since graphs and pending inferences use it.
            self._resources.callback(setattr, self, "_context", None)
            self._context = create()
            self.stream = Stream()
            self._resources.callback(self.stream.close)
            self.images = Buffer(bindings.memory, memory, bindings.dtype)
            self._resources.callback(self.images.free)
            self.logits = Buffer(bindings.logits, memory)
            self._resources.callback(self.logits.free)
            self._resources.callback(self._free_graphs)
            self._resources.callback(self.stream.synchronize)
            self._resources.callback(self.stop_timer)
            for name, buffer in ((bindings.input, self.images), (bindings.output, self.logits)):
                if not self._context.set_tensor_address(name, buffer.address):
                    raise RunnerError(
                        f"TensorRT refused the address of '{name}': the engine and its manifest "
                        "do not agree. Build the engine again."
                    )
            undo.pop_all()

    def infer(self, images: NDArray[Any], *, graph: bool) -> NDArray[np.float32]:
        """Returns the logits, a fresh array, of one batch.

        Raises:
            RunnerError: TensorRT or CUDA failed.
        """
        self.stop_timer()
        batch = len(images)
        self.set_batch(batch)
        self.images.host[:batch] = images
        self.launcher(graph=graph, copies=True)()
        self.stream.synchronize()
        logits: NDArray[np.float32] = self.logits.host[:batch].copy()
        return logits

    def report_layers_to(self, profiler: Any) -> None:
        """Has every inference from now on report its layers' times to an IProfiler."""
        # A graph that was captured before would report nothing.
        self._free_graphs()
        self._context.profiler = profiler

    def set_batch(self, batch: int) -> None:
        """Sets the input's shape, where the batch is another than the last one.

        Raises:
            RunnerError: TensorRT refused it.
        """
        if batch == self._batch:
            return
        # A graph is good only while the context that it was captured from stays as it was.
        self._free_graphs()
        self._batch = 0
        shape = (batch, *self.bindings.images[1:])
        if not self._context.set_input_shape(self.bindings.input, shape):
            raise RunnerError(
                f"TensorRT refused images of shape {shape} for '{self.bindings.input}'. Where "
                "several streams share one profile, TensorRT 8.6 needs an engine built for that: "
                "use one stream, or build with TensorRT 10."
            )
        self._batch = batch

    def enqueue(self) -> None:
        """Enqueues the network on the stream.

        Raises:
            RunnerError: TensorRT refused.
        """
        if not self._context.execute_async_v3(self.stream.handle):
            raise RunnerError(
                f"TensorRT could not enqueue a batch of {self._batch}; its log has the reason. "
                "Run with -v, or build the engine again on this machine."
            )

    def enqueue_with_copies(self) -> None:
        """Enqueues copies and network on the stream."""
        self.upload(self.stream)
        self.enqueue()
        self.download(self.stream)

    def upload(self, stream: Stream) -> None:
        """Enqueues the copy of the images on a stream."""
        self.images.upload(self._batch, stream)

    def download(self, stream: Stream) -> None:
        """Enqueues the copy of the logits on a stream."""
        self.logits.download(self._batch, stream)

    def launcher(self, *, graph: bool, copies: bool) -> Callable[[], None]:
        """Returns what enqueues the present batch: kernel by kernel, or a graph of all of them.

        Raises:
            RunnerError: the engine cannot be captured.
        """
        work = self.enqueue_with_copies if copies else self.enqueue
        if not graph:
            return work
        if copies not in self._graphs:
            # TensorRT updates itself in the first inference of a shape, which no capture allows.
            self.enqueue_with_copies()
            self.stream.synchronize()
            # TensorRT for RTX can be asked; the others refuse within the capture.
            is_capturable = getattr(self._context, "is_stream_capturable", None)
            if is_capturable is not None and not is_capturable(self.stream.handle):
                raise RunnerError(
                    "TensorRT for RTX reports that this plan cannot be captured as a CUDA graph: "
                    "it takes memory of its own while it runs. Use a mode of --timing without a "
                    "graph."
                )
            self._graphs[copies] = CudaGraph(self.stream.handle, work)
        captured = self._graphs[copies]
        return lambda: captured.launch(self.stream.handle)

    def start_timer(self, images: NDArray[Any], timing: Timing) -> None:
        """Uploads a batch, of which each `sample` times one inference on the device's clock.

        Raises:
            RunnerError: the engine cannot be captured as a graph, or the device failed.
        """
        self.stop_timer()
        self.set_batch(len(images))
        self.images.host[: len(images)] = images
        self.upload(self.stream)
        self.stream.synchronize()
        timer = PipelinedTimer if timing.trtexec else ComputeTimer
        self._timer = timer(self, timing)

    def sample(self) -> int:
        """Returns the device's time of one inference of the timer's batch, in nanoseconds.

        Raises:
            RunnerError: an inference of other images came between, or the device failed.
        """
        if self._timer is None:
            raise RunnerError(
                "The stopwatch ended with the inference that came after it. Start a new one."
            )
        return self._timer.sample()

    def stop_timer(self) -> None:
        """Waits for inferences that a timer has under way, and closes it."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.close()

    def close(self) -> None:
        """Waits for what is pending, then frees graphs, buffers, stream and IExecutionContext."""
        self._resources.close()

    def _free_graphs(self) -> None:
        while self._graphs:
            self._graphs.popitem()[1].free()

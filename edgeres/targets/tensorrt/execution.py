"""One execution context of a TensorRT engine with what it needs to run beside others.

Knows the objects that it is given, and nothing of where they come from. The primary context must
be current at every call, and only one thread may be in a lane at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeres.core.bench_requests import Timing
from edgeres.errors import RunnerError
from edgeres.targets.runner import HostMemory
from edgeres.targets.tensorrt.cuda_graph import Graph
from edgeres.targets.tensorrt.device import Buffer, Stream
from edgeres.targets.tensorrt.timers import ComputeWatch, PipelinedWatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Bindings:
    """Input and output of an engine, with the shapes of the largest batch."""

    input: str
    output: str
    images: tuple[int, ...]
    """(N, 3, H, W), N the largest batch."""
    logits: tuple[int, ...]
    """(N, classes)."""
    smallest: int
    """Images in the smallest batch that the engine takes."""

    @property
    def largest(self) -> int:
        """Images in the largest batch that the engine takes."""
        return self.images[0]


class Lane:
    """An execution context, a stream, and a buffer for each binding; all its own."""

    def __init__(
        self, make_execution: Callable[[], Any], bindings: Bindings, memory: HostMemory
    ) -> None:
        """Allocates what every batch will use; nothing is allocated per inference.

        Args:
            make_execution: returns a new `IExecutionContext` of TensorRT. The lane alone holds it:
                a traceback that did too would keep it beyond the engine.
            bindings: of the engine.
            memory: how images and logits come and go.

        Raises:
            RunnerError: there is not enough memory.
        """
        self.bindings = bindings
        self._execution: Any = None
        self._watch: ComputeWatch | PipelinedWatch | None = None
        self._batch = 0
        self._graphs: dict[bool, Graph] = {}
        self._resources = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            undo.callback(self._resources.close)
            self._resources.callback(self._let_go)
            self._execution = make_execution()
            self.stream = Stream()
            self._resources.callback(self.stream.close)
            self.images = self._buffer(bindings.images, memory)
            self.logits = self._buffer(bindings.logits, memory)
            self._resources.callback(self._free_graphs)
            self._resources.callback(self._wait_at_the_end)
            self._bind()
            undo.pop_all()

    def infer(self, images: NDArray[np.float32], *, graph: bool) -> NDArray[np.float32]:
        """Returns the logits, a fresh array, of one batch.

        Raises:
            RunnerError: TensorRT or CUDA failed.
        """
        self.end_watch()
        batch = len(images)
        self.shape(batch)
        self.images.host[:batch] = images
        self.launcher(graph=graph, copies=True)()
        self.stream.synchronize()
        return self.logits.host[:batch].copy()

    def load(self, images: NDArray[np.float32]) -> None:
        """Puts a batch where the network reads it, for inferences without copies."""
        self.shape(len(images))
        self.images.host[: len(images)] = images
        self.upload(self.stream)
        self.stream.synchronize()

    def shape(self, batch: int) -> None:
        """Tells TensorRT the batch, where it is another than the last one.

        Raises:
            RunnerError: TensorRT refused it.
        """
        if batch == self._batch:
            return
        # A graph is good only while the context that it was captured from stays as it was.
        self._free_graphs()
        self._batch = 0
        shape = (batch, *self.bindings.images[1:])
        if not self._execution.set_input_shape(self.bindings.input, shape):
            raise RunnerError(
                f"TensorRT refused images of shape {shape} for '{self.bindings.input}'. Where "
                "several streams share one profile, TensorRT 8.6 needs an engine built for that: "
                "use one stream, or build with TensorRT 10."
            )
        self._batch = batch

    def enqueue(self) -> None:
        """Puts the network on the lane's stream.

        Raises:
            RunnerError: TensorRT refused.
        """
        if not self._execution.execute_async_v3(self.stream.handle):
            raise RunnerError(
                f"TensorRT could not enqueue a batch of {self._batch}; its log has the reason. "
                "Run with -v, or build the engine again on this machine."
            )

    def enqueue_all(self) -> None:
        """Puts copies and network on the lane's stream."""
        self.upload(self.stream)
        self.enqueue()
        self.download(self.stream)

    def upload(self, stream: Stream) -> None:
        """Puts the copy of the images on a stream."""
        self.images.upload(self._batch, stream)

    def download(self, stream: Stream) -> None:
        """Puts the copy of the logits on a stream."""
        self.logits.download(self._batch, stream)

    def launcher(self, *, graph: bool, copies: bool) -> Callable[[], None]:
        """Returns what enqueues the present batch: kernel by kernel, or a graph of all of them.

        Raises:
            RunnerError: the engine cannot be captured.
        """
        if not graph:
            return self.enqueue_all if copies else self.enqueue
        captured = self._graph(copies=copies)
        return lambda: captured.launch(self.stream.handle)

    def _graph(self, *, copies: bool) -> Graph:
        """Returns the graph of the present batch, captured the first time it is asked for.

        Raises:
            RunnerError: the engine cannot be captured.
        """
        if copies not in self._graphs:
            # TensorRT updates itself in the first inference of a shape, which no capture allows.
            self.enqueue_all()
            self.stream.synchronize()
            self._check_capturable()
            work = self.enqueue_all if copies else self.enqueue
            self._graphs[copies] = Graph(self.stream.handle, work)
        return self._graphs[copies]

    def _check_capturable(self) -> None:
        """Asks TensorRT for RTX, which knows; the others tell by refusing within the capture."""
        asked = getattr(self._execution, "is_stream_capturable", None)
        if asked is not None and not asked(self.stream.handle):
            raise RunnerError(
                "TensorRT for RTX says that this plan cannot be captured as a CUDA graph: it takes "
                "memory of its own while it runs. Use a mode of --timing without a graph."
            )

    def watch(self, images: NDArray[np.float32], timing: Timing) -> None:
        """Starts to measure inferences of one batch on the device's clock; `sample` takes one.

        Raises:
            RunnerError: the engine cannot be captured as a graph, or the device failed.
        """
        self.end_watch()
        self.load(images)
        kind = PipelinedWatch if timing.trtexec else ComputeWatch
        self._watch = kind(self, timing)

    def sample(self) -> int:
        """Returns the device's time of one inference of the watched batch, in nanoseconds.

        Raises:
            RunnerError: an inference of other images came between, or the device failed.
        """
        if self._watch is None:
            raise RunnerError(
                "The stopwatch ended with the inference that came after it. Ask for a new one."
            )
        return self._watch.sample()

    def end_watch(self) -> None:
        """Waits for inferences that a stopwatch has under way, and gives its events back."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    def close(self) -> None:
        """Waits for what is pending, then frees graphs, stream, buffers and execution context."""
        self._resources.close()

    def _buffer(self, shape: tuple[int, ...], memory: HostMemory) -> Buffer:
        buffer = Buffer(shape, memory)
        self._resources.callback(buffer.free)
        return buffer

    def _bind(self) -> None:
        for name, buffer in (
            (self.bindings.input, self.images),
            (self.bindings.output, self.logits),
        ):
            if not self._execution.set_tensor_address(name, buffer.address):
                raise RunnerError(
                    f"TensorRT refused the address of '{name}': the engine and its manifest do "
                    "not agree. Build the engine again."
                )

    def _wait_at_the_end(self) -> None:
        self.end_watch()
        self.stream.synchronize()

    def _free_graphs(self) -> None:
        while self._graphs:
            self._graphs.popitem()[1].free()

    def _let_go(self) -> None:
        # TensorRT frees it with the last reference, and the context is current now.
        self._execution = None

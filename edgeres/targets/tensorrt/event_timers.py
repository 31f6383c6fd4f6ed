"""Device time of an inference by CUDA events: the network alone, or in a pipeline as trtexec does.

A timer owns its events and streams; the execution context that it times closes it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Protocol

from edgeres.core.bench_requests import Timing
from edgeres.targets.tensorrt.device import EventPair, Stream

_NS_PER_MS = 1e6


class TimedContext(Protocol):
    """What a timer needs of the execution context that it times."""

    stream: Stream

    def launcher(self, *, graph: bool, copies: bool) -> Callable[[], None]:
        """Returns what enqueues the present batch on the stream."""
        ...

    def upload(self, stream: Stream) -> None:
        """Enqueues the copy of the images on a stream."""
        ...

    def download(self, stream: Stream) -> None:
        """Enqueues the copy of the logits on a stream."""
        ...


class ComputeTimer:
    """The network alone, from one event to the other."""

    def __init__(self, context: TimedContext, timing: Timing) -> None:
        """Captures the graph where the mode has one."""
        self._launch = context.launcher(graph=timing.graph, copies=False)
        self._stream = context.stream
        self._events = EventPair()

    def sample(self) -> int:
        """Returns the time of one inference in nanoseconds."""
        self._events.record_around(self._stream, self._launch)
        self._events.wait()
        return round(self._events.elapsed_ms() * _NS_PER_MS)

    def close(self) -> None:
        """Destroys the events; the last sample has waited for its inference."""
        self._events.close()


class PipelinedTimer:
    """trtexec's loop: one inference is enqueued before the one before it is waited for.

    trtexec 10 copies images and logits on streams of their own, waits asleep, and its latency is
    copy in + network + copy out; trtexec 11 leaves the copies out, replays a graph and spins. Both
    use one set of buffers for the two inferences under way.
    Source: NVIDIA/TensorRT, samples/common/sampleInference.cpp (`Iteration`, `inferenceLoop`) and
    sampleOptions.h (defaults); release notes of 11.0.
    """

    def __init__(self, context: TimedContext, timing: Timing) -> None:
        """Captures the graph where the mode has one, and makes the streams for the copies."""
        copies = timing is Timing.TRTEXEC_10
        self._context = context
        self._launch = context.launcher(graph=timing.graph, copies=False)
        self._copy_streams = (Stream(), Stream()) if copies else None
        # Events of two inferences: for each, copy in, network and copy out, or the network alone.
        pairs = range(3 if copies else 1)
        self._idle = [[EventPair(blocking_sync=copies) for _ in pairs] for _ in range(2)]
        self._pending: list[list[EventPair]] = []

    def sample(self) -> int:
        """Enqueues an inference and returns the time of the one before it, in nanoseconds."""
        if not self._pending:
            self._enqueue()
        self._enqueue()
        oldest = self._pending.pop(0)
        self._idle.append(oldest)
        oldest[-1].wait()
        # The sum of the parts, as trtexec counts: waits between the streams are in none of them.
        return round(sum(events.elapsed_ms() for events in oldest) * _NS_PER_MS)

    def close(self) -> None:
        """Waits for the inference under way, and destroys events and streams."""
        for inference in self._pending:
            inference[-1].wait()
        for events in chain(*self._pending, *self._idle):
            events.close()
        for stream in self._copy_streams or ():
            stream.close()

    def _enqueue(self) -> None:
        inference, context = self._idle.pop(0), self._context
        self._pending.append(inference)
        if self._copy_streams is None:
            inference[0].record_around(context.stream, self._launch)
            return
        upload_stream, download_stream = self._copy_streams
        copy_in, network, copy_out = inference
        copy_in.record_around(upload_stream, lambda: context.upload(upload_stream))
        # The three streams run side by side; the events alone put the parts in order.
        copy_in.block(context.stream)
        network.record_around(context.stream, self._launch)
        network.block(download_stream)
        copy_out.record_around(download_stream, lambda: context.download(download_stream))

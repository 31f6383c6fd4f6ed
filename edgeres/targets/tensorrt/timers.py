"""What the device's own clock says of an inference: the network alone, or as trtexec does it.

A watch holds its events, and the lane that it belongs to gives them back.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Protocol

from edgeres.core.bench_requests import Timing
from edgeres.targets.tensorrt.device import Interval, Stream

_NS_PER_MS = 1e6


class Watched(Protocol):
    """What a watch needs of the lane; the batch is set and the images are on the device."""

    stream: Stream

    def launcher(self, *, graph: bool, copies: bool) -> Callable[[], None]:
        """Returns what enqueues the present batch."""
        ...

    def upload(self, stream: Stream) -> None:
        """Puts the copy of the images on a stream."""
        ...

    def download(self, stream: Stream) -> None:
        """Puts the copy of the logits on a stream."""
        ...


class ComputeWatch:
    """The network alone, from one event to the other."""

    def __init__(self, lane: Watched, timing: Timing) -> None:
        """Captures the graph where the mode has one."""
        self._launch = lane.launcher(graph=timing.graph, copies=False)
        self._stream = lane.stream
        self._interval = Interval()

    def sample(self) -> int:
        """Returns the time of one inference in nanoseconds."""
        self._interval.around(self._stream, self._launch)
        self._interval.wait()
        return round(self._interval.elapsed_ms() * _NS_PER_MS)

    def close(self) -> None:
        """Gives the events back; the last sample has waited for its inference."""
        self._interval.close()


class PipelinedWatch:
    """trtexec's loop: one inference is enqueued before the one before it is waited for.

    trtexec 10 copies images and logits on streams of their own, waits asleep, and its latency is
    copy in + network + copy out; trtexec 11 leaves the copies out, replays a graph and spins. Both
    use one set of buffers for the two inferences under way.
    Source: NVIDIA/TensorRT, samples/common/sampleInference.cpp (`Iteration`, `inferenceLoop`) and
    sampleOptions.h (defaults); release notes of 11.0.
    """

    def __init__(self, lane: Watched, timing: Timing) -> None:
        """Captures the graph where the mode has one, and makes the streams for the copies."""
        copies = timing is Timing.TRTEXEC_10
        self._lane = lane
        self._launch = lane.launcher(graph=timing.graph, copies=False)
        self._copying = [Stream(), Stream()] if copies else []
        parts = range(3 if copies else 1)
        self._idle = [[Interval(asleep=copies) for _ in parts] for _ in range(2)]
        self._under_way: list[list[Interval]] = []

    def sample(self) -> int:
        """Enqueues an inference and returns the time of the one before it, in nanoseconds."""
        if not self._under_way:
            self._enqueue()
        self._enqueue()
        oldest = self._under_way.pop(0)
        self._idle.append(oldest)
        oldest[-1].wait()
        return round(sum(part.elapsed_ms() for part in oldest) * _NS_PER_MS)

    def close(self) -> None:
        """Waits for the inference under way, and gives events and streams back."""
        for parts in self._under_way:
            parts[-1].wait()
        for part in chain(*self._under_way, *self._idle):
            part.close()
        for stream in self._copying:
            stream.close()

    def _enqueue(self) -> None:
        parts = self._idle.pop(0)
        self._under_way.append(parts)
        if not self._copying:
            parts[0].around(self._lane.stream, self._launch)
            return
        lane, (inward, outward) = self._lane, self._copying
        copy_in, network, copy_out = parts
        copy_in.around(inward, lambda: lane.upload(inward))
        copy_in.holds_up(lane.stream)
        network.around(lane.stream, self._launch)
        network.holds_up(outward)
        copy_out.around(outward, lambda: lane.download(outward))

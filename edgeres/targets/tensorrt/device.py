"""Device memory, streams and the primary context, on pycuda. Knows nothing of TensorRT.

The primary context is the one that CUDA's runtime uses, so that torch and TensorRT in the same
process share it. It is made current for each piece of work and put back straight after: pycuda ends
the process when a thread finishes with a context still on its stack.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pycuda.driver as cuda
from numpy.typing import NDArray

from edgeres.errors import RunnerError
from edgeres.machine.cuda import load_driver
from edgeres.targets.runner import HostMemory


class PrimaryContext:
    """The primary context of the first GPU, retained until `close`."""

    def __init__(self) -> None:
        """Retains the context.

        Raises:
            RunnerError: CUDA refused.
        """
        with cuda_errors("CUDA could not start on the GPU"):
            cuda.init()
            self._context: Any = cuda.Device(0).retain_primary_context()

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Makes the context current in this thread, and puts back what was current before.

        Raises:
            RunnerError: CUDA refused.
        """
        with cuda_errors("CUDA's context cannot be used"):
            self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def close(self) -> None:
        """Releases the context, from whatever thread; what was current there stays so."""
        context, self._context = self._context, None
        released, outer = context.handle, cuda.Context.get_current()
        # From another thread, pycuda releases a context only while it is current.
        context.push()
        context.detach()
        # detach leaves the released context on the thread's stack, below the one that it puts back
        # as current: that one is lifted, the released one taken off, and the first put back.
        driver, top = load_driver(), ctypes.c_void_p()
        if driver is None:
            return
        if outer is not None:
            driver.cuCtxPopCurrent_v2(ctypes.byref(top))
        driver.cuCtxGetCurrent(ctypes.byref(top))
        if top.value == released:
            driver.cuCtxPopCurrent_v2(ctypes.byref(top))
        if outer is not None:
            driver.cuCtxPushCurrent_v2(ctypes.c_void_p(outer.handle))


class Stream:
    """A CUDA stream that ends with `close`, although a traceback may hold this object."""

    def __init__(self) -> None:
        """Makes the stream; the context must be current."""
        self.raw: Any = cuda.Stream()

    @property
    def handle(self) -> int:
        """The driver's CUstream, as TensorRT takes it."""
        return int(self.raw.handle)

    def synchronize(self) -> None:
        """Waits for what was enqueued."""
        self.raw.synchronize()

    def close(self) -> None:
        """Destroys the stream; nothing may be pending on it."""
        # pycuda destroys streams and events with their last reference.
        self.raw = None


class EventPair:
    """Two events on a stream, with what is timed between them; they end with `close`."""

    def __init__(self, *, blocking_sync: bool = False) -> None:
        """Makes the events; the context must be current.

        Args:
            blocking_sync: whether a thread that waits sleeps instead of spinning.
        """
        flags = int(cuda.event_flags.BLOCKING_SYNC) if blocking_sync else 0
        self._start: Any = cuda.Event(flags)
        self._end: Any = cuda.Event(flags)

    def record_around(self, stream: Stream, enqueue: Callable[[], None]) -> None:
        """Enqueues work between the two events."""
        self._start.record(stream.raw)
        enqueue()
        self._end.record(stream.raw)

    def block(self, stream: Stream) -> None:
        """Makes a stream wait for the end."""
        stream.raw.wait_for_event(self._end)

    def wait(self) -> None:
        """Waits for the end."""
        self._end.synchronize()

    def elapsed_ms(self) -> float:
        """Returns the device's time between the two, which must have passed."""
        return float(self._end.time_since(self._start))

    def close(self) -> None:
        """Destroys the events."""
        self._start = self._end = None


class Buffer:
    """The memory of one binding, allocated once for the largest batch; `free` gives it back."""

    def __init__(self, shape: tuple[int, ...], memory: HostMemory, dtype: str = "float32") -> None:
        """Allocates; the context must be current.

        Args:
            shape: of the largest batch.
            memory: with copies or mapped.
            dtype: of the binding.

        Raises:
            RunnerError: there is not enough memory.
        """
        mapped = memory is HostMemory.MAPPED
        flags = int(cuda.host_alloc_flags.DEVICEMAP) if mapped else 0
        self._device: Any = None
        with cuda_errors(f"There is no memory for a binding of shape {shape}"):
            self.host: NDArray[Any] = cuda.pagelocked_empty(shape, np.dtype(dtype), mem_flags=flags)
            self._pinned: Any = self.host.base
            try:
                if not mapped:
                    self._device = cuda.mem_alloc(self.host.nbytes)
            except cuda.Error:
                # Nobody has this object yet, so nobody else can free the first half.
                self._pinned.free()
                raise
            address: Any = self._pinned.get_device_pointer() if mapped else self._device
        self.address = int(address)

    def upload(self, batch: int, stream: Stream) -> None:
        """Enqueues the copy of the first `batch` rows to the device; mapped memory needs none."""
        if self._device is not None:
            cuda.memcpy_htod_async(self._device, self.host[:batch], stream.raw)

    def download(self, batch: int, stream: Stream) -> None:
        """Enqueues the copy of the first `batch` rows to the host; mapped memory needs none."""
        if self._device is not None:
            cuda.memcpy_dtoh_async(self.host[:batch], self._device, stream.raw)

    def free(self) -> None:
        """Gives both sides back; `host` is empty from then on."""
        device, self._device, self.host = self._device, None, np.empty(0, np.float32)
        try:
            if device is not None:
                device.free()
        finally:
            self._pinned.free()


@contextlib.contextmanager
def cuda_errors(fact: str) -> Iterator[None]:
    """Raises an error of CUDA in the block as a RunnerError that begins with `fact`."""
    try:
        yield
    except (cuda.Error, MemoryError) as error:
        raise RunnerError(
            f"{fact}: {error}. Free the GPU of other work and run again; "
            "if that does not help, run `edgeres doctor`."
        ) from error

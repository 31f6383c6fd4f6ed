"""The pretend driver sees what it is there to see: early reads, leaks, misuse while capturing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from pretend_cuda import PretendCuda

from edgeres.errors import RunnerError

pytestmark = pytest.mark.cuda


@pytest.fixture
def context(cuda: PretendCuda) -> Iterator[None]:
    """The primary context, current while the test runs."""
    from edgeres.targets.tensorrt.device import PrimaryContext

    device = PrimaryContext()
    with device.current():
        yield
    device.close()


@pytest.fixture
def buffer(context: None) -> Iterator[Any]:
    """One binding's memory."""
    from edgeres.targets.runner import HostMemory
    from edgeres.targets.tensorrt.device import Buffer

    allocated = Buffer((2, 3), HostMemory.COPIED)
    yield allocated
    allocated.free()


@pytest.fixture
def stream(context: None) -> Iterator[Any]:
    """A stream."""
    from edgeres.targets.tensorrt.device import Stream

    created = Stream()
    yield created
    created.close()


def test_a_result_that_is_read_too_early_is_not_there(buffer: Any, stream: Any) -> None:
    """Enqueued is not done: memory is NaN until something waits."""
    buffer.host[:] = 1
    buffer.upload(2, stream)
    buffer.host[:] = 0
    stream.synchronize()
    buffer.download(2, stream)
    assert (buffer.host == 0).all()
    stream.synchronize()
    assert (buffer.host == 0).all()
    buffer.host[:] = 1
    buffer.upload(2, stream)
    buffer.download(2, stream)
    stream.synchronize()
    assert (buffer.host == 1).all()


def test_images_that_change_before_the_copy_ran_are_what_is_copied(
    buffer: Any, stream: Any
) -> None:
    """As on a GPU, the copy takes what is there when it runs."""
    buffer.host[:] = 1
    buffer.upload(2, stream)
    buffer.host[:] = 2
    stream.synchronize()
    buffer.host[:] = 0
    buffer.download(2, stream)
    stream.synchronize()
    assert (buffer.host == 2).all()


def test_new_memory_is_not_a_number(buffer: Any, stream: Any) -> None:
    """So that a binding that nothing wrote shows."""
    assert np.isnan(buffer.host).all()


def test_what_is_not_given_back_is_counted(cuda: PretendCuda, context: None) -> None:
    """By kind."""
    from edgeres.targets.runner import HostMemory
    from edgeres.targets.tensorrt.device import Buffer, EventPair, Stream

    buffer, stream, events = Buffer((2, 3), HostMemory.COPIED), Stream(), EventPair()
    assert cuda.living == {
        "device_blocks": 1,
        "device_bytes": 24,
        "host_blocks": 1,
        "host_bytes": 24,
        "streams": 1,
        "events": 2,
        "contexts": 1,
    }
    buffer.free()
    stream.close()
    events.close()
    assert cuda.living == {"contexts": 1}


def test_a_stream_that_ends_with_work_is_counted(cuda: PretendCuda, buffer: Any) -> None:
    """It would write to memory that is gone."""
    from edgeres.targets.tensorrt.device import Stream

    early = Stream()
    buffer.upload(2, early)
    before = cuda.counts["abandoned"]
    early.close()
    assert cuda.counts["abandoned"] - before == 1
    cuda.excuse("abandoned", 1)


def _allocate() -> None:
    from edgeres.targets.runner import HostMemory
    from edgeres.targets.tensorrt.device import Buffer

    Buffer((2, 3), HostMemory.COPIED)


@pytest.mark.parametrize("misuse", ["wait", "allocate"])
def test_a_capture_allows_neither_waiting_nor_allocating(
    misuse: str, cuda: PretendCuda, buffer: Any, stream: Any
) -> None:
    """And the stream works again afterwards."""
    from edgeres.targets.tensorrt.cuda_graph import CudaGraph

    misuses: dict[str, Callable[[], None]] = {"wait": stream.synchronize, "allocate": _allocate}

    def enqueue() -> None:
        buffer.upload(2, stream)
        misuses[misuse]()

    import pycuda.driver

    with pytest.raises((RunnerError, pycuda.driver.Error), match="permitted when stream is capt"):
        CudaGraph(stream.handle, enqueue)
    buffer.host[:] = 3
    buffer.upload(2, stream)
    stream.synchronize()
    assert "graphs" not in cuda.living


def test_work_without_a_context_is_refused(cuda: PretendCuda) -> None:
    """As by the real driver."""
    import pycuda.driver

    pycuda.driver.init()
    with pytest.raises(pycuda.driver.Error):
        pycuda.driver.mem_alloc(16)

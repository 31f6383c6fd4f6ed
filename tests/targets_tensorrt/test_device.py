"""Memory, streams, events, graphs and the primary context: on the pretend driver, and on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

DRIVERS = [
    pytest.param("pretend", marks=pytest.mark.cuda),
    pytest.param("real", marks=pytest.mark.gpu),
]


@pytest.fixture(params=DRIVERS)
def device(request: pytest.FixtureRequest) -> Any:
    """The primary context, current while the test runs."""
    if request.param == "pretend":
        request.getfixturevalue("cuda")
    from edgeres.targets.tensorrt.device import PrimaryContext

    opened = PrimaryContext()
    with opened.current():
        yield opened
    opened.close()


def test_the_gpu_is_described_as_pycuda_does(device: Any) -> None:
    """Two ways to the same driver."""
    import pycuda.driver as cuda

    from edgeres.machine.cuda import CudaDevice, find_cuda_device

    gpu = find_cuda_device()
    assert isinstance(gpu, CudaDevice)
    first = cuda.Device(0)
    assert (gpu.name, gpu.memory_mib) == (first.name(), first.total_memory() >> 20)
    assert gpu.compute_capability == "{}.{}".format(*first.compute_capability())
    integrated = first.get_attribute(cuda.device_attribute.INTEGRATED)
    assert gpu.integrated is bool(integrated)


@pytest.mark.parametrize("memory", ["copied", "mapped"])
def test_a_buffer_goes_to_the_device_and_back(memory: str, device: Any) -> None:
    """What is copied arrives; mapped memory is the same on both sides."""
    from edgeres.targets.runner import HostMemory
    from edgeres.targets.tensorrt.device import Buffer, Stream

    buffer, stream = Buffer((4, 3), HostMemory(memory)), Stream()
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    buffer.host[:] = values
    buffer.upload(4, stream)
    stream.synchronize()
    buffer.host[:] = 0
    buffer.download(4, stream)
    stream.synchronize()
    expected = values if memory == "copied" else np.zeros_like(values)
    np.testing.assert_array_equal(buffer.host, expected)
    assert buffer.address
    buffer.free()
    stream.close()


def test_only_the_batch_is_copied(device: Any) -> None:
    """A smaller batch than the buffer's moves its own rows."""
    from edgeres.targets.runner import HostMemory
    from edgeres.targets.tensorrt.device import Buffer, Stream

    buffer, stream = Buffer((4, 3), HostMemory.COPIED), Stream()
    for rows, value in ((4, 1.0), (2, 2.0)):
        buffer.host[:] = value
        buffer.upload(rows, stream)
        stream.synchronize()
    buffer.download(4, stream)
    stream.synchronize()
    assert buffer.host[:, 0].tolist() == [2.0, 2.0, 1.0, 1.0]
    buffer.free()
    stream.close()


def test_a_graph_replays_what_was_captured(device: Any) -> None:
    """With the values of the replay; while capturing, nothing happened."""
    from edgeres.targets.runner import HostMemory
    from edgeres.targets.tensorrt.cuda_graph import CudaGraph
    from edgeres.targets.tensorrt.device import Buffer, Stream

    buffer, stream = Buffer((2, 3), HostMemory.COPIED), Stream()
    buffer.host[:] = 7
    buffer.upload(2, stream)
    stream.synchronize()
    graph = CudaGraph(stream.handle, lambda: buffer.download(2, stream))
    for value in (1.0, 2.0):
        buffer.host[:] = value
        graph.launch(stream.handle)
        stream.synchronize()
        assert (buffer.host == 7).all()
    graph.free()
    buffer.free()
    stream.close()


def test_an_interval_is_the_device_s_time(device: Any) -> None:
    """Not negative, and no longer than the host's."""
    import time

    from edgeres.targets.runner import HostMemory
    from edgeres.targets.tensorrt.device import Buffer, EventPair, Stream

    buffer, stream, events = Buffer((256, 256), HostMemory.COPIED), Stream(), EventPair()
    start = time.perf_counter_ns()
    events.record_around(stream, lambda: buffer.upload(256, stream))
    events.wait()
    host_ms = (time.perf_counter_ns() - start) / 1e6
    assert 0 <= events.elapsed_ms() <= host_ms
    events.close()
    buffer.free()
    stream.close()


@pytest.mark.gpu
def test_the_context_is_torch_s() -> None:
    """Torch's memory outlives the runner's hold on the primary context."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch has no CUDA")
    import pycuda.driver as cuda

    from edgeres.targets.tensorrt.device import PrimaryContext

    tensor = torch.arange(5.0, device="cuda")
    opened = PrimaryContext()
    with opened.current():
        copied = np.empty(5, np.float32)
        cuda.memcpy_dtoh(copied, tensor.data_ptr())
    opened.close()
    assert copied.tolist() == [0, 1, 2, 3, 4]
    assert (tensor + 1).sum().item() == 15

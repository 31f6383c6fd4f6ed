"""The GPU as NVIDIA's driver tells it: the pretend one's, and none."""

from __future__ import annotations

import pytest
from pretend_cuda import PretendCuda

from edgeres.environment import cuda as driver
from edgeres.environment.cuda import CudaDevice, NoCudaDevice, find_cuda_device


@pytest.mark.cuda
@pytest.mark.parametrize(
    ("name", "capability", "integrated", "cuda_version", "told"),
    [
        ("Orin", 87, True, 12060, ("8.7", "12.6")),
        ("Thor", 110, True, 13000, ("11.0", "13.0")),
        ("NVIDIA GeForce RTX 5090", 120, False, 13020, ("12.0", "13.2")),
    ],
)
def test_the_device_is_described(
    name: str,
    capability: int,
    integrated: bool,
    cuda_version: int,
    told: tuple[str, str],
    cuda: PretendCuda,
) -> None:
    """Name, capability, memory, whether it is the host's, and the driver's CUDA."""
    cuda.set_device(
        name=name, capability=capability, integrated=integrated, driver=cuda_version, memory=8 << 30
    )
    assert find_cuda_device() == CudaDevice(
        name=name,
        compute_capability=told[0],
        memory_mib=8192,
        integrated=integrated,
        cuda=told[1],
    )


@pytest.mark.cuda
def test_a_driver_without_a_gpu_is_told(cuda: PretendCuda) -> None:
    """By the driver's own name for it."""
    cuda.set_device(devices=0)
    reason = "its NVIDIA driver answers CUDA_ERROR_NO_DEVICE"
    assert find_cuda_device() == NoCudaDevice(reason=reason)


@pytest.mark.cuda
def test_an_unknown_error_has_its_number(cuda: PretendCuda) -> None:
    """A driver may know errors that it has no name for."""
    cuda.fail("cuInit", code=9999)
    assert find_cuda_device() == NoCudaDevice(reason="its NVIDIA driver answers error 9999")


def test_no_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library that is missing is named; nothing is loaded."""
    monkeypatch.setattr(driver, "LIBRARY", "libcuda.so.none")
    assert find_cuda_device() == NoCudaDevice(reason="it has no NVIDIA driver (no libcuda.so.none)")

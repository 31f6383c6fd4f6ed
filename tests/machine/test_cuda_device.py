"""The GPU as NVIDIA's driver describes it: the pretend one's, and none."""

from __future__ import annotations

from pathlib import Path

import pytest
from pretend_cuda import OUT_OF_MEMORY, PretendCuda

from edgeres.machine import cuda as driver
from edgeres.machine.cuda import (
    CudaDevice,
    NoCudaDevice,
    find_cuda_device,
    find_pci_bus_id,
    system_versions,
)
from edgeres.machine.l4t import l4t_version


@pytest.mark.cuda
@pytest.mark.parametrize(
    ("name", "capability", "integrated", "cuda_version", "described"),
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
    described: tuple[str, str],
    cuda: PretendCuda,
) -> None:
    """Name, capability, memory, whether it is the host's, and the driver's CUDA."""
    cuda.set_device(
        name=name, capability=capability, integrated=integrated, driver=cuda_version, memory=8 << 30
    )
    assert find_cuda_device() == CudaDevice(
        name=name,
        compute_capability=described[0],
        memory_mib=8192,
        integrated=integrated,
        cuda=described[1],
    )


@pytest.mark.cuda
def test_a_driver_without_a_gpu_is_told(cuda: PretendCuda) -> None:
    """By the driver's own name for it."""
    cuda.set_device(devices=0)
    reason = "its NVIDIA driver answers CUDA_ERROR_NO_DEVICE to cuInit"
    assert find_cuda_device() == NoCudaDevice(reason=reason)


@pytest.mark.cuda
@pytest.mark.parametrize("call", ["cuDeviceGetCount", "cuDeviceGetAttribute", "cuDriverGetVersion"])
def test_whatever_the_driver_refuses_is_told(call: str, cuda: PretendCuda) -> None:
    """A description is complete or there is none."""
    cuda.fail(call, code=OUT_OF_MEMORY)
    reason = f"its NVIDIA driver answers CUDA_ERROR_OUT_OF_MEMORY to {call}"
    assert find_cuda_device() == NoCudaDevice(reason=reason)


@pytest.mark.cuda
@pytest.mark.parametrize("bus", [0x01, 0x41, 0xC1])
def test_the_bus_of_the_gpu_that_runs(bus: int, cuda: PretendCuda) -> None:
    """As the driver writes it, in hexadecimal, which NVML reads."""
    cuda.set_device(bus=bus)
    assert find_pci_bus_id() == f"0000:{bus:02X}:00.0"


@pytest.mark.cuda
@pytest.mark.parametrize("call", ["cuInit", "cuDeviceGetPCIBusId"])
def test_a_bus_that_the_driver_does_not_name(call: str, cuda: PretendCuda) -> None:
    """Its own name for the reason; and without any GPU there is none."""
    cuda.fail(call, code=OUT_OF_MEMORY)
    reason = f"its NVIDIA driver answers CUDA_ERROR_OUT_OF_MEMORY to {call}"
    assert find_pci_bus_id() == NoCudaDevice(reason=reason)
    cuda.set_device(devices=0)
    assert isinstance(find_pci_bus_id(), NoCudaDevice)


@pytest.mark.cuda
def test_an_unknown_error_has_its_number(cuda: PretendCuda) -> None:
    """A driver may know errors that it has no name for."""
    cuda.fail("cuInit", code=9999)
    assert find_cuda_device() == NoCudaDevice(
        reason="its NVIDIA driver answers error 9999 to cuInit"
    )


def test_no_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library that is missing is named; nothing is loaded."""
    monkeypatch.setattr(driver, "LIBRARY", "libcuda.so.none")
    missing = NoCudaDevice(reason="it has no NVIDIA driver (no libcuda.so.none)")
    assert find_cuda_device() == find_pci_bus_id() == missing


@pytest.mark.parametrize(
    ("text", "release"),
    [
        (
            "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
            "DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n",
            "36.4.3",
        ),
        ("# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref", "32.7.1"),
        ("# R38 (release), REVISION: 2.0", "38.2.0"),
        ("nothing of the kind", None),
    ],
)
def test_releases_of_jetson_linux(text: str, release: str | None, tmp_path: Path) -> None:
    """As the boards write them."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text(text)
    assert l4t_version(tmp_path) == release


def test_what_a_manifest_keeps_of_the_system(tmp_path: Path) -> None:
    """The driver's CUDA, and on a Jetson its release."""
    orin = CudaDevice(
        name="Orin", compute_capability="8.7", memory_mib=7620, integrated=True, cuda="12.6"
    )
    assert system_versions(orin, tmp_path) == {"cuda": "12.6"}
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3")
    assert system_versions(orin, tmp_path) == {"cuda": "12.6", "l4t": "36.4.3"}

"""NVIDIA's driver, called directly: which GPU this is, and the few calls that pycuda lacks.

The driver's library is all that is needed, on a Jetson as on a desktop; no package is imported.
What it answers decides whether a plan belongs here, before TensorRT's own runtime is touched:
without a device that ends the process.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgeres.machine.l4t import l4t_version

# The driver brings this name; the bare `libcuda.so` comes with the toolkit's development files.
LIBRARY = "libcuda.so.1"

_SUCCESS = 0
_INTEGRATED = 18
"""CU_DEVICE_ATTRIBUTE_INTEGRATED. Source: cuda.h, CUdevice_attribute."""
_NAME_BYTES = 256
_BUS_ID_BYTES = 32
"""Source: cuda.h, 13 characters; nvml.h, NVML_DEVICE_PCI_BUS_ID_BUFFER_SIZE, has longer domains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaDevice:
    """The first GPU that the driver offers."""

    name: str
    """Such as `Orin` or `NVIDIA GeForce RTX 4090`."""
    compute_capability: str
    """Such as `8.7`."""
    memory_mib: int
    integrated: bool
    """Whether it shares the host's memory, as a Jetson's does."""
    cuda: str
    """Newest CUDA version that the driver serves, such as `12.6`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoCudaDevice:
    """There is no GPU to use, and why."""

    reason: str
    """Part of a sentence: `it has no NVIDIA driver (no libcuda.so.1)`."""


def find_cuda_device() -> CudaDevice | NoCudaDevice:
    """Returns the first GPU, or why there is none."""
    driver = load_driver()
    if driver is None:
        return NoCudaDevice(reason=f"it has no NVIDIA driver (no {LIBRARY})")

    call = partial(_call, driver)
    count, handle, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    major, minor, integrated = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    memory, name = ctypes.c_size_t(), ctypes.create_string_buffer(_NAME_BYTES)
    try:
        call("cuInit", 0)
        call("cuDeviceGetCount", ctypes.byref(count))
        if count.value == 0:
            return NoCudaDevice(reason="its NVIDIA driver sees no GPU")
        call("cuDeviceGet", ctypes.byref(handle), 0)
        call("cuDeviceGetName", name, _NAME_BYTES, handle)
        call("cuDeviceComputeCapability", ctypes.byref(major), ctypes.byref(minor), handle)
        # The call without `_v2` counts in 32 bits.
        call("cuDeviceTotalMem_v2", ctypes.byref(memory), handle)
        call("cuDeviceGetAttribute", ctypes.byref(integrated), _INTEGRATED, handle)
        call("cuDriverGetVersion", ctypes.byref(version))
    except _RefusedError as error:
        return NoCudaDevice(reason=f"its NVIDIA driver answers {error}")
    return CudaDevice(
        name=name.value.decode(errors="replace"),
        compute_capability=f"{major.value}.{minor.value}",
        memory_mib=memory.value >> 20,
        integrated=bool(integrated.value),
        # The driver's 12060 is CUDA 12.6.
        cuda=f"{version.value // 1000}.{version.value % 1000 // 10}",
    )


def find_pci_bus_id() -> str | NoCudaDevice:
    """Returns the PCI bus id of the first GPU, such as `0000:41:00.0`, or why it is not known.

    The driver itself applies CUDA_VISIBLE_DEVICES, whether it has indices, UUIDs or a MIG instance,
    whose id is that of the GPU that it is an instance of.
    """
    driver = load_driver()
    if driver is None:
        return NoCudaDevice(reason=f"it has no NVIDIA driver (no {LIBRARY})")
    handle, bus_id = ctypes.c_int(), ctypes.create_string_buffer(_BUS_ID_BYTES)
    try:
        _call(driver, "cuInit", 0)
        _call(driver, "cuDeviceGet", ctypes.byref(handle), 0)
        _call(driver, "cuDeviceGetPCIBusId", bus_id, _BUS_ID_BYTES, handle)
    except _RefusedError as error:
        return NoCudaDevice(reason=f"its NVIDIA driver answers {error}")
    return bus_id.value.decode()


def system_versions(device: CudaDevice, root: Path = Path("/")) -> dict[str, str]:
    """Returns what a plan's manifest keeps of the system that it was built on.

    Args:
        device: that the plan is for.
        root: where the machine's /etc is read.
    """
    l4t = l4t_version(root)
    return {"cuda": device.cuda} | ({} if l4t is None else {"l4t": l4t})


def load_driver() -> ctypes.CDLL | None:
    """Returns the driver's library, None where it is not installed."""
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError:
        return None


def error_name(driver: ctypes.CDLL, code: int) -> str:
    """Returns the driver's name for an error code, such as `CUDA_ERROR_NO_DEVICE`."""
    name = ctypes.c_char_p()
    if driver.cuGetErrorName(code, ctypes.byref(name)) != _SUCCESS or name.value is None:
        return f"error {code}"
    return name.value.decode()


def _call(driver: ctypes.CDLL, function: str, *arguments: Any) -> None:
    if code := getattr(driver, function)(*arguments):
        raise _RefusedError(f"{error_name(driver, code)} to {function}")


class _RefusedError(Exception):
    """The driver answered a call with an error, which the message names."""

"""The GPU that TensorRT builds for, asked of NVIDIA's driver without making a CUDA context.

The driver's C interface needs no package, so a board can build without pycuda. Source: CUDA
driver API, device management; the numbers are those of CUdevice_attribute in cuda.h.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from edgeres.errors import BuildError

_LIBRARY = "libcuda.so.1"
_SUCCESS = 0
_INTEGRATED = 18
_MAJOR, _MINOR = 75, 76
_NAME_BYTES = 256
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU."""

    name: str
    compute_capability: str
    """Such as `8.7`."""
    memory_mib: int
    is_integrated: bool
    """Whether it shares the processor's memory, as a Jetson's does."""


def describe_device(library: Any = None) -> Device:
    """Returns the first GPU that CUDA sees.

    Args:
        library: the driver's functions; None loads them.

    Raises:
        BuildError: there is no usable driver or no GPU.
    """
    cuda = library or _load()
    device, count = ctypes.c_int(), ctypes.c_int()
    _check(cuda.cuInit(0), "cuInit")
    _check(cuda.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
    if count.value < 1:
        raise BuildError(
            "NVIDIA's driver is here and sees no GPU. Check CUDA_VISIBLE_DEVICES and nvidia-smi."
        )
    _check(cuda.cuDeviceGet(ctypes.byref(device), 0), "cuDeviceGet")
    name, memory = ctypes.create_string_buffer(_NAME_BYTES), ctypes.c_size_t()
    _check(cuda.cuDeviceGetName(name, _NAME_BYTES, device), "cuDeviceGetName")
    _check(cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device), "cuDeviceTotalMem")
    return Device(
        name=name.value.decode(errors="replace"),
        compute_capability=f"{_attribute(cuda, _MAJOR, device)}.{_attribute(cuda, _MINOR, device)}",
        memory_mib=memory.value // _MIB,
        is_integrated=bool(_attribute(cuda, _INTEGRATED, device)),
    )


def _load() -> Any:
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise BuildError(
            f"NVIDIA's driver cannot be loaded ({error}). Install it, or build on the board that "
            "the engine is for."
        ) from error


def _attribute(cuda: Any, number: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    _check(cuda.cuDeviceGetAttribute(ctypes.byref(value), number, device), "cuDeviceGetAttribute")
    return value.value


def _check(status: int, call: str) -> None:
    if status != _SUCCESS:
        raise BuildError(
            f"NVIDIA's driver refused {call} (CUDA error {status}). Check it with nvidia-smi, on a "
            "Jetson with tegrastats, and run `edgeres doctor`."
        )

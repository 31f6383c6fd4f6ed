"""The GPU as NVIDIA's driver describes it, through its C interface."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from edgeres.build import device
from edgeres.build.device import Device, describe_device
from edgeres.errors import BuildError


class Driver:
    """A driver with one GPU, written by the documentation of the CUDA driver API."""

    def __init__(self) -> None:
        """Starts as a board's."""
        self.attributes = {18: 1, 75: 8, 76: 7}
        self.count = 1
        self.fails = ""

    def cuInit(self, flags: int) -> int:  # noqa: N802  # the driver's names
        """Starts it."""
        return self._status("cuInit")

    def cuDeviceGetCount(self, out: Any) -> int:  # noqa: N802
        """Counts GPUs."""
        out._obj.value = self.count
        return self._status("cuDeviceGetCount")

    def cuDeviceGet(self, out: Any, ordinal: int) -> int:  # noqa: N802
        """Returns the handle of one."""
        out._obj.value = 40 + ordinal
        return 0

    def cuDeviceGetName(self, out: Any, size: int, handle: Any) -> int:  # noqa: N802
        """Names it."""
        assert (size, handle.value) == (ctypes.sizeof(out), 40)
        out.value = b"Orin"
        return 0

    def cuDeviceTotalMem_v2(self, out: Any, handle: Any) -> int:  # noqa: N802
        """Measures it."""
        out._obj.value = 7620 << 20
        return 0

    def cuDeviceGetAttribute(self, out: Any, number: int, handle: Any) -> int:  # noqa: N802
        """Tells one thing about it."""
        out._obj.value = self.attributes[number]
        return self._status("cuDeviceGetAttribute")

    def _status(self, call: str) -> int:
        return 100 if call == self.fails else 0


def test_a_board_is_described() -> None:
    """Name, compute capability, memory, and that it shares it with the processor."""
    assert describe_device(Driver()) == Device(
        name="Orin", compute_capability="8.7", memory_mib=7620, is_integrated=True
    )


def test_a_desktop_has_memory_of_its_own() -> None:
    """The driver's word for it, not the name."""
    driver = Driver()
    driver.attributes = {18: 0, 75: 12, 76: 0}
    found = describe_device(driver)
    assert (found.compute_capability, found.is_integrated) == ("12.0", False)


@pytest.mark.parametrize("call", ["cuInit", "cuDeviceGetCount", "cuDeviceGetAttribute"])
def test_what_the_driver_refuses_is_told(call: str) -> None:
    """With CUDA's number for it."""
    driver = Driver()
    driver.fails = call
    with pytest.raises(BuildError, match=rf"driver refused {call} \(CUDA error 100\)\. Check it"):
        describe_device(driver)


def test_a_driver_without_a_gpu_is_told() -> None:
    """As a container without the device has it."""
    driver = Driver()
    driver.count = 0
    with pytest.raises(BuildError, match=r"sees no GPU\. Check CUDA_VISIBLE_DEVICES"):
        describe_device(driver)


def test_a_missing_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader's reason is in the message."""
    monkeypatch.setattr(device, "_LIBRARY", "libnone.so.1")
    with pytest.raises(BuildError, match=r"cannot be loaded \(libnone\.so\.1: .*Install it"):
        describe_device()

"""A stand-in for NVIDIA's `pynvml`, with the names of it that edgeres calls.

Names, arguments and constants: nvidia-ml-py 13, pynvml.py.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from types import ModuleType

import pytest

from edgeres.machine import gpu
from edgeres.machine.cuda import NoCudaDevice


class NVMLError(Exception):
    """What every call of NVML raises."""


@dataclass(slots=True)
class FakeNvml:
    """One GPU that answers with what is set here."""

    name: str | bytes = "NVIDIA Test GPU"
    mhz: int = 1980
    reasons: int = 0
    energy_mj: int = 0
    celsius: int = 55
    count: int = 1
    """GPUs of the machine."""
    mig: bool = False
    unsupported: frozenset[str] = frozenset()
    """Names of calls that this device refuses."""
    is_open: int = 0
    """Initialisations without their shutdown."""
    asked: list[object] = field(default_factory=list)
    """Index or bus id of each handle that was requested."""

    NVMLError = NVMLError
    NVML_CLOCK_SM = 1
    NVML_TEMPERATURE_GPU = 0

    def nvmlInit(self) -> None:  # noqa: N802
        """Counts."""
        self._check("nvmlInit")
        self.is_open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        """Counts."""
        self.is_open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        """Returns the GPUs of the machine, whatever CUDA is shown of them."""
        return self.count

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:  # noqa: N802
        """Returns the present and the pending mode; what cannot be divided refuses."""
        assert handle == "handle"
        if not self.mig:
            raise NVMLError("Not Supported")
        return [1, 1]

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        """Returns a handle."""
        self._check("nvmlDeviceGetHandleByIndex")
        self.asked.append(index)
        return "handle"

    def nvmlDeviceGetHandleByPciBusId(self, bus_id: str) -> str:  # noqa: N802
        """Returns a handle."""
        self._check("nvmlDeviceGetHandleByPciBusId")
        self.asked.append(bus_id)
        return "handle"

    def nvmlDeviceGetName(self, handle: str) -> str | bytes:  # noqa: N802
        """Returns the name."""
        assert handle == "handle"
        return self.name

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        """Returns the clock in MHz."""
        assert (handle, kind) == ("handle", self.NVML_CLOCK_SM)
        return self.mhz

    def nvmlDeviceGetMaxClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        """Returns the highest clock in MHz."""
        assert (handle, kind) == ("handle", self.NVML_CLOCK_SM)
        return 1980

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:  # noqa: N802
        """Returns degrees."""
        assert (handle, sensor) == ("handle", self.NVML_TEMPERATURE_GPU)
        self._check("nvmlDeviceGetTemperature")
        return self.celsius

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:  # noqa: N802
        """Returns the bits."""
        assert handle == "handle"
        return self.reasons

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        """Returns millijoules since the driver was loaded."""
        assert handle == "handle"
        self._check("nvmlDeviceGetTotalEnergyConsumption")
        return self.energy_mj

    def _check(self, call: str) -> None:
        if call in self.unsupported:
            raise NVMLError("Not Supported")


NO_CUDA = NoCudaDevice(reason="it has no NVIDIA driver (no libcuda.so.1)")


def install(
    monkeypatch: pytest.MonkeyPatch, nvml: object | None, bus_id: str | NoCudaDevice = NO_CUDA
) -> None:
    """Makes `import pynvml` give a module, or fail as where it is not installed.

    Args:
        monkeypatch: pytest's.
        nvml: the module; None where it is not installed.
        bus_id: what CUDA answers when it is asked for the GPU that runs.
    """
    monkeypatch.setattr(gpu, "find_pci_bus_id", lambda: bus_id)
    real = importlib.import_module

    def import_module(name: str, package: str | None = None) -> ModuleType | object:
        if name != "pynvml":
            return real(name, package)
        if nvml is None:
            raise ModuleNotFoundError("No module named 'pynvml'", name="pynvml")
        return nvml

    monkeypatch.setattr(importlib, "import_module", import_module)

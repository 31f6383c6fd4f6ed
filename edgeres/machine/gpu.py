"""What a GPU reports of its clocks: a Jetson's through sysfs, any other's through NVML.

NVML is read with NVIDIA's `nvidia-ml-py` where that is installed; nothing is guessed without it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgeres.installation import install_hint
from edgeres.machine.cuda import find_pci_bus_id
from edgeres.machine.sysfs import number_of, temperature

REASONS: Mapping[int, str] = {
    0x01: "idle",
    0x02: "clocks set by the user",
    0x04: "power limit",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "temperature, by software",
    0x40: "temperature, by hardware",
    0x80: "external power brake",
    0x100: "display clocks",
}
"""Bits of the reasons for a clock below the highest one. Source: nvml.h, nvmlClocksEventReasons."""

THROTTLING = frozenset(
    {
        "hardware slowdown",
        "temperature, by software",
        "temperature, by hardware",
        "external power brake",
    }
)
"""Those among `REASONS` that come and go with heat and supply, so that a figure taken under them
is not the machine's."""


_SOC_GPUS = (".gpu", ".gv11b", ".ga10b", ".gp10b")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuState:
    """A GPU at one moment; None or empty is what it does not report."""

    mhz: float | None = None
    max_mhz: float | None = None
    """Highest clock that the present settings allow."""
    temperature_c: float | None = None
    reasons: tuple[str, ...] = ()
    """Why the clock is below its highest; of `REASONS`."""


class GpuProbe(Protocol):
    """A GPU whose state can be read, until it is closed."""

    @property
    def name(self) -> str:
        """Which GPU is read, and how."""

    @property
    def unavailable(self) -> str | None:
        """A sentence on what it does not report, and what would help; None where it reports all."""

    def read(self) -> GpuState:
        """Returns the GPU now."""

    def close(self) -> None:
        """Releases what reading needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnavailableGpu:
    """A GPU whose state cannot be read, and why."""

    unavailable: str
    name: str = "unavailable GPU"

    def read(self) -> GpuState:
        """Returns an empty state."""
        return GpuState()

    def close(self) -> None:
        """Has nothing to release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JetsonGpu:
    """A Jetson's GPU by its devfreq files; why it is slowed down is in the thermal files."""

    folder: Path
    name: str = "Jetson GPU through devfreq"
    unavailable: str | None = None

    def read(self) -> GpuState:
        """Returns the clock now and the highest that the power mode allows."""
        # devfreq counts in Hz; its max_freq is what the power mode allows, not the chip's own.
        return GpuState(
            mhz=_mhz(number_of(self.folder / "cur_freq")),
            max_mhz=_mhz(number_of(self.folder / "max_freq")),
        )

    def close(self) -> None:
        """Has nothing to release."""


class NvmlGpu:
    """One GPU through NVML."""

    unavailable: str | None = None

    def __init__(self, nvml: Any, handle: Any) -> None:
        """Takes over NVML's module, which is initialised already, and a device's handle."""
        self._nvml = nvml
        self._handle = handle
        self.name = f"{nvml_name(nvml, handle)} through NVML"

    def read(self) -> GpuState:
        """Returns clock, temperature and reasons; what this device does not support is None."""
        nvml = self._nvml
        # Modules from before driver 535 have the call under its older name alone.
        reasons = (
            getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
            or nvml.nvmlDeviceGetCurrentClocksThrottleReasons
        )
        bits = self._call(reasons) or 0
        return GpuState(
            mhz=self._call(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
            max_mhz=self._call(nvml.nvmlDeviceGetMaxClockInfo, nvml.NVML_CLOCK_SM),
            temperature_c=temperature(
                self._call(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU)
            ),
            reasons=tuple(name for bit, name in REASONS.items() if bits & bit),
        )

    def close(self) -> None:
        """Shuts NVML down."""
        self._nvml.nvmlShutdown()

    def _call(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(self._handle, *arguments)
        except self._nvml.NVMLError:
            return None


def open_gpu(root: Path = Path("/")) -> GpuProbe:
    """Returns the probe of the GPU that CUDA runs on; `UnavailableGpu` where it is not known.

    Args:
        root: where a Jetson's files are looked for; with NVML only the real machine answers.
    """
    if folder := jetson_gpu_folder(root):
        return JetsonGpu(folder=folder)
    nvml = load_nvml()
    if nvml is None:
        return UnavailableGpu(
            unavailable="The GPU's clocks, temperature and throttling are unavailable: NVIDIA's "
            f"Python module for NVML is not installed. {install_hint('pynvml')}"
        )
    try:
        return NvmlGpu(nvml, open_nvml(nvml))
    except UnknownGpuError as error:
        return UnavailableGpu(unavailable=str(error))
    except nvml.NVMLError as error:
        return UnavailableGpu(
            unavailable=f"NVML does not report on the GPU: {error}. Check it with nvidia-smi."
        )


def load_nvml() -> Any:
    """Returns the module of `nvidia-ml-py`, or None where it is not installed."""
    try:
        return importlib.import_module("pynvml")
    except ModuleNotFoundError:
        return None


class UnknownGpuError(Exception):
    """NVML reports on several GPUs and CUDA cannot report which one runs; a sentence."""


def open_nvml(nvml: Any) -> Any:
    """Initialises NVML and returns the handle of the GPU that CUDA runs on.

    Who opens shuts down: NVML counts both. Where this raises, nothing is open.

    Raises:
        NVMLError: the module's own, where NVML does not know the GPU.
        UnknownGpuError: there are several, and CUDA cannot be asked.
    """
    # NVML counts in the order of the bus, CUDA by its own and CUDA_VISIBLE_DEVICES: only the bus id
    # names the same GPU in both.
    bus_id = find_pci_bus_id()
    nvml.nvmlInit()
    try:
        if isinstance(bus_id, str):
            return nvml.nvmlDeviceGetHandleByPciBusId(bus_id)
        count = nvml.nvmlDeviceGetCount()
        if count <= 1:
            return nvml.nvmlDeviceGetHandleByIndex(0)
    except nvml.NVMLError:
        nvml.nvmlShutdown()
        raise
    nvml.nvmlShutdown()
    raise UnknownGpuError(
        f"NVML reports on {count} GPUs, and which of them runs is not known: CUDA cannot be asked "
        f"on this machine, {bus_id.reason}. Check CUDA_VISIBLE_DEVICES "
        f"({os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}) and the driver."
    )


def nvml_name(nvml: Any, handle: Any) -> str:
    """Returns the name of a GPU."""
    name = nvml.nvmlDeviceGetName(handle)
    # Older modules give bytes.
    return name.decode() if isinstance(name, bytes) else str(name)


def jetson_gpu_folder(root: Path) -> Path | None:
    """Returns the devfreq folder of a Jetson's GPU.

    Source: names on L4T 32 to 38: `57000000.gpu`, `17000000.gv11b`, `17000000.ga10b`,
    `17000000.gpu`, and on Thor `gpu-gpc-0`.
    """
    if not (root / "proc/device-tree/model").exists():
        return None
    for folder in sorted((root / "sys/class/devfreq").glob("*")):
        # Thor's gpu-nvd-0 is a clock of its video engines.
        if folder.name.endswith(_SOC_GPUS) or folder.name.startswith("gpu-gpc"):
            return folder
    return None


def _mhz(hertz: int | None) -> float | None:
    return None if hertz is None else hertz / 1e6

"""Meters of energy: a Jetson's rails, a GPU's and a processor's own counters.

A counter gives joules by itself; a rail gives power, which is integrated between readings. A
meter that does not answer raises OSError with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgeres.installation import install_hint
from edgeres.machine.gpu import UnknownGpuError, load_nvml, nvml_name, open_nvml
from edgeres.machine.rails import Rail, find_rails
from edgeres.machine.sysfs import number_of, text_of

NVML_UPDATE_S = 0.1
"""Time between two values of a GPU's counter. Source: measured on several generations at 20 to
100 ms by Yang et al., Part-time Power Measurements, SC 2024."""

RAPL_UPDATE_S = 0.001
"""Source: Intel SDM volume 3, 15.10.1, energy status updates about every millisecond."""

RAIL_UPDATE_S = 0.05
"""Time between two readings of a rail. Chosen: an INA3221 with the kernel's default settings
averages over less than 10 ms; reading three rails costs under a millisecond."""

RAPL_INTERVAL_S = 10.0
"""Time between two readings of a counter that wraps: 32 bits of 15.3 microjoules last 65 s at
1 kW. Source: Intel SDM volume 3, 15.10.1."""


class Meter(Protocol):
    """Something that measures energy, until it is closed."""

    @property
    def name(self) -> str:
        """Kind of meter, such as `rapl`."""

    @property
    def scope(self) -> tuple[str, ...]:
        """Rails or devices that are measured."""

    @property
    def interval_s(self) -> float | None:
        """How often `joules` must be called; None where twice will do."""

    @property
    def update_s(self) -> float:
        """Time between two values of what is read."""

    def joules(self) -> float:
        """Returns the energy since the first call, which returns 0.

        Raises:
            OSError: the meter does not answer.
        """

    def close(self) -> None:
        """Releases what measuring needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoMeter:
    """Stands for a meter where there is none."""

    reason: str
    """A sentence, with what to do where something can be done."""
    name: str = "none"
    scope: tuple[str, ...] = ()

    def close(self) -> None:
        """Has nothing to release."""


class RailMeter:
    """Integrates the power of a Jetson's rails by the trapezoidal rule."""

    name = "ina3221"
    interval_s: float | None = RAIL_UPDATE_S
    update_s = RAIL_UPDATE_S

    def __init__(self, rails: Sequence[Rail], clock: Callable[[], float] = time.monotonic) -> None:
        """Takes the rails to add up, at least one, and a clock in seconds."""
        self._rails = tuple(rails)
        self.scope = tuple(rail.name for rail in self._rails)
        self._clock = clock
        self._joules = 0.0
        self._last: tuple[float, float] | None = None

    def joules(self) -> float:
        """Returns the energy since the first call."""
        # The time is that before the readings, whose three bus transfers take under a millisecond.
        now, watts = self._clock(), sum(rail.watts() for rail in self._rails)
        if self._last is not None:
            before, watts_before = self._last
            self._joules += (now - before) * (watts + watts_before) / 2
        self._last = now, watts
        return self._joules

    def close(self) -> None:
        """Has nothing to release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaplDomain:
    """One counter of a processor: a package or its memory."""

    name: str
    counter: Path
    """In microjoules."""
    range_uj: int
    """Highest value; after it the counter starts again at 0."""


class RaplMeter:
    """Adds up the energy counters of a processor."""

    name = "rapl"
    interval_s: float | None = RAPL_INTERVAL_S
    update_s = RAPL_UPDATE_S

    def __init__(self, domains: Sequence[RaplDomain]) -> None:
        """Takes the counters to add up, at least one."""
        self._domains = tuple(domains)
        self.scope = tuple(domain.name for domain in self._domains)
        self._last: tuple[int, ...] | None = None
        self._total_uj = 0

    @classmethod
    def open(cls, root: Path) -> RaplMeter | NoMeter:
        """Returns the meter of the counters below `root`, or why they cannot be read."""
        domains = []
        for folder in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
            name, highest = text_of(folder / "name"), number_of(folder / "max_energy_range_uj")
            # The other domains, cores and graphics, are within the package.
            if name is None or highest is None or not name.startswith(("package", "dram")):
                continue
            if name.startswith("dram"):
                # Each package has a domain of this name: the folder has the package's number.
                name = f"{name}-{folder.name.split(':')[1]}"
            domains.append(RaplDomain(name=name, counter=folder / "energy_uj", range_uj=highest))
        if not domains:
            return NoMeter(
                reason="This machine has no energy counter: neither a Jetson's power rails nor "
                "the processor's RAPL (/sys/class/powercap), which virtual machines do not have."
            )
        meter = cls(domains)
        # Since Linux 5.10 only root may read the counters, which leak what a processor computes
        # (CVE-2020-8694): whether they can be read shows in the first reading.
        try:
            meter.joules()
        except OSError as error:
            return NoMeter(
                reason=f"{error.filename} cannot be read: {error.strerror}. Run as root, or allow "
                f"it until the next boot: sudo chmod a+r {error.filename}"
            )
        return meter

    def joules(self) -> float:
        """Returns the energy since the first call; a counter that wrapped once is followed."""
        now = tuple(int(domain.counter.read_text()) for domain in self._domains)
        if self._last is not None:
            self._total_uj += sum(
                # After its highest value a counter goes on from 0.
                (value - before) % (domain.range_uj + 1)
                for domain, value, before in zip(self._domains, now, self._last, strict=True)
            )
        self._last = now
        return self._total_uj / 1e6

    def close(self) -> None:
        """Has nothing to release."""


class NvmlMeter:
    """A GPU's own energy counter."""

    name = "nvml"
    interval_s: float | None = None
    update_s = NVML_UPDATE_S

    def __init__(self, nvml: Any, handle: Any) -> None:
        """Takes over NVML's module, which is initialised already, and a device's handle."""
        self._nvml = nvml
        self._handle = handle
        self._first: int | None = None
        self.scope = (nvml_name(nvml, handle),)

    @classmethod
    def open(cls) -> NvmlMeter | NoMeter:
        """Returns the meter of the GPU that CUDA runs on, or why there is none."""
        nvml = load_nvml()
        if nvml is None:
            return NoMeter(
                reason="The GPU's energy counter is read through NVML, and NVIDIA's Python module "
                f"for it is not installed. {install_hint('pynvml')}"
            )
        try:
            handle = open_nvml(nvml)
        except UnknownGpuError as error:
            return NoMeter(reason=str(error))
        except nvml.NVMLError as error:
            reason = f"NVML does not answer: {error}. Check the driver with nvidia-smi."
            return NoMeter(reason=reason)
        meter = cls(nvml, handle)
        # A GPU without MIG refuses the question. The counter is the whole GPU's, while the clocks
        # and what throttles them are the same for every instance.
        with suppress(nvml.NVMLError):
            if nvml.nvmlDeviceGetMigMode(handle)[0]:
                meter.close()
                return NoMeter(
                    reason=f"{meter.scope[0]} is divided into MIG instances, and its energy "
                    "counter has the sum of them all. Switch MIG off to meter it: sudo nvidia-smi "
                    "-mig 0."
                )
        # NVML has no query for support: a GPU without a counter refuses the first reading.
        try:
            meter.joules()
        except OSError as error:
            meter.close()
            return NoMeter(
                reason=f"{meter.scope[0]} has no energy counter ({error}): it needs Volta or newer."
            )
        return meter

    def joules(self) -> float:
        """Returns the energy since the first call; the counter is in millijoules."""
        try:
            now = int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except self._nvml.NVMLError as error:
            raise OSError(f"NVML reports: {error}") from error
        # The counter runs since the driver was loaded.
        if self._first is None:
            self._first = now
        return (now - self._first) / 1e3

    def close(self) -> None:
        """Shuts NVML down."""
        self._nvml.nvmlShutdown()


def open_meter(root: Path = Path("/"), *, gpu: bool) -> Meter | NoMeter:
    """Returns the meter of what a measurement runs on.

    A Jetson's rails feed both its processors and its GPU. Elsewhere a GPU's meter is NVML's and a
    processor's is RAPL's.

    Args:
        root: where the machine's /sys is read; with NVML only the real machine answers.
        gpu: whether the GPU that CUDA runs on is measured, not the CPU.
    """
    if rails := find_rails(root):
        return RailMeter(rails)
    return NvmlMeter.open() if gpu else RaplMeter.open(root)

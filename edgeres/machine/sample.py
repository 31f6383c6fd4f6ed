"""One look at everything that can disturb a measurement, cheap enough to be taken during it.

Files are found once and then only read: a look costs well under a hundredth of the second that
lies between two. Counters are kept as the kernel counts them; `stability` takes differences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeres.machine.gpu import GpuProbe, GpuState
from edgeres.machine.sysfs import number_of, text_of, total_of

MAX_POLICIES = 16
"""Frequency policies that are read. x86 has one a processor, and older kernels wait 10 ms at
each that sleeps. Source: Linux 5.10, arch/x86/kernel/cpu/aperfmperf.c."""

_SLOWING = ("cpufreq", "thermal-cpufreq", "thermal-devfreq", "devfreq", "Processor")
"""How the types of cooling devices begin that cool by lowering a clock, not by turning a fan.
Source: Linux, drivers/thermal/cpufreq_cooling.c, devfreq_cooling.c, drivers/acpi/processor_thermal.c."""

_ALERT = "throttle-alert"
"""How they end on a Jetson. Source: device trees of L4T 35 and 36, `cpu-throttle-alert`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTicks:
    """Time of all processors together since boot, in the kernel's ticks."""

    total: int
    idle: int
    """Nothing to do, waiting for a disk included."""
    steal: int
    """Taken by the hypervisor for other guests."""
    own: int
    """Spent in this program and its threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuState:
    """The processors at one moment."""

    governors: tuple[str, ...] = ()
    """Names of the frequency governors, without repeats."""
    mhz: tuple[float, ...] = ()
    """Clock of each frequency policy."""
    fixed: bool | None = None
    """Whether every policy's lowest and highest clock are the same, as jetson_clocks sets them."""
    load_1min: float | None = None
    ticks: CpuTicks | None = None
    processors: int | None = None
    throttled_periods: int | None = None
    """Scheduling periods that this cgroup or one above it spent without its CPU quota."""
    throttle_events: int | None = None
    """Times that a core or package got too hot, as Intel's processors count them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The machine at one moment of a measurement; None or empty is what it does not tell."""

    at_s: float
    """Seconds since monitoring began."""
    cpu: CpuState
    memory_stall_us: int | None = None
    """Time since boot in which at least one task waited for memory."""
    swapped_pages: int | None = None
    """Pages read from and written to swap since boot."""
    temperatures_c: Mapping[str, float]
    """Temperature of each thermal zone."""
    headroom_c: float | None = None
    """Least distance of a zone to the temperature at which the kernel starts to slow it down."""
    slowed_by: tuple[str, ...] = ()
    """Cooling devices that lower a clock right now."""
    over_current_events: int | None = None
    """Times that a Jetson's supply limited its clocks."""
    power_mode: str | None = None
    """A Jetson's power mode by its number."""
    gpu: GpuState | None = None
    """None where no GPU is measured."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Zone:
    name: str
    temperature: Path
    passive_c: float | None
    """Where the kernel starts to slow the zone's devices down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The files of one machine that a sample is read from."""

    root: Path
    policies: tuple[Path, ...]
    quotas: tuple[Path, ...]
    throttle_counts: tuple[Path, ...]
    zones: tuple[_Zone, ...]
    cooling: tuple[tuple[str, Path], ...]
    over_current: tuple[Path, ...]
    gpu: GpuProbe | None

    @classmethod
    def find(cls, root: Path, gpu: GpuProbe | None = None) -> Probe:
        """Returns the probe of the machine whose files stand below `root`."""
        cpus, thermal = root / "sys/devices/system/cpu", root / "sys/class/thermal"
        return cls(
            root=root,
            policies=tuple(sorted((cpus / "cpufreq").glob("policy*"), key=_index)[:MAX_POLICIES]),
            quotas=tuple(_quotas(root)),
            throttle_counts=tuple(cpus.glob("cpu[0-9]*/thermal_throttle/*_throttle_count")),
            zones=tuple(_zones(thermal)),
            cooling=tuple(_cooling(thermal)),
            over_current=tuple((root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt")),
            gpu=gpu,
        )

    def read(self, at_s: float) -> Sample:
        """Returns the machine now.

        Args:
            at_s: seconds since monitoring began.
        """
        temperatures = tuple((zone, _celsius(zone.temperature)) for zone in self.zones)
        vmstat = _counters(self.root / "proc/vmstat", ("pswpin", "pswpout"))
        return Sample(
            at_s=at_s,
            cpu=self._cpu(),
            memory_stall_us=_stall_us(self.root),
            swapped_pages=sum(vmstat.values()) if vmstat else None,
            temperatures_c={zone.name: value for zone, value in temperatures if value is not None},
            headroom_c=min(
                (
                    zone.passive_c - value
                    for zone, value in temperatures
                    if value is not None and zone.passive_c is not None
                ),
                default=None,
            ),
            slowed_by=tuple(name for name, state in self.cooling if (number_of(state) or 0) > 0),
            over_current_events=total_of(self.over_current),
            power_mode=power_mode(self.root),
            gpu=None if self.gpu is None else self.gpu.read(),
        )

    def _cpu(self) -> CpuState:
        governors = (text_of(policy / "scaling_governor") for policy in self.policies)
        clocks = (number_of(policy / "scaling_cur_freq") for policy in self.policies)
        load = (text_of(self.root / "proc/loadavg") or "").split()
        lines = (text_of(self.root / "proc/stat") or "").splitlines()
        return CpuState(
            governors=tuple(sorted({name for name in governors if name})),
            mhz=tuple(clock / 1000 for clock in clocks if clock is not None),
            fixed=_are_fixed(self.policies),
            load_1min=float(load[0]) if load else None,
            ticks=_ticks(lines, text_of(self.root / "proc/self/stat")),
            processors=sum(line[:3] == "cpu" and line[3:4].isdigit() for line in lines) or None,
            throttled_periods=_throttled_periods(self.quotas),
            throttle_events=total_of(self.throttle_counts),
        )


def _are_fixed(policies: tuple[Path, ...]) -> bool | None:
    """Returns whether no policy may change its clock; None where none tells its range."""
    ranges = (
        (number_of(policy / "scaling_min_freq"), number_of(policy / "scaling_max_freq"))
        for policy in policies
    )
    told = [low == high for low, high in ranges if low is not None and high is not None]
    return all(told) if told else None


def power_mode(root: Path) -> str | None:
    """Returns the number of a Jetson's power mode, from the file that nvpmodel keeps it in.

    Source: one line such as `pmode:0002` or `pmode:0002 fmode:quiet`, L4T 32 to 39.
    """
    found = re.match(r"pmode:(\d+)", text_of(root / "var/lib/nvpmodel/status") or "")
    return str(int(found[1])) if found else None


def _index(path: Path) -> int:
    """Returns the number at the end of a name such as `policy12`."""
    return int("".join(letter for letter in path.name if letter.isdigit()) or 0)


def _quotas(root: Path) -> Iterator[Path]:
    """Yields the `cpu.stat` of this program's cgroup and of every one above it, v1 and v2."""
    mount = root / "sys/fs/cgroup"
    for line in (text_of(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base, own = mount / controllers, Path(path.lstrip("/"))
        folders = (base / own, *(base / parent for parent in own.parents))
        yield from (folder / "cpu.stat" for folder in folders if (folder / "cpu.stat").exists())


def _throttled_periods(quotas: tuple[Path, ...]) -> int | None:
    """Returns the sum over the cgroups that have a quota; None where none tells."""
    told = [_counters(file, ("nr_throttled",)) for file in quotas]
    numbers = [counters["nr_throttled"] for counters in told if counters]
    return sum(numbers) if numbers else None


def _counters(path: Path, names: tuple[str, ...]) -> dict[str, int]:
    """Returns those lines `name number` of a file that are asked for."""
    words = (line.split() for line in (text_of(path) or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[0] in names}


def _ticks(lines: list[str], own: str | None) -> CpuTicks | None:
    """Returns the first line of /proc/stat and fields 14 and 15 of /proc/self/stat.

    Source: proc(5). Time of guests is part of user time already, so it is left out.
    """
    if not lines or not lines[0].startswith("cpu ") or own is None:
        return None
    spent = [int(word) for word in lines[0].split()[1:9]]
    after_name = own.rpartition(")")[2].split()
    return CpuTicks(
        total=sum(spent),
        idle=spent[3] + spent[4],
        steal=spent[7],
        own=int(after_name[11]) + int(after_name[12]),
    )


def _stall_us(root: Path) -> int | None:
    """Returns the total of the `some` line of /proc/pressure/memory."""
    for line in (text_of(root / "proc/pressure/memory") or "").splitlines():
        if line.startswith("some ") and " total=" in line:
            return int(line.rpartition("=")[2])
    return None


def _zones(thermal: Path) -> Iterator[_Zone]:
    for folder in sorted(thermal.glob("thermal_zone*"), key=_index):
        name = text_of(folder / "type") or folder.name
        yield _Zone(name=name, temperature=folder / "temp", passive_c=_passive_c(folder))


def _passive_c(zone: Path) -> float | None:
    """Returns the lowest passive trip point; drivers set those not in use to zero or below."""
    trips = (
        _celsius(file.with_name(file.name.replace("_type", "_temp")))
        for file in zone.glob("trip_point_*_type")
        if text_of(file) == "passive"
    )
    return min((trip for trip in trips if trip is not None and trip > 0), default=None)


def _celsius(path: Path) -> float | None:
    """Returns a file in thousandths of a degree in degrees; None while the sensor is off."""
    millidegrees = number_of(path)
    return None if millidegrees is None else millidegrees / 1000


def _cooling(thermal: Path) -> Iterator[tuple[str, Path]]:
    """Yields name and state of each cooling device that lowers a clock."""
    for folder in sorted(thermal.glob("cooling_device*"), key=_index):
        kind = text_of(folder / "type") or ""
        if kind.startswith(_SLOWING) or kind.endswith(_ALERT):
            yield kind, folder / "cur_state"

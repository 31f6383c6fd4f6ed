"""A sample of everything that can disturb a measurement, cheap enough to be taken during it.

Files are searched once and then only read: a sample costs well under a hundredth of the second
that lies between two. Counters are kept as the kernel counts them; `stability` takes differences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeres.machine.gpu import GpuProbe, GpuState
from edgeres.machine.sysfs import number_of, temperature, text_of, total_of

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

    def since(self, earlier: CpuTicks) -> CpuTicks:
        """Returns the ticks between an earlier moment and this one."""
        return CpuTicks(
            total=self.total - earlier.total,
            idle=self.idle - earlier.idle,
            steal=self.steal - earlier.steal,
            own=self.own - earlier.own,
        )


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
    """The machine at one moment of a measurement; None or empty is what it does not report."""

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
    """Cooling devices that lower a clock at this moment."""
    over_current_events: int | None = None
    """Times that a Jetson's supply limited its clocks."""
    power_mode: str | None = None
    """A Jetson's power mode by its number."""
    gpu: GpuState | None = None
    """None where no GPU is measured."""


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
    """Type and state of each device that cools by lowering a clock; a type may repeat."""
    over_current: tuple[Path, ...]
    gpu: GpuProbe | None

    @classmethod
    def find(cls, root: Path, gpu: GpuProbe | None = None) -> Probe:
        """Returns the probe of the machine whose files stand below `root`."""
        cpus, thermal = root / "sys/devices/system/cpu", root / "sys/class/thermal"
        zones = []
        for folder in sorted(thermal.glob("thermal_zone*"), key=_index):
            trips = (
                _celsius(file.with_name(file.name.replace("_type", "_temp")))
                for file in folder.glob("trip_point_*_type")
                if text_of(file) == "passive"
            )
            # Drivers set trip points that are not in use to zero or below.
            passive = min((trip for trip in trips if trip is not None and trip > 0), default=None)
            name = text_of(folder / "type") or folder.name
            zones.append(_Zone(name=name, temperature=folder / "temp", passive_c=passive))
        devices = (
            (text_of(folder / "type") or "", folder / "cur_state")
            for folder in sorted(thermal.glob("cooling_device*"), key=_index)
        )
        return cls(
            root=root,
            # By number: as text, policy10 would come before policy2.
            policies=tuple(sorted((cpus / "cpufreq").glob("policy*"), key=_index)[:MAX_POLICIES]),
            quotas=tuple(_quotas(root)),
            throttle_counts=tuple(cpus.glob("cpu[0-9]*/thermal_throttle/*_throttle_count")),
            zones=tuple(zones),
            cooling=tuple(
                (kind, state)
                for kind, state in devices
                if kind.startswith(_SLOWING) or kind.endswith(_ALERT)
            ),
            over_current=tuple((root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt")),
            gpu=gpu,
        )

    def read(self, at_s: float) -> Sample:
        """Returns the machine now.

        Args:
            at_s: seconds since monitoring began.
        """
        temperatures = [
            (zone, celsius)
            for zone in self.zones
            # A sensor that is switched off answers with an error.
            if (celsius := _celsius(zone.temperature)) is not None
        ]
        headroom = (z.passive_c - celsius for z, celsius in temperatures if z.passive_c is not None)
        pressure = text_of(self.root / "proc/pressure/memory") or ""
        stall = re.search(r"^some .* total=(\d+)$", pressure, re.MULTILINE)
        vmstat = self.root / "proc/vmstat"
        return Sample(
            at_s=at_s,
            cpu=self._cpu(),
            memory_stall_us=int(stall[1]) if stall else None,
            swapped_pages=total_of(_counter(vmstat, name) for name in ("pswpin", "pswpout")),
            temperatures_c={zone.name: celsius for zone, celsius in temperatures},
            headroom_c=min(headroom, default=None),
            slowed_by=tuple(name for name, state in self.cooling if (number_of(state) or 0) > 0),
            over_current_events=total_of(map(number_of, self.over_current)),
            power_mode=power_mode(self.root),
            gpu=None if self.gpu is None else self.gpu.read(),
        )

    def _cpu(self) -> CpuState:
        """Returns the processors' part of a sample. Source of the ticks: proc(5)."""
        governors = (text_of(policy / "scaling_governor") for policy in self.policies)
        clocks = (number_of(policy / "scaling_cur_freq") for policy in self.policies)
        ranges = [
            (low, number_of(policy / "scaling_max_freq"))
            for policy in self.policies
            if (low := number_of(policy / "scaling_min_freq")) is not None
        ]
        fixed = [low == high for low, high in ranges if high is not None]
        load = (text_of(self.root / "proc/loadavg") or "").split()
        lines = (text_of(self.root / "proc/stat") or "").splitlines()
        own, ticks = text_of(self.root / "proc/self/stat"), None
        if lines and lines[0].startswith("cpu ") and own is not None:
            # The last two of the ten fields are guests' time, which is part of the users' already.
            spent = [int(word) for word in lines[0].split()[1:9]]
            # The program's name, in parentheses, may hold spaces: fields 14 and 15, utime and
            # stime, are counted from behind it.
            after_name = own.rpartition(")")[2].split()
            ticks = CpuTicks(
                total=sum(spent),
                idle=spent[3] + spent[4],
                steal=spent[7],
                own=int(after_name[11]) + int(after_name[12]),
            )
        return CpuState(
            governors=tuple(sorted({name for name in governors if name})),
            mhz=tuple(clock / 1000 for clock in clocks if clock is not None),
            fixed=all(fixed) if fixed else None,
            load_1min=float(load[0]) if load else None,
            ticks=ticks,
            processors=sum(line[:3] == "cpu" and line[3:4].isdigit() for line in lines) or None,
            # Any cgroup above may stop this one; one sum will do, since only its growth matters.
            throttled_periods=total_of(_counter(file, "nr_throttled") for file in self.quotas),
            throttle_events=total_of(map(number_of, self.throttle_counts)),
        )


def power_mode(root: Path) -> str | None:
    """Returns the number of a Jetson's power mode, from the file that nvpmodel keeps it in.

    Source: one line such as `pmode:0002` or `pmode:0002 fmode:quiet`, L4T 32 to 39.
    """
    mode = re.match(r"pmode:(\d+)", text_of(root / "var/lib/nvpmodel/status") or "")
    return str(int(mode[1])) if mode else None


def _index(path: Path) -> int:
    """Returns the number at the end of a name such as `policy12`."""
    return int("".join(letter for letter in path.name if letter.isdigit()) or 0)


def _quotas(root: Path) -> Iterator[Path]:
    """Yields the `cpu.stat` of this program's cgroup and of every one above it, v1 and v2."""
    mount = root / "sys/fs/cgroup"
    for line in (text_of(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        # The second version has one hierarchy, whose line names no controllers.
        if controllers and "cpu" not in controllers.split(","):
            continue
        base, own = mount / controllers, Path(path.lstrip("/"))
        # Inside a container the path is that of the host, of which its mount shows the end or none.
        folders = (base / own, *(base / parent for parent in own.parents))
        yield from (folder / "cpu.stat" for folder in folders if (folder / "cpu.stat").exists())


def _counter(path: Path, name: str) -> int | None:
    """Returns the number of the line `name number` of a file."""
    line = re.search(rf"^{name} (\d+)$", text_of(path) or "", re.MULTILINE)
    return int(line[1]) if line else None


def _celsius(path: Path) -> float | None:
    """Returns a file in thousandths of a degree in degrees; None while the sensor is off."""
    millidegrees = number_of(path)
    return None if millidegrees is None else temperature(millidegrees / 1000)

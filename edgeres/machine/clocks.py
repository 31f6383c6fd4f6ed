"""A Jetson's power mode and clocks, as `nvpmodel` and `jetson_clocks` report them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgeres.machine.gpu import jetson_gpu_folder
from edgeres.machine.sysfs import number_of

_MODE = re.compile(r"NV Power Mode: *(\S+)\s+(\d+)?")
_MODEL = re.compile(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=([^\s>]+)\s*>")

_RANGE = r"MinFreq=(\d+) +MaxFreq=(\d+) +CurrentFreq=(\d+)"
# A processor that is switched off keeps the range it had, whatever the others have.
_CPU = re.compile(rf"^cpu\d+: (?!.*Online=0).*?{_RANGE}", re.MULTILINE)
# On Jetson Linux 38 and 39 the line of the GPU begins with the name of its first cluster.
_GPU = re.compile(rf"^(?:GPU|gpu-gpc-0) +{_RANGE}", re.MULTILINE)
_EMC = re.compile(rf"^EMC +{_RANGE}", re.MULTILINE)

_MAXIMAL = "MAXN"


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerMode:
    """One of a board's power modes."""

    number: int | None
    """None where the tool does not report it."""
    name: str

    @property
    def is_maximal(self) -> bool:
        """Whether it sets no limit of its own: `MAXN` or `MAXN_SUPER`."""
        return self.name.startswith(_MAXIMAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """A clock and the range that it is left, in MHz."""

    min_mhz: float
    max_mhz: float
    now_mhz: float

    @property
    def is_fixed(self) -> bool:
        """Whether the range is one value."""
        return self.min_mhz == self.max_mhz


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """What `jetson_clocks --show` reports, or the files behind it."""

    cpu: tuple[Clock, ...]
    """Of every processor that is switched on."""
    gpu: Clock | None
    emc: Clock | None
    """The memory's; None without the permission to read it."""

    @property
    def are_fixed(self) -> bool:
        """Whether neither processors nor GPU may change their clock."""
        clocks = (*self.cpu, *((self.gpu,) if self.gpu else ()))
        return bool(clocks) and all(clock.is_fixed for clock in clocks)


def parse_power_mode(text: str) -> PowerMode | None:
    """Returns the mode that `nvpmodel -q` names, whatever it warns of before."""
    mode = _MODE.search(text)
    return PowerMode(name=mode[1], number=int(mode[2]) if mode[2] else None) if mode else None


def parse_power_modes(text: str) -> tuple[PowerMode, ...]:
    """Returns the modes of an nvpmodel.conf, in its order."""
    return tuple(PowerMode(number=int(number), name=name) for number, name in _MODEL.findall(text))


def parse_jetson_clocks(text: str) -> Clocks | None:
    """Returns what `jetson_clocks --show` reports; None where it only demands root's rights."""
    # The tool prints kHz for processors and Hz for GPU and memory.
    cpu = tuple(_clock(line.groups(), 1e3) for line in _CPU.finditer(text))
    if not cpu:
        return None
    gpu, emc = _GPU.search(text), _EMC.search(text)
    return Clocks(
        cpu=cpu,
        gpu=_clock(gpu.groups(), 1e6) if gpu else None,
        emc=_clock(emc.groups(), 1e6) if emc else None,
    )


def read_clocks(root: Path) -> Clocks | None:
    """Returns the clocks from the files that anyone may read; None where there are none."""
    # cpufreq counts in kHz, devfreq and the clock framework in Hz.
    policies = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*"))
    names = ("scaling_min_freq", "scaling_max_freq", "scaling_cur_freq")
    cpu = tuple(clock for policy in policies if (clock := _file_clock(policy, names, 1e3)))
    folder = jetson_gpu_folder(root)
    gpu = None if folder is None else _file_clock(folder, ("min_freq", "max_freq", "cur_freq"), 1e6)
    if not cpu and gpu is None:
        return None
    # Source: jetson_clocks of L4T 32 to 36, for all boards but Nano. Only root may read debugfs.
    emc = root / "sys/kernel/debug/bpmp/debug/clk/emc"
    return Clocks(cpu=cpu, gpu=gpu, emc=_file_clock(emc, ("min_rate", "max_rate", "rate"), 1e6))


def _clock(values: Iterable[int | str], per_mhz: float) -> Clock:
    low, high, now = (int(value) / per_mhz for value in values)
    return Clock(min_mhz=low, max_mhz=high, now_mhz=now)


def _file_clock(folder: Path, names: tuple[str, str, str], per_mhz: float) -> Clock | None:
    values = [value for name in names if (value := number_of(folder / name)) is not None]
    return _clock(values, per_mhz) if len(values) == len(names) else None

"""A Jetson's power mode and clocks, as `nvpmodel` and `jetson_clocks` tell them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeres.machine.gpu import jetson_gpu_folder
from edgeres.machine.sysfs import number_of

_MODE = re.compile(r"NV Power Mode: *(\S+)\s+(\d+)?")
_MODEL = re.compile(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=([^\s>]+)\s*>")
_CLOCK = re.compile(r"MinFreq=(\d+) +MaxFreq=(\d+) +CurrentFreq=(\d+)")
_GPU = re.compile(r"^(?:GPU|gpu-gpc-0) +MinFreq", re.MULTILINE)
_EMC = re.compile(r"^EMC +MinFreq", re.MULTILINE)
_CORE = re.compile(r"^cpu\d+: .*", re.MULTILINE)

_MAXIMAL = "MAXN"


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerMode:
    """One of a board's power modes."""

    number: int | None
    """None where the tool does not tell it."""
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
    """What `jetson_clocks --show` says, or the files behind it."""

    cpu: tuple[Clock, ...]
    """Of every processor that is switched on."""
    gpu: Clock | None
    emc: Clock | None
    """The memory's; None without the right to read it."""

    @property
    def are_fixed(self) -> bool:
        """Whether neither processors nor GPU may change their clock."""
        found = (*self.cpu, *((self.gpu,) if self.gpu else ()))
        return bool(found) and all(clock.is_fixed for clock in found)


def parse_power_mode(text: str) -> PowerMode | None:
    """Returns the mode that `nvpmodel -q` names, whatever it warns of before."""
    found = _MODE.search(text)
    return PowerMode(name=found[1], number=int(found[2]) if found[2] else None) if found else None


def parse_power_modes(text: str) -> tuple[PowerMode, ...]:
    """Returns the modes of an nvpmodel.conf, in its order."""
    return tuple(PowerMode(number=int(number), name=name) for number, name in _MODEL.findall(text))


def parse_jetson_clocks(text: str) -> Clocks | None:
    """Returns what `jetson_clocks --show` says; None where it only asks for root's rights.

    Processors are in kHz, GPU and memory in Hz. On Jetson Linux 38 and 39 the GPU's line begins
    with the name of its first cluster, and processors have no `Online`.
    """
    cores = [line for line in _CORE.findall(text) if "Online=0" not in line]
    if not cores:
        return None
    return Clocks(
        cpu=tuple(clock for line in cores if (clock := _clock(line, 1e3))),
        gpu=_line_clock(_GPU, text),
        emc=_line_clock(_EMC, text),
    )


def read_clocks(root: Path) -> Clocks | None:
    """Returns the clocks from the files that anyone may read; None where there are none."""
    cpu = tuple(_policy_clocks(root / "sys/devices/system/cpu/cpufreq"))
    folder = jetson_gpu_folder(root)
    gpu = None if folder is None else _file_clock(folder, ("min_freq", "max_freq", "cur_freq"), 1e6)
    if not cpu and gpu is None:
        return None
    return Clocks(cpu=cpu, gpu=gpu, emc=_emc(root))


def _line_clock(start: re.Pattern[str], text: str) -> Clock | None:
    found = start.search(text)
    return _clock(text[found.start() :], 1e6) if found else None


def _clock(text: str, per_mhz: float) -> Clock | None:
    found = _CLOCK.search(text)
    if found is None:
        return None
    low, high, now = (int(value) / per_mhz for value in found.groups())
    return Clock(min_mhz=low, max_mhz=high, now_mhz=now)


def _policy_clocks(cpufreq: Path) -> Iterator[Clock]:
    names = ("scaling_min_freq", "scaling_max_freq", "scaling_cur_freq")
    for policy in sorted(cpufreq.glob("policy*")):
        if clock := _file_clock(policy, names, 1e3):
            yield clock


def _emc(root: Path) -> Clock | None:
    """Returns the memory's clock. Source: jetson_clocks of L4T 32 to 36, for all but Nano."""
    folder = root / "sys/kernel/debug/bpmp/debug/clk/emc"
    return _file_clock(folder, ("min_rate", "max_rate", "rate"), 1e6)


def _file_clock(folder: Path, names: tuple[str, str, str], per_mhz: float) -> Clock | None:
    low, high, now = (number_of(folder / name) for name in names)
    if low is None or high is None or now is None:
        return None
    return Clock(min_mhz=low / per_mhz, max_mhz=high / per_mhz, now_mhz=now / per_mhz)

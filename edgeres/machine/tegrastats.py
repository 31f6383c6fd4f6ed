"""One line of NVIDIA's `tegrastats`, as every Jetson Linux from 32 to 39 prints it.

Fields come and go from board to board and their form changes: a load without a clock, a clock
without a load, one clock for each cluster, milliwatts with and without their unit. What a line
does not have is None or empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgeres.machine.sysfs import temperature

# `RAM 534/3964MB`, used and all.
_MEMORY = r"\b{name} (\d+)/(\d+)MB"
_CPU = re.compile(r"\bCPU \[([^\]]*)\](?:@(\d+))?")
# `2%@345` or, in older lines, `2%`; a processor that is switched off is `off`.
_CORE = re.compile(r"(\d+)%(?:@(\d+))?")
# The load is missing on Thor, the clock on Orin with L4T 36; several clusters have a list of clocks.
_ENGINE = r"\b{name} (?:(\d+)%)?(?:@\[?([\d,]+)\]?)?"
# Only a temperature ends in C: `cpu@52.968C/52.968C`, `GPU@36C`, but not `GR3D_FREQ 0%@76`.
_TEMPERATURE = re.compile(r"\b(\w+)@(-?\d+(?:\.\d+)?)C\b")
# Now and average, on Thor three values, in newer releases with their unit; `RAM 534/3964MB`, which
# ends in another unit, is no rail.
_POWER = re.compile(r"\b([A-Z]\w*) (\d+)(?:mW)?/\d+(?:mW)?(?:/\d+mW)?(?=\s|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreLoad:
    """One processor that is switched on."""

    percent: int
    """Busy time at its clock."""
    mhz: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TegraStats:
    """What one line reports."""

    ram_used_mb: int | None
    ram_total_mb: int | None
    swap_used_mb: int | None
    swap_total_mb: int | None
    cpu: tuple[CoreLoad | None, ...]
    """Every processor; None is one that is switched off."""
    emc_percent: int | None
    """Use of the memory's bandwidth."""
    emc_mhz: int | None
    gpu_percent: int | None
    gpu_mhz: tuple[int, ...]
    """Clock of each of the GPU's clusters."""
    temperatures_c: Mapping[str, float]
    """By zone; as the line has it, where two values are given the first, which is now."""
    power_mw: Mapping[str, int]
    """By rail; the first value, which is now, not the average."""


def parse_tegrastats(line: str) -> TegraStats | None:
    """Returns what a line reports; None where it is none of tegrastats'.

    Source: Jetson Linux Developer Guide, tegrastats utility, and lines of the boards themselves.
    """
    ram = re.search(_MEMORY.format(name="RAM"), line)
    if ram is None:
        return None
    swap = re.search(_MEMORY.format(name="SWAP"), line)
    cpu, cores = _CPU.search(line), []
    for text in cpu[1].split(",") if cpu else ():
        load = _CORE.fullmatch(text.strip())
        # Older lines have one clock for all processors, behind the bracket.
        mhz = load and cpu and (load[2] or cpu[2])
        cores.append(load and CoreLoad(percent=int(load[1]), mhz=int(mhz) if mhz else None))
    emc_percent, emc_mhz = _engine(line, "EMC_FREQ")
    gpu_percent, gpu_mhz = _engine(line, "GR3D_FREQ")
    return TegraStats(
        ram_used_mb=int(ram[1]),
        ram_total_mb=int(ram[2]),
        swap_used_mb=int(swap[1]) if swap else None,
        swap_total_mb=int(swap[2]) if swap else None,
        cpu=tuple(cores),
        emc_percent=emc_percent,
        emc_mhz=emc_mhz[0] if emc_mhz else None,
        gpu_percent=gpu_percent,
        gpu_mhz=gpu_mhz,
        temperatures_c={
            name: celsius
            for name, value in _TEMPERATURE.findall(line)
            if (celsius := temperature(float(value))) is not None
        },
        power_mw={name: int(value) for name, value in _POWER.findall(line)},
    )


def _engine(line: str, name: str) -> tuple[int | None, tuple[int, ...]]:
    """Returns load and clocks of `10%`, `10%@624`, `@1575`, `10%@[305,305]` or `@[305,305]`."""
    engine = re.search(_ENGINE.format(name=name), line)
    if engine is None:
        return None, ()
    percent, clocks = engine.groups()
    mhz = tuple(int(clock) for clock in (clocks or "").split(",") if clock)
    return (None if percent is None else int(percent)), mhz

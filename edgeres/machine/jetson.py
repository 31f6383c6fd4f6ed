"""A Jetson board: what it is, what JetPack put on it, and how its power is set."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgeres.installation import is_installed
from edgeres.machine.clocks import (
    Clocks,
    PowerMode,
    parse_jetson_clocks,
    parse_power_mode,
    parse_power_modes,
    read_clocks,
)
from edgeres.machine.commands import CommandRunner, run_command
from edgeres.machine.l4t import cuda_version, jetpack_version, l4t_version, packages_of
from edgeres.machine.rails import all_rails
from edgeres.machine.sample import Probe, power_mode
from edgeres.machine.sysfs import fields_of, mib_of, text_of
from edgeres.machine.tegrastats import TegraStats, parse_tegrastats

_TENSORRT_PACKAGES = ("libnvinfer10", "libnvinfer11", "libnvinfer8", "tensorrt")
"""Debian packages with TensorRT's version. Source: JetPack 5 to 7."""

TOOL_S = 10.0
"""Time that a tool has. Chosen: jetson_clocks is a shell script that reads some hundred files."""

STATS_S = 1.5
"""Time for two lines of tegrastats at its 500 ms; it never ends by itself."""

_PYTHON_PACKAGES = ("tensorrt", "pycuda")

ModuleVersion = Callable[[str], "str | None"]
"""From a Python module to its version, `unknown` where it has none; None if not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JetsonBoard:
    """A board at one moment; None or empty is what it does not report."""

    model: str
    """Name in the device tree, such as `NVIDIA Jetson Orin NX Engineering Reference Developer Kit`."""
    l4t: str | None
    """Version of Jetson Linux, such as `36.4.3`."""
    jetpack: str | None
    cuda: str | None
    """Version of the CUDA toolkit."""
    tensorrt: str | None
    """Version of the installed libraries."""
    modules: Mapping[str, str | None]
    """Versions of `tensorrt` and `pycuda` that this Python sees."""
    power_mode: PowerMode | None
    power_modes: tuple[PowerMode, ...]
    """Those that the board has."""
    clocks: Clocks | None
    stats: TegraStats | None
    """One line of tegrastats."""
    temperatures_c: Mapping[str, float]
    headroom_c: float | None
    """Least distance of a zone to the temperature at which the kernel lowers clocks."""
    watts: Mapping[str, float]
    """Power of each rail."""
    swap_mib: int | None
    memory_mib: int | None
    memory_available_mib: int | None


def is_jetson(root: Path = Path("/")) -> bool:
    """Returns whether this is a Jetson, by its release file or its device tree."""
    model = text_of(root / "proc/device-tree/model") or ""
    return (root / "etc/nv_tegra_release").exists() or "Jetson" in model


def module_version(name: str) -> str | None:
    """Returns the version of a module, without importing it: TensorRT's takes seconds."""
    if not is_installed(name):
        return None
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def read_board(
    root: Path = Path("/"),
    *,
    run: CommandRunner = run_command,
    module: ModuleVersion = module_version,
) -> JetsonBoard | None:
    """Returns what a board reports of itself; None where this is no Jetson.

    Args:
        root: where the machine's files are read.
        run: runs `nvpmodel`, `jetson_clocks` and `tegrastats`, each of which may be missing.
        module: returns the version of a Python module.
    """
    if not is_jetson(root):
        return None
    modes = parse_power_modes(text_of(root / "etc/nvpmodel.conf") or "")
    mode, number = parse_power_mode(run(["nvpmodel", "-q"], TOOL_S) or ""), power_mode(root)
    if mode is None and number is not None:
        # Without the tool, as in a container: the number that it keeps, by the board's own name.
        unnamed = PowerMode(number=int(number), name=f"mode {number}")
        mode = next((mode for mode in modes if mode.number == unnamed.number), unnamed)
    # tegrastats prints until it is ended, so this always takes the time that it is given.
    lines = (run(["tegrastats", "--interval", "500"], STATS_S) or "").splitlines()
    # The first line's loads are of too short a time, and the last one may be cut off.
    stats = [parsed for line in lines if (parsed := parse_tegrastats(line))]
    watts = {}
    for rail in all_rails(root):
        # A chip may lose one channel between two readings.
        with suppress(OSError):
            watts[rail.name] = rail.watts()
    packages = packages_of(root, _TENSORRT_PACKAGES)
    sample, memory = Probe.find(root).read(0.0), fields_of(root / "proc/meminfo")
    return JetsonBoard(
        model=text_of(root / "proc/device-tree/model") or "Jetson",
        l4t=l4t_version(root),
        jetpack=jetpack_version(root),
        cuda=cuda_version(root),
        tensorrt=next((packages[name] for name in _TENSORRT_PACKAGES if name in packages), None),
        modules={name: module(name) for name in _PYTHON_PACKAGES},
        power_mode=mode,
        power_modes=modes,
        # The tool works for root alone; the files have all but the memory's clock for everybody.
        clocks=parse_jetson_clocks(run(["jetson_clocks", "--show"], TOOL_S) or "")
        or read_clocks(root),
        stats=stats[-1] if stats else None,
        temperatures_c=sample.temperatures_c,
        headroom_c=sample.headroom_c,
        watts=watts,
        swap_mib=mib_of(memory, "SwapTotal"),
        memory_mib=mib_of(memory, "MemTotal"),
        memory_available_mib=mib_of(memory, "MemAvailable"),
    )

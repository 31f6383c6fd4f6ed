"""What people, drivers and device trees call a board, to its name among the specifications.

A name matches a board whose words contain all of its own: `Orin Nano 8GB` is `orin-nano-8`. Where
several match, none is chosen; what is a power mode is not part of a board's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from edgeres.errors import ConfigError
from edgeres.machine.boards import Board, boards, find_board
from edgeres.machine.machine import Machine
from edgeres.names import nearest

_SILENT = frozenset(
    {"nvidia", "jetson", "tesla", "geforce", "developer", "kit", "devkit", "module", "gb"}
)
_MODE = re.compile(r"\d+w(_\w+)?|maxn(_\w+)?", re.IGNORECASE)

_GPUS: Mapping[str, str] = {
    r"T4": "t4",
    r"A2": "a2",
    r"A10": "a10",
    r"A30": "a30",
    r"A100-PCIE-40GB": "a100-pcie-40gb",
    r"A100 80GB PCIe": "a100-pcie-80gb",
    r"A100-SXM4-80GB": "a100-sxm-80gb",
    r"L4": "l4",
    r"L40S": "l40s",
    r"GeForce RTX 3060": "rtx-3060",
    r"GeForce RTX 3090": "rtx-3090",
    r"GeForce RTX 4070": "rtx-4070",
    r"GeForce RTX 4090": "rtx-4090",
    r"GeForce RTX 5090": "rtx-5090",
    r"H100 PCIe": "h100-pcie",
    r"H100 80GB HBM3": "h100-sxm",
    r"H200": "h200-sxm",
    r"V100-SXM2-(16|32)GB": "v100-sxm",
}
"""Names that the driver reports behind `NVIDIA` or `Tesla`. Source: NVIDIA driver README, appendix
A, supported GPU products."""

_JETSONS: tuple[tuple[str, int, str], ...] = (
    ("AGX Orin", 40_000, "agx-orin-64"),
    ("AGX Orin", 0, "agx-orin-32"),
    ("Orin NX", 10_000, "orin-nx-16"),
    ("Orin NX", 0, "orin-nx-8"),
    ("Orin Nano", 5_000, "orin-nano-8"),
    ("Orin Nano", 0, "orin-nano-4"),
    ("Xavier NX", 0, "xavier-nx"),
    ("AGX Xavier", 0, "agx-xavier"),
    ("Jetson-AGX", 0, "agx-xavier"),
    ("Thor", 0, "thor"),
    ("TX2", 0, "tx2"),
    ("Nano", 0, "nano"),
)
"""Part of the device tree's model, memory in MiB from which, and the board; the first that fits."""


def board_called(name: str, power_mode: str | None = None) -> Board:
    """Returns the board that a name means, in a power mode; None takes the one it is shipped in.

    Raises:
        ConfigError: no board or several have that name, or it has no such mode.
    """
    if name.lower() in boards():
        return find_board(name, power_mode)
    if (mode := _MODE.search(name)) and (board := _MODE.sub("", name).strip(" -_,")):
        raise ConfigError(
            f"'{mode[0]}' in --board '{name}' is a power mode. Pass --board '{board}' "
            f"--power-mode {mode[0]}."
        )
    if reported := _gpu(name):
        return find_board(reported, power_mode)
    words = _words(name)
    named = {each: _words(each) for each in boards()}
    # A title has more words: the carrier's, and the module's number.
    titled = {each: own | _words(boards()[each][0].title) for each, own in named.items()}
    matching = [each for each in boards() if words and words <= titled[each]]
    exact = [each for each in matching if words == named[each]]
    if len(chosen := exact or matching) == 1:
        return find_board(chosen[0], power_mode)
    if matching:
        raise ConfigError(f"'{name}' may be {' or '.join(matching)}. Pass one of them.")
    # Most of its words, and as few others as possible.
    shared = {each: len(own & words) for each, own in named.items()}
    near = [each for each, own in named.items() if 2 * shared[each] > len(own)]
    if near and not nearest(name.lower(), boards()):
        best = max(near, key=lambda each: (shared[each], -len(named[each])))
        raise ConfigError(
            f"No board '{name}'. Did you mean '{best}'? All of them: edgeres estimate --list-boards."
        )
    return find_board(name, power_mode)


def board_of(
    machine: Machine, power_mode: str | None = None, gpu_max_mhz: float | None = None
) -> Board | None:
    """Returns which board in which power mode a machine is; None where that is not known.

    Args:
        machine: this one, or another.
        power_mode: NVIDIA's name of a Jetson's mode, such as `MODE_15W` or `MAXN`.
        gpu_max_mhz: highest clock that the present settings allow.
    """
    if machine.board is None:
        names = {_gpu(name) for name in machine.gpus}
        # Which of several GPUs ran is not known here.
        (name,) = names if len(names) == 1 else (None,)
        return None if name is None else find_board(name)
    name = jetson_named(machine.board, machine.memory_mib)
    if name is None:
        return None
    modes = boards()[name]
    if len(modes) == 1:
        return modes[0]
    by_clock = [m for m in modes if gpu_max_mhz and abs(m.gpu_mhz / gpu_max_mhz - 1) < 0.02]
    named = list(_named(modes, power_mode))
    # A mode's clock may be limited further, so the name counts more.
    both = [mode for mode in named if mode in by_clock]
    if both or named:
        return (both or named)[0]
    return by_clock[0] if len({(m.sms, m.memory_gbps) for m in by_clock}) == 1 else None


def jetson_named(model: str, memory_mib: int | None) -> str | None:
    """Returns which Jetson a device tree's model is; None where that is not known.

    Args:
        model: of the device tree, which modules of several sizes share.
        memory_mib: that the kernel manages.
    """
    memory = memory_mib or 0
    return next((name for part, least, name in _JETSONS if part in model and memory >= least), None)


def _named(modes: Iterable[Board], power_mode: str | None) -> Iterable[Board]:
    """Returns the modes of that name, else those of its watts: `MODE_30W_2CORE` is `30W_ALL`'s."""
    name = (power_mode or "").upper().removeprefix("MODE_")
    watts = re.match(r"\d+W", name)
    exact = [mode for mode in modes if mode.power_mode.upper() == name]
    return exact or [mode for mode in modes if watts and mode.power_mode.startswith(watts[0])]


def _gpu(name: str) -> str | None:
    bare = re.sub(r"^(NVIDIA|Tesla) ", "", name, flags=re.IGNORECASE)
    known = (board for gpu, board in _GPUS.items() if re.fullmatch(gpu, bare, re.IGNORECASE))
    return next(known, None)


def _split(name: str) -> list[str]:
    """Returns the words and numbers of a name: `RTX4090` has two, and `L40S` is no `L40`."""
    parts = re.findall(r"[a-z]+|\d+s\b|\d+", name.lower())
    return [part for part in parts if part not in _SILENT]


def _words(name: str) -> frozenset[str]:
    return frozenset(_split(name))

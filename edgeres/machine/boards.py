"""Specifications of boards and GPUs by power mode: what an estimate is computed from.

A power mode sets the number of multiprocessors that are on and both clocks, so a board
is described only together with its mode. `boards.csv` beside this file has every row's source.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeres.errors import ConfigError
from edgeres.names import nearest

_FILE = Path(__file__).with_name("boards.csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A board or GPU in one power mode."""

    name: str
    """As `--board` takes it, such as `orin-nano-8`."""
    title: str
    power_mode: str
    """NVIDIA's name for it, such as `15W` or `MAXN`; `default` where there is one alone."""
    is_default: bool
    """Whether the board starts in this mode as it is shipped."""
    compute_capability: str
    sms: int
    """Streaming multiprocessors that are on."""
    gpu_mhz: float
    """Highest clock of the GPU."""
    memory_gbps: float
    """Bandwidth of the memory in 10^9 bytes a second."""
    l2_mib: float
    power_w: float
    """What the mode, or the card, may draw."""
    source: str

    @property
    def is_jetson(self) -> bool:
        """Whether GPU and CPU share one memory, so that an image crosses no bus."""
        return self.title.startswith("Jetson")


@functools.cache
def boards() -> Mapping[str, tuple[Board, ...]]:
    """Returns every board's power modes by its name."""
    by_name: dict[str, list[Board]] = {}
    with _FILE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            board = Board(
                name=row["name"],
                title=row["title"],
                power_mode=row["power_mode"],
                is_default=row["is_default"] == "1",
                compute_capability=row["compute_capability"],
                sms=int(row["sms"]),
                gpu_mhz=float(row["gpu_mhz"]),
                memory_gbps=float(row["memory_gbps"]),
                l2_mib=float(row["l2_mib"]),
                power_w=float(row["power_w"]),
                source=row["source"],
            )
            by_name.setdefault(board.name, []).append(board)
    return {name: tuple(modes) for name, modes in by_name.items()}


def find_board(name: str, power_mode: str | None = None) -> Board:
    """Returns a board in a power mode; None takes the mode that it is shipped in.

    Raises:
        ConfigError: no such board, or it has no such mode.
    """
    modes = boards().get(name.lower())
    if modes is None:
        raise ConfigError(
            f"No board '{name}'.{nearest(name.lower(), boards())} Available: "
            f"{', '.join(boards())}. Their power modes: edgeres estimate --list-boards."
        )
    if power_mode is None:
        return next(board for board in modes if board.is_default)
    names = {board.power_mode.upper(): board for board in modes}
    # As nvpmodel prints it, and as its file has it.
    wanted = re.sub(r"[ -]", "_", power_mode.upper()).removeprefix("MODE_")
    if wanted not in names:
        hint = nearest(wanted, names)
        raise ConfigError(
            f"{name} has no power mode '{power_mode}'.{hint} "
            f"Available: {', '.join(board.power_mode for board in modes)}."
        )
    return names[wanted]

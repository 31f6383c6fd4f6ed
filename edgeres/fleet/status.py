"""What a board reports of itself, and who measures on it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from edgeres.fleet.lock import holder
from edgeres.machine.doctor import examine_machine
from edgeres.targets.base import targets
from edgeres.version import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardFacts:
    """What a machine reports of itself; None is what it does not have."""

    edgeres: str
    python: str
    model: str | None
    """Of the board, or of the processor where it is no board."""
    gpus: tuple[str, ...]
    jetpack: str | None
    tensorrt: str | None
    power_mode: str | None
    unavailable: tuple[str, ...]
    """Capabilities of edgeres that do not work there."""
    advice: tuple[str, ...]
    """What to install or set first."""
    obstacles: Mapping[str, str]
    """Why a target's engines cannot be built and run there, by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardStatus:
    """A board's answer."""

    holder: str | None
    """Who measures there, and since what; None: nobody."""
    facts: BoardFacts


def board_status() -> BoardStatus:
    """Returns the status of this machine.

    Raises:
        ArtifactError: the board's lock cannot be opened.
    """
    report, other = examine_machine(), holder()
    board = report.board
    return BoardStatus(
        holder=None if other is None else f"{other.name}: {other.command} (process {other.pid})",
        facts=BoardFacts(
            edgeres=__version__,
            python=".".join(map(str, sys.version_info[:3])),
            model=report.machine.cpu if board is None else board.model,
            gpus=report.machine.gpus,
            jetpack=report.machine.jetpack,
            tensorrt=None if board is None else board.tensorrt,
            power_mode=None if board is None or board.power_mode is None else board.power_mode.name,
            unavailable=tuple(each.name for each in report.capabilities if not each.available),
            advice=tuple(each.sentence for each in report.advice if each.blocking),
            obstacles={
                name: reason
                for name, target in targets().items()
                if (reason := target.obstacle()) is not None
            },
        ),
    )

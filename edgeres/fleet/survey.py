"""What the boards of an inventory are, and who measures on them."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from edgeres.errors import EdgeresError
from edgeres.fleet.inventory import Board
from edgeres.fleet.lock import holder
from edgeres.fleet.ssh import ssh_connection
from edgeres.machine.doctor import examine_machine
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


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardStatus:
    """A board's answer."""

    holder: str | None
    """Who measures there, and since what; None: nobody."""
    facts: BoardFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyedBoard:
    """A board of the inventory, as it is now."""

    name: str
    host: str
    tags: tuple[str, ...]
    reachable: bool
    holder: str | None
    facts: BoardFacts | None
    """None where it was not reached."""
    problem: str | None
    """Why it was not reached, or what of it is not as the inventory wants it."""


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
        ),
    )


def survey_board(board: Board) -> SurveyedBoard:
    """Returns a board as it is now; one that cannot be reached is no error."""
    status, problem = None, None
    try:
        with ssh_connection(board.ssh) as connection:
            status = connection.request(("boards", "status", "--json"), BoardStatus)
    except EdgeresError as error:
        problem = str(error)
    if status is not None and board.power_mode not in {None, status.facts.power_mode}:
        actual = status.facts.power_mode or "unknown"
        problem = f"Its power mode is {actual}; the inventory wants {board.power_mode}."
    return SurveyedBoard(
        name=board.name,
        host=board.host,
        tags=board.tags,
        reachable=status is not None,
        holder=None if status is None else status.holder,
        facts=None if status is None else status.facts,
        problem=problem,
    )

"""What the boards of an inventory are, and who measures on them."""

from __future__ import annotations

from dataclasses import dataclass

from edgeres.errors import EdgeresError
from edgeres.fleet.inventory import Board
from edgeres.fleet.ssh import ssh_connection
from edgeres.fleet.status import BoardFacts, BoardStatus


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


def wrong_power_mode(board: Board, status: BoardStatus) -> str | None:
    """Returns what of a board's power mode is not as the inventory wants it; else None."""
    if board.power_mode in {None, status.facts.power_mode}:
        return None
    actual = status.facts.power_mode or "unknown"
    return f"Its power mode is {actual}; the inventory wants {board.power_mode}."


def survey_board(board: Board) -> SurveyedBoard:
    """Returns a board as it is now; one that cannot be reached is no error."""
    status, problem = None, None
    try:
        with ssh_connection(board.ssh) as connection:
            status = connection.status()
    except EdgeresError as error:
        problem = str(error)
    if status is not None:
        problem = wrong_power_mode(board, status)
    return SurveyedBoard(
        name=board.name,
        host=board.host,
        tags=board.tags,
        reachable=status is not None,
        holder=None if status is None else status.holder,
        facts=None if status is None else status.facts,
        problem=problem,
    )

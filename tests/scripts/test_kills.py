"""scripts/kills.py finds a result that is lost, and nothing where each stays whole."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from kills import Command, losses, run

from edgeres.files import atomic_write

PARTS = ('{"a": [', "1, 2", "]}")


def write_whole(words: tuple[str, ...]) -> None:
    """Writes as edgeres does."""
    with atomic_write(Path(words[0])) as temporary, temporary.open("w") as file:
        for part in PARTS:
            time.sleep(0.02)
            file.write(part)
            file.flush()


def write_in_place(words: tuple[str, ...]) -> None:
    """Has a fault: the old file is gone before the new one is there."""
    with Path(words[0]).open("w") as file:
        for part in PARTS:
            time.sleep(0.02)
            file.write(part)
            file.flush()


def write_at_once(words: tuple[str, ...]) -> None:
    """Leaves alone what others have left."""
    Path(words[0]).write_text("{}")


def check(folder: Path) -> None:
    """Reads the result."""
    json.loads((folder / "made.json").read_text())


@pytest.mark.parametrize(("program", "is_whole"), [(write_whole, True), (write_in_place, False)])
def test_a_writer_in_place_is_found(
    program: Callable[[tuple[str, ...]], object], is_whole: bool, tmp_path: Path
) -> None:
    """A file that is written where it stands is cut off by some of the kills."""
    command = Command(words=(str(tmp_path / "made.json"),), check=check, program=program)
    counts, faults = run({"write": command}, tmp_path, 12, Random(1))
    assert sum(n for (_, kind), n in counts.items() if kind != "was done") == 12
    assert (not faults) == is_whole, faults


def test_what_is_left_over_is_found(tmp_path: Path) -> None:
    """A temporary file after a run that was left alone: the first one here."""
    command = Command(words=(str(tmp_path / "made.json"),), check=check, program=write_at_once)
    (tmp_path / ".made.json.0123456789abcdef.tmp").touch()
    _, (fault,) = run({"write": command}, tmp_path, 1, Random(1))
    assert ".made.json.0123456789abcdef.tmp is left" in fault


def test_what_another_command_left_is_its_own_to_remove(tmp_path: Path) -> None:
    """Its next run does; the rest counts against the command that has just run."""
    (tmp_path / "made.json").write_text("{}")
    command = Command(words=(), check=check)
    own, other = (tmp_path / f".{name}.0123456789abcdef.tmp" for name in ("own", "other"))
    for path in (own, other):
        path.touch()
    (fault,) = losses("write", command, tmp_path, ended=False, of_others={other})
    assert fault == f"write: {own.name} is left"
    assert len(losses("write", command, tmp_path, ended=False)) == 2

"""scripts/kills.py finds a result that is lost, and nothing where each stays whole."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random

import pytest
from kills import Command, run

WHOLE = """
import sys, time
from pathlib import Path
from edgeres.files import atomic_write
with atomic_write(Path(sys.argv[1])) as temporary, temporary.open("w") as file:
    for part in ('{"a": [', '1, 2', ']}'):
        time.sleep(0.1); file.write(part); file.flush()
"""

IN_PLACE = """
import sys, time
with open(sys.argv[1], "w") as file:
    for part in ('{"a": [', '1, 2', ']}'):
        time.sleep(0.1); file.write(part); file.flush()
"""


def check(folder: Path) -> None:
    """Reads the result."""
    json.loads((folder / "made.json").read_text())


@pytest.mark.parametrize(("program", "code"), [(WHOLE, 0), (IN_PLACE, 1)])
def test_a_writer_in_place_is_found(
    program: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is written where it stands is cut off by some of the kills."""
    command = Command(
        words=(str(tmp_path / "made.json"),),
        check=check,
        program=(sys.executable, "-c", program),
    )
    assert run({"write": command}, tmp_path, 8, Random(1)) == code
    assert ("0 losses" in capsys.readouterr().out) == (code == 0)


def test_what_is_left_over_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A temporary file after a run that was left alone: the first one here."""
    program = "import sys; from pathlib import Path; Path(sys.argv[1]).write_text('{}')"
    command = Command(
        words=(str(tmp_path / "made.json"),),
        check=check,
        program=(sys.executable, "-c", program),
    )
    (tmp_path / ".made.json.0123456789abcdef.tmp").touch()
    assert run({"write": command}, tmp_path, 1, Random(1)) == 1
    assert ".made.json.0123456789abcdef.tmp is left" in capsys.readouterr().out

"""Places that cannot be written to: a sentence before the work where possible, and no debris."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from commands import refusal
from digits import Digits

WRITES = {
    "export": "export resnet20 --weights {weights} --preset digits -o {out}/made",
    "calibrate": "calibrate {model} --data {train} --samples 20 -o {out}/made",
    "build-engine": "build-engine {model} --calibration {table} -o {out}/made",
}
"""A line of every command that writes a file."""


@pytest.mark.parametrize("line", WRITES.values(), ids=WRITES)
def test_an_output_folder_that_does_not_exist(line: str, digits: Digits, tmp_path: Path) -> None:
    """It is not made in silence: a typo would scatter files."""
    out = tmp_path / "nowhere"
    assert refusal(*digits.words(line, out=out)) == (
        f"{out / 'made'} was not written: the folder {out} does not exist. Create it first."
    )


@pytest.mark.parametrize("line", WRITES.values(), ids=WRITES)
def test_an_output_below_a_file(line: str, digits: Digits, tmp_path: Path) -> None:
    """A place that nobody may write to, not even root."""
    out = tmp_path / "file"
    out.touch()
    said = f"{out / 'made'} was not written: Not a directory. Choose a path that you may"
    assert refusal(*digits.words(line, out=out)).startswith(said)


@pytest.mark.parametrize("line", WRITES.values(), ids=WRITES)
def test_an_output_that_is_no_file(line: str, digits: Digits, tmp_path: Path) -> None:
    """A folder or a pipe is not replaced: `-o /dev/null` must leave the device there."""
    (tmp_path / "a" / "made").mkdir(parents=True)
    assert "was not written: Is a directory." in refusal(*digits.words(line, out=tmp_path / "a"))
    (tmp_path / "b").mkdir()
    os.mkfifo(tmp_path / "b" / "made")
    assert "was not written: It is a device or pipe, not a file." in refusal(
        *digits.words(line, out=tmp_path / "b")
    )
    assert (tmp_path / "b" / "made").is_fifo()
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["made"]

"""Places that cannot be written to: a sentence before the work where possible, and no debris."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from commands import passed, refusal
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


@pytest.mark.parametrize("line", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("had", [False, True], ids=["first", "again"])
def test_a_disk_that_runs_full(
    had: bool, line: str, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a file is written and the rest refused; what stood there before still stands."""
    if had:
        passed(*digits.words(line, out=tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def filling(self: Path, content: str | bytes, **options: object) -> int:
        with self.open("wb") as file:
            file.write(content[: len(content) // 2].encode() if isinstance(content, str) else b"a")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", filling)
    monkeypatch.setattr(Path, "write_text", filling)
    said = refusal(*digits.words(line, out=tmp_path))
    monkeypatch.undo()
    assert "was not written: no space left on the disk. Free some and run again." in said
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

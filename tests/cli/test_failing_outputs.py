"""Every output of every command, where it cannot be written: code 1, one sentence, the old file.

The cases come from the commands themselves: a new command or output joins them.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from commands import refusal, run
from digits import Digits
from test_json_output import LINES, words_of
from test_output_paths import FOLDERS, OUTPUTS

from edgeres.cli import main

NOBODY = 65534

READ_EVERYTHING = 2
"""CAP_DAC_READ_SEARCH. Source: Linux, include/uapi/linux/capability.h."""

CAPABILITIES_VERSION = 0x20080522
"""_LINUX_CAPABILITY_VERSION_3, with two words of 32 bits. Source: the same."""

WITHOUT = {("build-engine", "timing_cache"): "TensorRT's builder writes it"}
"""Outputs that need what is not on every machine."""

BESIDE = {("bench", "loadgen_logs"): "--scenario single-stream --loadgen-seconds 1"}
"""Options that an output needs."""

OLD = b"old"
"""What stands where the output goes."""

CASES = [
    (name, str(parameter.name), parameter.opts[0])
    for name, command in main.commands.items()
    for parameter in command.params
    if not getattr(parameter, "hidden", False)
    and (parameter.name in OUTPUTS or (name, parameter.name) in {*FOLDERS, ("bench", "history")})
    and (name, parameter.name) not in WITHOUT
]
"""Command, parameter and option of each output."""


def quick_words_of(name: str, digits: Digits, folder: Path) -> list[str]:
    """Returns a command's words that succeed; ranges are not collected where a table does."""
    words = words_of(name, digits, folder)
    if name == "build-engine":
        at = words.index("--calib-data")
        words[at : at + 2] = ["--calibration", str(digits.table)]
    return words


def line_of(case: tuple[str, str, str], place: Path, digits: Digits, folder: Path) -> list[str]:
    """Returns a command's words with an output in `place`, where an old file is made."""
    name, parameter, option = case
    made = place / ("new" if (name, parameter) in FOLDERS else "old")
    # A history is read before: one without a run.
    (place / "old").write_bytes(b"" if parameter == "history" else OLD)
    words = quick_words_of(name, digits, folder)
    if name == "compare":
        # Its page is of a history alone: one of a single run.
        run_of = json.loads((folder / "a.new.json").read_text())
        (history := folder / "runs.jsonl").write_text(json.dumps(run_of) + "\n")
        words = ["compare", "--history", str(history)]
    if option in words:
        words[words.index(option) + 1] = str(made)
        return words
    return [*words, *BESIDE.get((name, parameter), "").split(), option, str(made)]


def contents(folder: Path) -> dict[str, bytes]:
    """Returns all files below a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Yields a small file system of its own, where one can be mounted."""
    (disk := folder / "disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_disk_without_a_byte(case: tuple[str, str, str], digits: Digits, tmp_path: Path) -> None:
    """Files can still be made there: the work is done, and what it made does not fit."""
    with mounted(tmp_path, "size=16k") as disk:
        words = line_of(case, disk, digits, tmp_path)
        with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        before = contents(disk)
        ended = run(*words)
        assert ended.exit_code == 1
        (sentence,) = [line for line in ended.stderr.splitlines() if line.startswith("Error")]
        assert "was not written: no space left on the disk. Free some and run again." in sentence
        assert contents(disk) == before


@pytest.mark.parametrize("case", [case for case in CASES if case[1] != "history"], ids=str)
def test_a_disk_without_a_name(case: tuple[str, str, str], digits: Digits, tmp_path: Path) -> None:
    """No file can be made there, but an old one grows; seen before any work."""
    with mounted(tmp_path, "size=1m,nr_inodes=2") as disk:
        said = refusal(*line_of(case, disk, digits, tmp_path))
        assert "was not written: no space left on the disk. Free some and run again." in said
        assert contents(disk) == {str(disk / "old"): OLD}


@contextmanager
def another_user() -> Iterator[None]:
    """Lets this thread write as another user does, and read as before; root's way back is kept.

    Python itself often lies where another user may not look.
    """
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0)
    # Effective, permitted and inheritable, twice: the lower and the higher half.
    held = (ctypes.c_uint32 * 6)()
    libc.setfsuid(NOBODY)
    try:
        assert libc.capget(header, held) == 0
        held[0] |= 1 << READ_EVERYTHING
        assert libc.capset(header, held) == 0
        yield
    finally:
        libc.setfsuid(0)


@pytest.mark.skipif(sys.platform != "linux", reason="a thread's user is Linux's")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_another_user(case: tuple[str, str, str], digits: Digits, tmp_path: Path) -> None:
    """Whose folder it is not: before any work."""
    (place := tmp_path / "theirs").mkdir()
    words = line_of(case, place, digits, tmp_path)
    (place / "old").chmod(0o444)
    place.chmod(0o555)
    before = contents(place)
    with another_user():
        said = refusal(*words)
    assert "Permission denied" in said
    assert contents(place) == before


def test_the_other_user_is_one(tmp_path: Path) -> None:
    """What the test above rests on: nothing can be made, replaced or removed, and then it can."""
    (tmp_path / "file").touch(0o644)
    tmp_path.chmod(0o555)
    with another_user():
        for attempt in (
            (tmp_path / "new").touch,
            (tmp_path / "file").unlink,
            lambda: (tmp_path / "file").rename(tmp_path / "other"),
        ):
            with pytest.raises(PermissionError):
                attempt()
    tmp_path.chmod(0o755)
    (tmp_path / "file").unlink()


@contextmanager
def stdout_is(path: str | None) -> Iterator[None]:
    """Lets the process's standard output be a file, or closed."""
    kept = os.dup(1)
    try:
        if path is None:
            os.close(1)
        else:
            os.dup2(opened := os.open(path, os.O_WRONLY), 1)
            os.close(opened)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@pytest.mark.parametrize("path", [None, "/dev/full"], ids=["closed", "full"])
@pytest.mark.parametrize("name", [name for name in LINES if name != "demo"])
def test_standard_output_that_takes_nothing(
    name: str,
    path: str | None,
    digits: Digits,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A result that nobody received is no success. The demo's is shown as others are, after 10 s."""
    words = [*quick_words_of(name, digits, tmp_path), "--json"]
    monkeypatch.setattr(sys, "stdout", sys.__stdout__)
    with stdout_is(path), pytest.raises(SystemExit) as ended:
        main(args=words, prog_name="edgeres")
    assert ended.value.code == 1
    (sentence,) = [line for line in capfd.readouterr().err.splitlines() if line[:5] == "Error"]
    assert "The result was not written to stdout, or not all of it: " in sentence


def test_no_output_is_left_out() -> None:
    """Each command that has one, and no exception that is none."""
    known = {
        (name, parameter.name) for name, each in main.commands.items() for parameter in each.params
    }
    assert set(WITHOUT) <= known
    assert len({name for name, *_ in CASES}) == 10

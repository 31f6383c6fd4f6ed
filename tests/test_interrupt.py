"""Ctrl-C in the middle of the work: exit code 130, one sentence, and no file that was not there."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import refusal
from digits import Digits
from PIL import Image

from edgeres import __main__ as entry

IMAGES = 512
SIDE = 1500
"""Decoding an image of this size takes tens of milliseconds, all of them half a minute."""

GUARD_S = 60
"""After so long, something hangs."""

_START = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from edgeres.__main__ import run; run()"
)
"""Runs the command line; where the tests run in the background, SIGINT would be ignored."""

_PROGRESS = re.compile(rb"[1-9]\d*/512")

LINES = {
    "calibrate": "calibrate {model} --data {slow} -o {out}/made",
    "build-engine": "build-engine {model} --calib-data {slow} -o {out}/made",
    "bench": "bench {engine} --reference {model} --data {slow}",
}


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled images that take long to read: one large file under many names."""
    folder = tmp_path_factory.mktemp("slow")
    Image.linear_gradient("L").resize((SIDE, SIDE)).convert("RGB").save(folder / "0.png")
    rows = ["file,class_index", "0.png,0"]
    for index in range(1, IMAGES):
        os.link(folder / "0.png", folder / f"{index}.png")
        rows.append(f"{index}.png,{index % 10}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


@contextmanager
def started(words: list[str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Yields a running command whose standard error is a terminal, and that terminal's end.

    The command is ended on every way out.
    """
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _START, *words], stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    try:
        yield process, terminal
    finally:
        process.kill()
        process.communicate()
        os.close(terminal)


def read_until(terminal: int, pattern: re.Pattern[bytes]) -> bytes:
    """Returns what the terminal showed until the pattern came, or until its other end closed."""
    shown, end = b"", time.monotonic() + GUARD_S
    while not pattern.search(shown):
        assert time.monotonic() < end, shown
        try:
            part = os.read(terminal, 4096)
        except OSError:
            part = b""
        if not part:
            break
        shown += part
    return shown


def contents(folder: Path) -> dict[str, bytes]:
    """Returns every file of a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", LINES)
def test_ctrl_c_leaves_nothing_behind(
    name: str, digits: Digits, slow: Path, tmp_path: Path
) -> None:
    """The progress bar shows that the work runs; then it ends, long before it would be done."""
    with started(digits.words(LINES[name], slow=slow, out=tmp_path)) as (process, terminal):
        shown = read_until(terminal, _PROGRESS)
        process.send_signal(signal.SIGINT)
        rest = read_until(terminal, re.compile(rb"(?!)"))
        assert process.wait(timeout=GUARD_S) == 130
        assert process.stdout is not None
        assert process.stdout.read() == b""
    assert _PROGRESS.search(shown), shown
    said = rest.decode()
    assert said.count("Interrupted: nothing half-written was left behind.") == 1
    assert "Traceback" not in said
    assert f"{IMAGES}/{IMAGES}" not in said
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("name", ["calibrate", "build-engine"])
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_what_was_there_stays(
    kind: signal.Signals, name: str, digits: Digits, slow: Path, tmp_path: Path
) -> None:
    """A run that is broken off takes nothing from the one before, however it is broken off."""
    (tmp_path / "made").write_text("the file of an earlier run")
    (tmp_path / "made.json").write_text("and its manifest")
    before = contents(tmp_path)
    with started(digits.words(LINES[name], slow=slow, out=tmp_path)) as (process, terminal):
        assert _PROGRESS.search(read_until(terminal, _PROGRESS))
        process.send_signal(kind)
        read_until(terminal, re.compile(rb"(?!)"))
        expected = 130 if kind is signal.SIGINT else 143
        assert process.wait(timeout=GUARD_S) == expected
    assert contents(tmp_path) == before


def test_a_command_in_this_process_leaves_its_handlers(tmp_path: Path) -> None:
    """A program that calls the command line can still be ended afterwards."""
    before = [signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)]
    refusal("inspect", tmp_path / "x.plan")
    assert [signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)] == before


class Loading:
    """Stands for a module whose loading Ctrl-C interrupts."""

    @property
    def main(self) -> object:
        """Is never there."""
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the signal did not come")


def test_ctrl_c_while_the_command_line_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """That takes a tenth of a second, and has its own signal handlers only at its end."""
    monkeypatch.setitem(sys.modules, "edgeres.cli", Loading())
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as ended:
            entry.run()
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "Interrupted: nothing half-written was left behind.\n"

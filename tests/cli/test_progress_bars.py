"""Progress on a terminal: every long stage has a bar, and none is drawn within a timing."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from digits import Digits

from edgeres.cli import output
from edgeres.cli.output import progress_bars


def on_a_terminal(*command: str) -> str:
    """Returns what a command writes to a pseudo-terminal of 80 columns on stderr."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"}
    with subprocess.Popen(
        [sys.executable, "-m", "edgeres", *command],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment,
    ) as process:
        os.close(theirs)
        shown = b""
        # Linux ends a terminal whose other side has closed with an error.
        while chunk := _read(ours):
            shown += chunk
        assert process.wait() == 0, shown
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""


def test_every_stage_of_bench_and_export_has_a_bar(digits: Digits, tmp_path: Path) -> None:
    """With its name and how much is done, up to the end."""
    line = (
        "bench {engine} --reference {model} --data {test} --samples 64 --iterations 40 --no-energy"
    )
    shown = on_a_terminal(*digits.words(line))
    for stage, end in (("Evaluating", "64/64"), ("Timing", "2/2"), ("Checking ranges", "32/32")):
        assert re.search(rf"{stage} [^\n]*{end} done, left", shown)
    line = "export resnet20 --weights {weights} --preset digits -o {out}"
    shown = on_a_terminal(*digits.words(line, out=tmp_path / "m.onnx"))
    assert re.search(r"Exporting [^\n]*11/11 done, left", shown)


def test_no_thread_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar is drawn where a stage reports, so that nothing runs while an inference is timed."""
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    monkeypatch.setattr(output, "is_quiet", lambda: False)
    before = threading.active_count()
    with progress_bars() as progress:
        progress("Timing", 0, 2)
        assert threading.active_count() == before
        progress("Timing", 2, 2)

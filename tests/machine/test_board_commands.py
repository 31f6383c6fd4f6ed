"""Commands that are missing, slow, silent or wait for input: none can block edgeres."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from edgeres.machine.commands import run_command


def test_what_a_command_prints() -> None:
    """Standard output and error together."""
    script = "import sys; print('out', flush=True); print('err', file=sys.stderr)"
    assert run_command([sys.executable, "-c", script], timeout_s=60) == "out\nerr\n"


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    """None, also where a file stands in its place that is no program."""
    assert run_command([str(tmp_path / "nvpmodel")], timeout_s=60) is None
    (tmp_path / "nvpmodel").write_text("")
    assert run_command([str(tmp_path / "nvpmodel")], timeout_s=60) is None


def test_a_command_that_never_ends() -> None:
    """What it printed until then is kept, and all that it started has ended."""
    script = "echo one; sleep 100 & echo two; wait"
    start = time.monotonic()
    assert run_command(["sh", "-c", script], timeout_s=0.5) == "one\ntwo\n"
    assert time.monotonic() - start < 50


def test_a_command_that_asks() -> None:
    """It finds the input at its end at once, although edgeres' own is open."""
    reading, writing = os.pipe()
    kept = os.dup(0)
    os.dup2(reading, 0)
    try:
        assert run_command(["sh", "-c", "read answer || echo none"], timeout_s=20) == "none\n"
    finally:
        os.dup2(kept, 0)
        for handle in (kept, reading, writing):
            os.close(handle)


def test_text_that_is_no_text() -> None:
    """Bytes of no character are replaced."""
    assert run_command(["printf", r"\377\n"], timeout_s=60) == "�\n"

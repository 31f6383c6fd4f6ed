"""One measurement at a time, whoever dies."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeres.errors import ArtifactError
from edgeres.fleet.lock import VARIABLE, board_lock, holder

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys, time
from edgeres.fleet.lock import board_lock
with board_lock(sys.argv[1], "edgeres bench", lambda other: None):
    with open(sys.argv[2], "a") as log:
        print("begin", sys.argv[1], file=log, flush=True)
        time.sleep(float(sys.argv[3]))
        print("end", sys.argv[1], file=log, flush=True)
"""


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock file of the test's own."""
    path = tmp_path / "lock"
    monkeypatch.setenv(VARIABLE, str(path))
    return path


def start(name: str, log: Path, seconds: float) -> subprocess.Popen[bytes]:
    """Starts a process that holds the board for a while."""
    line = [sys.executable, "-c", HOLD, name, str(log), str(seconds)]
    return subprocess.Popen(line, cwd=ROOT)


def wait_for(log: Path, text: str) -> None:
    """Waits until the log has a line."""
    for _ in range(600):
        if log.exists() and text in log.read_text():
            return
        time.sleep(0.05)
    raise TimeoutError(text)


def test_twenty_clients_measure_one_after_the_other(lock: Path, tmp_path: Path) -> None:
    """No measurement begins before the one before it has ended."""
    log = tmp_path / "log"
    clients = [start(f"client {i}", log, 0.01) for i in range(20)]
    assert [client.wait(120) for client in clients] == [0] * 20
    lines = log.read_text().splitlines()
    assert len(lines) == 40
    for begin, end in zip(lines[::2], lines[1::2], strict=True):
        assert end == begin.replace("begin", "end")


def test_a_killed_holder_blocks_nobody(lock: Path, tmp_path: Path) -> None:
    """The holder is named while it lives; what it left in the file is no holder."""
    log = tmp_path / "log"
    process = start("ann@desk", log, 60)
    wait_for(log, "begin")
    other = holder()
    assert other is not None
    assert (other.name, other.pid, other.command) == ("ann@desk", process.pid, "edgeres bench")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "ann@desk" in lock.read_text()
    assert holder() is None
    with board_lock("bob@desk", "edgeres bench", lambda _: pytest.fail("it waits")):
        assert "bob@desk" in lock.read_text()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": 1}', '{"pid": "x"}', "\0" * 9])
def test_a_holder_without_a_name_is_still_one(lock: Path, content: str) -> None:
    """What the file says does not decide whether the board is free."""
    with board_lock("ann@desk", "edgeres bench", lambda _: None):
        lock.write_text(content)
        told = []

        def waiting(other: object) -> None:
            told.append(other)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), board_lock("bob", "edgeres bench", waiting):
            pytest.fail("two hold the board")
        assert told == [None]


def test_a_link_or_device_is_no_lock(lock: Path, tmp_path: Path) -> None:
    """In a folder that all may write to, a link could lead to a file of one's own."""
    (tmp_path / "precious").write_text("kept")
    lock.symlink_to(tmp_path / "precious")
    with pytest.raises(ArtifactError, match=r"lock .* cannot be opened"):
        holder()
    assert (tmp_path / "precious").read_text() == "kept"

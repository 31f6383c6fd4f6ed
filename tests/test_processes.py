"""Whatever ends a command, its exit code and a sentence are there, and no process is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_COMMAND = """
import os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
import edgeres.workflows
def inspect(path):
    try:
        print(os.getpid(), os.getppid(), file=sys.stderr, flush=True)
        {body}
    finally:
        {last}
edgeres.workflows.inspect_artifact = inspect
from edgeres.cli import main
sys.argv = ["edgeres", "inspect", "x"]
{before}
main(prog_name="edgeres")
"""


_SLEEP = "exec('while True: time.sleep(0.05)')"
"""In short steps: a signal between Python's last look and the system's call ends no sleep."""


def started(body: str, before: str = "", last: str = "pass") -> subprocess.Popen[str]:
    """Returns a running command that does `body`, and `last` however that ends."""
    program = _COMMAND.format(body=body, before=before, last=last)
    return subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def ids(process: subprocess.Popen[str]) -> tuple[int, int]:
    """Returns the process that works and the one above it."""
    assert process.stderr is not None
    work, above = map(int, process.stderr.readline().split())
    return work, above


def is_alive(process: int) -> bool:
    """Returns whether a process runs, and is no remains of one."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (signal.SIGSEGV, "a library in C++ gave up"),
        (signal.SIGABRT, "a library in C++ gave up"),
        (signal.SIGBUS, "a file was cut off, or its disk failed"),
        (signal.SIGKILL, "the system does so where memory is full"),
    ],
)
def test_a_process_that_dies_is_an_error(kind: signal.Signals, said: str) -> None:
    """Exit code 1 and one sentence, where a shell would show 139 and nothing."""
    process = started(f"os.kill(os.getpid(), {kind.value})")
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (1, "")
    (sentence,) = stderr.splitlines()[1:]
    assert sentence.startswith(f"Error: The command was ended by {kind.name}: {said}")


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("group", [False, True])
def test_what_is_sent_reaches_the_work_once(kind: signal.Signals, code: int, group: bool) -> None:
    """To the process alone, as `kill` does, and to all of its group, as a terminal does."""
    last = "time.sleep(0.3); print('clean', file=sys.stderr)"
    process = started(_SLEEP, before="os.setsid()", last=last)
    _, above = ids(process)
    assert above == process.pid
    (os.killpg if group else os.kill)(process.pid, kind)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert stderr.splitlines() == ["clean", "Interrupted: nothing half-written was left behind."]


def test_the_work_ends_with_the_one_that_watches() -> None:
    """SIGKILL, which cannot be passed on."""
    process = started(_SLEEP)
    work, _ = ids(process)
    process.kill()
    process.communicate()
    end = time.monotonic() + 10
    while is_alive(work) and time.monotonic() < end:
        time.sleep(0.01)
    assert not is_alive(work)


def test_a_process_with_threads_is_not_split() -> None:
    """They would not be there in a child."""
    process = started("pass", before="threading.Thread(target=time.sleep, args=(1,)).start()")
    work, above = ids(process)
    process.communicate(timeout=60)
    assert (work, above) == (process.pid, os.getpid())

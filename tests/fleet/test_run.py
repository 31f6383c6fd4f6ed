"""How a job's process ends, and what ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgeres.fleet.job import Job, JobResult
from edgeres.fleet.lock import VARIABLE, board_lock, holder
from edgeres.fleet.run import run_job
from edgeres.progress import progress_line, silent

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock of the test's own."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "lock"))
    return tmp_path / "lock"


BENCH = Job(words=("bench",))


def run(folder: Path, code: str, job: Job = BENCH) -> JobResult:
    """Runs a job whose command is Python code."""
    (folder / "out").mkdir(exist_ok=True)
    return run_job(
        job,
        folder,
        progress=silent,
        cancelled=threading.Event(),
        command=(sys.executable, "-c", code),
    )


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL", "SIGBUS"])
def test_a_signal_is_named(tmp_path: Path, name: str) -> None:
    """With the exit code that a shell shows."""
    result = run(tmp_path, f"import os, signal; os.kill(os.getpid(), signal.{name})")
    assert (result.signal, result.exit_code) == (name, 128 + signal.Signals[name])


def test_what_it_printed_comes_back(tmp_path: Path) -> None:
    """Result and messages apart, progress as such."""
    steps = []
    code = (
        "import sys; print('result'); print('a warning', file=sys.stderr);"
        f"sys.stderr.write({progress_line('Evaluating', 3, 8, 'x')!r}); sys.exit(3)"
    )
    (tmp_path / "out").mkdir()
    result = run_job(
        Job(words=("bench",)),
        tmp_path,
        progress=lambda *step: steps.append(step),
        cancelled=threading.Event(),
        command=(sys.executable, "-c", code),
    )
    assert (result.stdout, result.messages, result.exit_code) == ("result\n", "a warning\n", 3)
    assert steps == [("Evaluating", 3, 8, "x")]


def test_only_ordered_files_come_back(tmp_path: Path) -> None:
    """Not others, and none through a link."""
    (tmp_path / "secret").write_text("secret")
    job = Job(words=("bench",), outputs=("out/html/v.html", "out/junit/v.xml", "out/output/e"))
    code = (
        "from pathlib import Path\n"
        "for name in ('html', 'junit', 'other'): Path('out', name).mkdir(parents=True)\n"
        "Path('out/html/v.html').write_text('page')\n"
        "Path('out/junit/v.xml').symlink_to('../../secret')\n"
        "Path('out/other/x').write_text('more')\n"
    )
    result = run(tmp_path, code, job)
    assert [(file.name, file.size) for file in result.outputs] == [("out/html/v.html", 4)]


def test_a_cancelled_command_ends_with_what_it_started(tmp_path: Path) -> None:
    """Its whole group is told to end."""
    cancelled = threading.Event()
    threading.Timer(1.0, cancelled.set).start()
    code = "import subprocess; subprocess.run(['sleep', '60'])"
    begun = time.monotonic()
    (tmp_path / "out").mkdir()
    result = run_job(
        Job(words=("bench",)),
        tmp_path,
        progress=silent,
        cancelled=cancelled,
        command=(sys.executable, "-c", code),
    )
    assert result.signal == "SIGTERM"
    assert time.monotonic() - begun < 40


def test_a_command_ends_with_the_process_that_runs_it(tmp_path: Path, lock: Path) -> None:
    """Kill -9 of the one that ran the job: the command is gone, and the board is free."""
    code = (
        "import threading; from pathlib import Path\n"
        "from edgeres.fleet.job import Job; from edgeres.fleet.run import run_job\n"
        "from edgeres.progress import silent\n"
        "import sys\n"
        'child = \'import sys; sys.argv = ["x"]; from edgeres.fleet import child; '
        'child.runpy.run_module = lambda *a, **k: (print("up", flush=True), '
        '__import__("time").sleep(60)); child.main()\'\n'
        f"run_job(Job(words=('bench',)), Path({str(tmp_path)!r}), progress=silent,"
        " cancelled=threading.Event(), command=(sys.executable, '-c', child))\n"
    )
    (tmp_path / "out").mkdir()
    runner = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    printed = tmp_path / "stdout"
    for _ in range(600):
        if printed.exists() and printed.read_text() == "up\n":
            break
        time.sleep(0.05)
    runner.kill()
    runner.wait()
    # The command holds the lock too, so the next job runs only when it has really ended.
    assert run(tmp_path, "print('next')").stdout == "next\n"


def test_a_board_is_taken_while_the_command_runs(tmp_path: Path) -> None:
    """Whatever became of the process that ran it: the command itself holds the lock."""
    code = (
        "import sys, threading; from pathlib import Path\n"
        "from edgeres.fleet.job import Job; from edgeres.fleet.run import run_job\n"
        "from edgeres.progress import silent\n"
        "outlives = 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'\n"
        f"run_job(Job(words=('bench',)), Path({str(tmp_path)!r}), progress=silent,"
        " cancelled=threading.Event(), command=(sys.executable, '-c', outlives))\n"
    )
    (tmp_path / "out").mkdir()
    runner = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    printed = tmp_path / "stdout"
    for _ in range(600):
        if printed.exists() and printed.read_text().endswith("\n"):
            break
        time.sleep(0.05)
    runner.kill()
    runner.wait()
    assert holder() is not None
    os.kill(int(printed.read_text()), signal.SIGKILL)
    with board_lock("next", "x", lambda _: None):
        pass

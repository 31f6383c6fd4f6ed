"""Runs a job's command in a subprocess of its own, and reports how it ended, by a signal too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from edgeres.fleet.job import OUTPUTS, Job, JobFile, JobResult, sha256_of
from edgeres.fleet.lock import Holder, board_lock
from edgeres.input_files import InputKind, read_bytes
from edgeres.progress import Progress, read_progress

MEASURES = frozenset({"bench", "build-engine", "calibrate"})
"""Commands that have the board to themselves: TensorRT's builder times its kernels, and the others
would be seen in the latency of whoever measures."""
_PRINTED = InputKind(name="what a command printed", most_bytes=1 << 30)
_MESSAGE_LINES = 200
_PATIENCE_S = 10.0
"""How long a command that receives SIGTERM may clean up."""


def run_job(
    job: Job,
    folder: Path,
    *,
    progress: Progress,
    cancelled: threading.Event,
    command: Sequence[str] = (sys.executable, "-m", "edgeres.fleet.child"),
) -> JobResult:
    """Returns how a job ended whose files lie in its folder.

    Args:
        job: what to run.
        folder: the job's own; the command runs in it.
        progress: receives the command's progress, and that the board is waited for.
        cancelled: ends the command, or the wait, when it is set.
        command: what runs edgeres.

    Raises:
        ArtifactError: the board's lock cannot be opened.
        KeyboardInterrupt: it was cancelled before it ran.
    """

    def waiting(other: Holder | None) -> None:
        who = "another process" if other is None else f"{other.name}: {other.command}"
        progress("Waiting for the board", 0.0, 1.0, f"held by {who}")
        if cancelled.is_set():
            raise KeyboardInterrupt

    with ExitStack() as locks:
        inherited: tuple[int, ...] = ()
        if job.words[0] in MEASURES:
            lock = board_lock(job.holder or "unnamed", f"edgeres {job.words[0]}", waiting)
            inherited = (locks.enter_context(lock),)
        out = folder / "stdout"
        with out.open("wb") as stdout:
            process = subprocess.Popen(
                [*command, *job.words],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.PIPE,
                env=os.environ
                | {
                    "EDGERES_PROGRESS": "json",
                    "EDGERES_PARENT": str(os.getpid()),
                    "COLUMNS": str(job.columns),
                },
                pass_fds=inherited,
                # A group of its own, so that what it starts ends with it.
                start_new_session=True,
            )
            messages = _follow(process, progress, cancelled)
        code = process.returncode
    return JobResult(
        exit_code=code if code >= 0 else 128 - code,
        signal=signal.Signals(-code).name if code < 0 else None,
        stdout=read_bytes(out, _PRINTED).decode("utf-8", errors="backslashreplace"),
        messages="".join(messages),
        outputs=tuple(_written(job, folder)),
        folder=str(folder),
    )


def _follow(
    process: subprocess.Popen[bytes], progress: Progress, cancelled: threading.Event
) -> Sequence[str]:
    """Waits for the end of a process; returns the last lines of its stderr, progress aside."""
    ended = threading.Event()

    def end_when_cancelled() -> None:
        while not ended.wait(0.1):
            if cancelled.is_set():
                os.killpg(process.pid, signal.SIGTERM)
                if not ended.wait(_PATIENCE_S):
                    os.killpg(process.pid, signal.SIGKILL)
                return

    monitor = threading.Thread(target=end_when_cancelled, daemon=True)
    monitor.start()
    messages: deque[str] = deque(maxlen=_MESSAGE_LINES)
    assert process.stderr is not None
    with process.stderr as stream:
        for line in stream:
            text = line.decode("utf-8", errors="backslashreplace")
            step = read_progress(text)
            if step is None:
                messages.append(text)
            else:
                progress(*step)
    process.wait()
    ended.set()
    monitor.join()
    return tuple(messages)


def _written(job: Job, folder: Path) -> list[JobFile]:
    """Returns those of the job's outputs that are there: regular files, not links."""
    outputs = []
    for name in job.outputs:
        path = folder / name
        inside = path.resolve().is_relative_to((folder / OUTPUTS).resolve())
        if path.is_file() and not path.is_symlink() and inside:
            outputs.append(JobFile(name=name, sha256=sha256_of(path), size=path.stat().st_size))
    return outputs

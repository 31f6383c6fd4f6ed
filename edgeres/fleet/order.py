"""Runs a command that orders a job: it streams progress, answers on stdout, and ends with stdin."""

from __future__ import annotations

import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from edgeres.progress import Progress, read_progress, silent

_POLL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How an order ended."""

    exit_code: int
    printed: bytes
    messages: str
    """What it wrote to stderr, progress aside."""


def run_order(
    line: Sequence[str],
    *,
    text: bytes | None = None,
    progress: Progress = silent,
    cancelled: Callable[[], bool] | None = None,
) -> Answer:
    """Returns how a command ended.

    Args:
        line: program and arguments.
        text: for its stdin, which is closed then; None: it stays open until the command ends.
        progress: receives the command's progress.
        cancelled: asked repeatedly; its stdin is closed once this is true.

    Raises:
        FileNotFoundError: there is no such program.
    """
    with (
        tempfile.TemporaryFile() as printed,
        subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=printed, stderr=subprocess.PIPE
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stderr is not None
        stdin, ended = process.stdin, threading.Event()
        if text is not None:
            # A command that ended early closes the pipe, and says why on stderr.
            with suppress(BrokenPipeError), stdin:
                stdin.write(text)

        def close_when_cancelled() -> None:
            while cancelled is not None and not ended.wait(_POLL_S):
                if cancelled():
                    stdin.close()
                    return

        monitor = threading.Thread(target=close_when_cancelled, daemon=True)
        monitor.start()
        messages = []
        for raw in process.stderr:
            step = read_progress(shown := raw.decode("utf-8", errors="backslashreplace"))
            if step is None:
                messages.append(shown)
            else:
                progress(*step)
        code = process.wait()
        ended.set()
        monitor.join()
        printed.seek(0)
        return Answer(exit_code=code, printed=printed.read(), messages="".join(messages).strip())

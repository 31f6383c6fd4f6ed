"""Commands of the machine, run so that none can hang, prompt or be missed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress

CommandRunner = Callable[[Sequence[str], float], "str | None"]
"""From a command and the seconds that it has to what it printed on standard output and error; None
where it is not there."""


def run_command(command: Sequence[str], timeout_s: float) -> str | None:
    """Returns what a command prints until it ends or its time is up; None where it is not there.

    It has no standard input to prompt for a password on, and is ended with all that it started.

    Args:
        command: the program and its arguments.
        timeout_s: seconds that it has.
    """
    try:
        started = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # A process group of its own, so that what it starts can be ended with it.
            start_new_session=True,
        )
    except OSError:
        return None
    with started:
        try:
            return started.communicate(timeout=timeout_s)[0]
        except subprocess.TimeoutExpired:
            # jetson_clocks is a script: without its children the pipe would stay open, and the
            # second `communicate` would wait for them.
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            return started.communicate()[0]

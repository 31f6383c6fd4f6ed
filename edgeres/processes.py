"""A process that does the work and one that watches it, tied to each other.

Parsers and runtimes in C++ answer some inputs by ending their process, a disk that fails under a
mapped library ends whoever runs it, and the system ends what takes too much memory. No `except`
sees any of these; the process above does.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
"""Source: Linux, include/uapi/linux/prctl.h."""

_WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)

_REASONS = {
    signal.SIGKILL: "the system does so where memory is full, and so can other programs. Free "
    "memory, or pass fewer images, and run again",
    signal.SIGBUS: "a file was cut off, or its disk failed, while it was in use. Check the disk, and "
    "run again when nothing writes to the files that are read",
}

_OTHER_REASON = (
    "a library in C++ gave up at what it was given. The file is damaged or made to do so, or the "
    "library has a fault: check the files that are read, and copy or export them again"
)


def end_with_parent(parent: int) -> None:
    """Lets this process be killed when its parent ends; at once where it has ended already.

    Args:
        parent: the process that started this one.
    """
    if sys.platform == "linux":
        # Takes 2 ms, which only a process that is watched spends.
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have ended before the call: then init, or a reaper, is the parent.
    if os.getppid() != parent:
        sys.exit(1)


def split_off() -> str | int | None:
    """Continues in a child process, and returns there; here returns how the child has ended.

    To the child, Ctrl-C, SIGTERM and the terminal are what they would be without its parent.

    Returns:
        None in the child, and in a process that cannot be split. In the parent its exit code, or
        where a signal has ended it, a sentence on that.
    """
    # Threads would be lost; on other systems than Linux a child of a fork is not fit for all work.
    if sys.platform != "linux" or threading.active_count() > 1:
        return None
    for stream in (sys.stdout, sys.stderr):
        # What is in its buffer would be written by both.
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    # Blocked before the child exists, so that no signal comes between its start and the wait.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    on_child = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    parent = os.getpid()
    try:
        child = os.fork()
    except OSError:
        child = 0
    if child:
        return _wait_for(child)
    signal.signal(signal.SIGCHLD, on_child)
    if os.getpid() != parent:
        end_with_parent(parent)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return None


def _wait_for(child: int) -> str | int:
    ended = 0
    while not ended:
        received = signal.sigwaitinfo(_WATCHED)
        if received.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
        # A terminal sends Ctrl-C to the child too; what a process sends comes here alone.
        elif received.si_code <= 0:
            os.kill(child, received.si_signo)
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    name = signal.Signals(-code)
    if name in (signal.SIGINT, signal.SIGTERM):
        return 128 + name
    return f"The command was ended by {name.name}: {_REASONS.get(name, _OTHER_REASON)}."

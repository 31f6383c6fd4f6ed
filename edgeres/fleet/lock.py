"""One measurement at a time on a board, across its users, by `flock`.

The kernel drops the lock with the last process that has the file open, so a holder that was killed
blocks nobody; the holder's name in the file counts only while somebody holds it. The command that
measures has the file open too: while it runs, the board is taken, whatever became of its parent.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgeres.errors import ArtifactError

VARIABLE = "EDGERES_BOARD_LOCK"
"""Names another lock file, for several boards that are one machine."""
_DEFAULT = Path("/run/lock/edgeres-board.lock")
_WAIT_S = 0.2
_MAX_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who measures on a board."""

    name: str
    pid: int
    since: float
    """Seconds since 1970."""
    command: str


def lock_path() -> Path:
    """Returns the board's lock file."""
    return Path(os.environ.get(VARIABLE) or _DEFAULT)


def holder() -> Holder | None:
    """Returns who holds the board, or None where nobody does.

    Raises:
        ArtifactError: the lock file cannot be opened.
    """
    with _opened() as descriptor:
        try:
            # Shared: two who look do not take each other for a holder.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(descriptor)
    return None


@contextmanager
def board_lock(name: str, command: str, waiting: Callable[[Holder | None], None]) -> Iterator[int]:
    """Holds the board, waiting until it is free; yields the descriptor that a child must inherit.

    Args:
        name: who holds it.
        command: what it is held for.
        waiting: receives who holds it, repeatedly; an exception of it ends the wait.

    Raises:
        ArtifactError: the lock file cannot be opened.
    """
    with _opened() as descriptor:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting(_read(descriptor))
                time.sleep(_WAIT_S)
        entry = {"name": name, "pid": os.getpid(), "since": time.time(), "command": command}
        # Another user's file may be opened for reading only; then its holder stays unnamed.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(entry).encode(), 0)
        yield descriptor


@contextmanager
def _opened() -> Iterator[int]:
    path = lock_path()
    try:
        descriptor = _open(path)
    except OSError as error:
        raise ArtifactError(
            f"The board's lock {path} cannot be opened: {error.strerror}. Name another file in "
            f"{VARIABLE}, the same for all who use this board."
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    # Linux refuses O_CREAT on another user's file in a folder that all may write to
    # (fs.protected_regular), and a link there could lead to a file of the user's own.
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    for mode in (os.O_RDWR, os.O_RDONLY):
        with suppress(FileNotFoundError, PermissionError):
            return _checked(os.open(path, mode | flags))
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
    # The umask would keep the next user from leaving a name in it.
    with suppress(OSError):
        os.fchmod(descriptor, 0o666)
    return _checked(descriptor)


def _checked(descriptor: int) -> int:
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(0, "it is no regular file")


def _read(descriptor: int) -> Holder | None:
    """Returns the holder that the file names; None where it names none that can be read."""
    with suppress(ValueError, TypeError, KeyError):
        raw = json.loads(os.pread(descriptor, _MAX_BYTES, 0))
        return Holder(
            name=str(raw["name"]),
            pid=int(raw["pid"]),
            since=float(raw["since"]),
            command=str(raw["command"]),
        )
    return None

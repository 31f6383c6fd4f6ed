"""Every file that edgeres reads is opened here: a regular file, of a size that its kind has.

A pipe without a writer would hang, and a device such as /dev/zero never ends. What the system
refuses becomes a sentence: a missing file, a folder on the way that may not be searched, a name
that is too long, a disk that fails, a memory that is full. Nothing here knows what a file means.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgeres.errors import ArtifactError, CheckpointError, DataError, EdgeresError

_GIB = 1 << 30
_READ_BLOCK = 1 << 20
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})


@dataclass(frozen=True, slots=True, kw_only=True)
class InputKind:
    """A kind of input file: what messages call it, how large it may be, which error it raises."""

    name: str
    most_bytes: int | None
    """None where the file is read in parts."""
    error: type[EdgeresError] = ArtifactError


MODEL = InputKind(name="an ONNX file", most_bytes=2 * _GIB - 1)
"""Source: protobuf's limit of a message."""
ENGINE = InputKind(name="an engine", most_bytes=8 * _GIB)
JSON = InputKind(name="a JSON file", most_bytes=_GIB)
"""A verdict on a million images has about 300 MiB."""
HISTORY = InputKind(name="a history", most_bytes=4 * _GIB)
"""Verdicts of 100 KiB and more, one a line."""
CALIBRATION_CACHE = InputKind(name="a calibration cache", most_bytes=16 << 20)
CLASS_NAMES = InputKind(name="a file of class names", most_bytes=16 << 20)
LABELS = InputKind(name="a file of labels", most_bytes=_GIB, error=DataError)
IMAGE = InputKind(name="an image", most_bytes=_GIB, error=DataError)
"""The largest that is decoded, uncompressed at 16 bits and with alpha, has 0.7 GiB."""
ARRAYS = InputKind(name="an .npz", most_bytes=None, error=DataError)
CHECKPOINT = InputKind(name="a checkpoint", most_bytes=16 * _GIB, error=CheckpointError)
"""With an optimizer's state and an averaged copy, four times the weights."""


@contextmanager
def open_input(path: Path, kind: InputKind) -> Iterator[BinaryIO]:
    """Opens a regular file for reading.

    Raises:
        EdgeresError: the kind's own: it cannot be opened, is no regular file, or is too large.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits for who writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    # A name with a null byte is a ValueError.
    except (OSError, ValueError) as error:
        raise _unreadable(path, kind, error) from error
    try:
        _check_readable(path, kind, os.fstat(descriptor))
    except EdgeresError:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _check_readable(path: Path, kind: InputKind, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise kind.error(f"{path} cannot be read: Is a directory. Check the path.")
    if not stat.S_ISREG(status.st_mode):
        raise kind.error(
            f"{path} is a pipe, a device or a socket; {kind.name} is read from a file alone. "
            "Write it to one and pass that."
        )
    if kind.most_bytes is not None and status.st_size > kind.most_bytes:
        raise kind.error(
            f"{path} has {status.st_size} bytes; {kind.name} has at most {kind.most_bytes}. "
            "Check the path."
        )


def read_bytes(path: Path, kind: InputKind) -> bytes:
    """Returns the contents of a file.

    Raises:
        EdgeresError: the kind's own: it cannot be read, or is larger than its kind.
    """
    with open_input(path, kind) as file, _explained(path, kind):
        # One more than the limit: a file may grow, and those of /proc have no size.
        content = file.read(-1 if kind.most_bytes is None else kind.most_bytes + 1)
    if kind.most_bytes is not None and len(content) > kind.most_bytes:
        raise kind.error(f"{path} has more than {kind.most_bytes} bytes. Check the path.")
    return content


def read_text(path: Path, kind: InputKind) -> str:
    """Returns the contents of a file of UTF-8 text, without a byte order mark.

    Raises:
        EdgeresError: the kind's own: it cannot be read, or is no UTF-8 text.
    """
    content = read_bytes(path, kind)
    try:
        # Windows' editors and spreadsheets put a byte order mark before the text.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise kind.error(
            f"{path} is no UTF-8 text: byte {error.start} is 0x{content[error.start]:02x}. Save "
            "it as UTF-8, or check the path."
        ) from error


def sha256_of_open(path: Path, kind: InputKind, file: BinaryIO) -> str:
    """Returns the hexadecimal SHA-256 of an open file, and sets it back to its start.

    Raises:
        EdgeresError: the kind's own: it cannot be read.
    """
    digest = hashlib.sha256()
    with _explained(path, kind):
        file.seek(0)
        while block := file.read(_READ_BLOCK):
            digest.update(block)
        file.seek(0)
    return digest.hexdigest()


def exists(path: Path, kind: InputKind) -> bool:
    """Returns whether there is something at a path.

    Raises:
        EdgeresError: the kind's own: it cannot be known, such as in a folder that is not ours.
    """
    return _mode(path, kind) is not None


def is_file(path: Path, kind: InputKind) -> bool:
    """Returns whether a path leads to a regular file; raises as `exists` does."""
    return stat.S_ISREG(_mode(path, kind) or 0)


def is_folder(path: Path, kind: InputKind) -> bool:
    """Returns whether a path leads to a folder; raises as `exists` does."""
    return stat.S_ISDIR(_mode(path, kind) or 0)


@contextmanager
def foreign_parser(describe: Callable[[Exception], EdgeresError]) -> Iterator[None]:
    """Turns whatever another project's parser raises in the block into an error of edgeres.

    What parsers raise at damaged files has no end: a list of types misses the next one. The block
    should hold little beside the parser's call, since a bug of edgeres' own there would be hidden.

    Args:
        describe: makes the error of edgeres from the parser's; see `reason_of`.

    Raises:
        EdgeresError: what `describe` returns.
    """
    try:
        yield
    except EdgeresError:
        raise
    except Exception as error:
        raise describe(error) from error


def reason_of(error: Exception) -> str:
    """Returns an error's own words on one line, the first 500 characters."""
    # An OSError's text repeats the path. Some errors, such as MemoryError, have no text.
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{' '.join(words.split()):.500}"


def _mode(path: Path, kind: InputKind) -> int | None:
    try:
        return path.stat().st_mode
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) in _ABSENT:
            return None
        raise _unreadable(path, kind, error) from error


@contextmanager
def _explained(path: Path, kind: InputKind) -> Iterator[None]:
    try:
        yield
    except (OSError, MemoryError) as error:
        raise _unreadable(path, kind, error) from error


def _unreadable(path: Path, kind: InputKind, error: Exception) -> EdgeresError:
    if isinstance(error, MemoryError):
        return kind.error(f"{path} cannot be read: it does not fit into memory. Free some.")
    return kind.error(f"{path} cannot be read: {reason_of(error)}. Check the path.")

"""Atomic writes: a file appears with all of its content or not at all. And hashes of files."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgeres.errors import ArtifactError, ConfigError

_READ_BLOCK = 1 << 20


def read_bytes(path: Path) -> bytes:
    """Returns the contents of a file.

    Raises:
        ArtifactError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}. Check the path.") from error


def sha256_of(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file.

    Raises:
        ArtifactError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_READ_BLOCK):
                digest.update(block)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}. Check the path.") from error
    return digest.hexdigest()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` that becomes `path` when the block succeeds.

    On any exception, Ctrl-C included, the temporary file is removed and `path` is untouched.

    Raises:
        ArtifactError: the folder is missing or not writable, or the disk is full.
    """
    # The name is known before the file exists, so that an interrupt in between leaves nothing.
    temporary = _temporary_beside(path)
    try:
        _create(temporary, path)
        yield temporary
        # Readers of the old file keep it to its end: the name alone moves.
        temporary.replace(path)
    except OSError as error:
        raise ArtifactError(_write_error(path, error)) from error
    finally:
        # After a success nothing is left to remove; a folder that refuses this has refused the
        # file before, and that is the error to report.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: Path, *inputs: Path) -> None:
    """Checks that a file can appear at `path`, before long work is done for it.

    Args:
        path: the file.
        inputs: files that are read for it, and that it must not replace.

    Raises:
        ConfigError: `path` is one of `inputs`.
        ArtifactError: the folder is missing or not writable, or the disk is full.
    """
    if path.exists() and any(file.exists() and path.samefile(file) for file in inputs):
        raise ConfigError(f"{path} is what is read here, and would be lost. Pass another -o.")
    probe = _temporary_beside(path)
    try:
        _create(probe, path)
        probe.unlink()
    except OSError as error:
        raise ArtifactError(_write_error(path, error)) from error


def make_folder(path: Path) -> None:
    """Creates a folder, and those above it, where it does not exist.

    Raises:
        ArtifactError: it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(
            f"The folder {path} cannot be created: {error.strerror}. Pass one that you may write."
        ) from error


def _temporary_beside(path: Path) -> Path:
    # In the same folder, since a rename is atomic only within one file system.
    return path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"


def _create(temporary: Path, path: Path) -> None:
    """Creates `temporary`, which is to become `path`; what cannot become a file is refused now."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if path.exists() and not path.is_file():
        # Renaming over /dev/null would take the device away from every program.
        raise OSError(errno.EINVAL, "It is a device or pipe, not a file")
    temporary.touch(exist_ok=False)


def _write_error(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"{path} was not written: no space left on the disk. Free some and run again."
    if error.errno == errno.ENOENT and not path.parent.exists():
        return f"{path} was not written: the folder {path.parent} does not exist. Create it first."
    return f"{path} was not written: {error.strerror or error}. Choose a path that you may write."

"""Atomic writes: a file appears with all of its content or not at all.

An output is a regular file or a new name, reached through links or not. What is written as text
for people may also be a stream: /dev/stdout, a named pipe, a terminal.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path

from edgeres.errors import ArtifactError, ConfigError
from edgeres.plurals import counted

_LOG = logging.getLogger("edgeres.files")

_LONGEST_NAME = 200
"""Bytes of a name that stands in the name of its temporary file as it is."""

_TAIL_BLOCK = 1 << 16
"""Bytes that are read at once in search of a file's last line break."""

LABELS_FILE = "labels.csv"
"""Labels of the images in a folder."""

IMAGE_SUFFIXES = frozenset(
    {
        ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg",
        ".jxl", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
    }
)  # fmt: skip
"""Files whose names end so, in any case, are images. One that cannot be decoded is an error."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path that becomes `path` when the block succeeds.

    On any exception, Ctrl-C included, the temporary file is removed and `path` is untouched. A
    link stays one: the file that it names is replaced. The new file has the old one's permissions,
    and its owner where the system lets it.

    Raises:
        ArtifactError: the folder is missing or not writable, the disk is full, or `path` is a
            device or pipe.
    """
    try:
        target = _destination(path)
        _remove_abandoned(target)
        # The name is known before the file exists, so that an interrupt in between leaves nothing.
        temporary = _temporary_beside(target)
        try:
            with _locked_file(temporary):
                _copy_permissions(target, temporary)
                yield temporary
                # Readers of the old file keep it to its end: the name alone moves.
                temporary.replace(target)
        finally:
            # After a success nothing is left to remove; a folder that refuses this has refused
            # the file before, and that is the error to report.
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(write_error(path, error)) from error


def write_report(path: Path, text: str) -> None:
    """Writes a text for people: atomically to a file, at once to a stream such as /dev/stdout.

    Raises:
        ArtifactError: the text cannot be written, or not all of it.
    """
    # A file name that is no Unicode text is written with its bytes as \udc.. form.
    content = text.encode("utf-8", errors="backslashreplace")
    if not _is_stream(path):
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
        return
    try:
        # Closing reports what a file system says only then.
        with os.fdopen(_open_stream(path), "wb") as stream:
            stream.write(content)
    except OSError as error:
        raise ArtifactError(write_error(path, error)) from error


def append_line(path: Path, line: str) -> None:
    """Adds a line to a file, whole or not at all; a file that is missing is made.

    One process at a time adds. What one that was killed left of its line is removed, with a log;
    a last line that is complete but for its line break gets one.

    Raises:
        ArtifactError: the line cannot be written.
    """
    content = line.encode("utf-8", errors="backslashreplace") + b"\n"
    try:
        descriptor = os.open(_destination(path), os.O_RDWR | os.O_CREAT, 0o666)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            before = _complete_lines(file)
            end = file.seek(0, os.SEEK_END)
            file.seek(before)
            if file.read(end - before).rstrip().endswith(b"}"):
                content, before = b"\n" + content, end
            elif before < end:
                _LOG.warning("%s ended in part of a line, which was removed.", path)
                file.truncate(before)
            try:
                file.seek(before)
                # A disk that fills up takes a part of it.
                while content:
                    content = content[file.write(content) :]
                os.fsync(descriptor)
            except BaseException:
                file.truncate(before)
                raise
    except OSError as error:
        raise ArtifactError(write_error(path, error)) from error


def _complete_lines(file: FileIO) -> int:
    """Returns the length of the part of a file that ends with its last line break."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _TAIL_BLOCK)
        file.seek(start)
        if (at := file.read(end - start).rfind(b"\n")) >= 0:
            return start + at + 1
        end = start
    return 0


def check_outputs(
    outputs: Iterable[Path], inputs: Iterable[Path] = (), *, reports: Iterable[Path] = ()
) -> None:
    """Checks, before long work, that all outputs of a command can be written and nothing is lost.

    Files are compared by what they are and not by their names: links, hard links, and names that
    the file system takes for one.

    Args:
        outputs: files that will appear.
        inputs: files and folders that are read. Inside such a folder no output may have the name
            of an image or of its labels.
        reports: further outputs, which may be streams.

    Raises:
        ConfigError: an output is an input or another output, or would become data.
        ArtifactError: a folder is missing or not writable, or the disk is full.
    """
    files, streams = tuple(outputs), []
    for path in reports:
        if _is_stream(path):
            streams.append(path)
        else:
            files += (path,)
    read, checked = tuple(inputs), dict[Path, Path]()
    # All probes share a token: where two outputs are one file, whatever their names, the second
    # probe exists already. A stream is not opened, since its reader would see its end.
    token = secrets.token_hex(8)
    with ExitStack() as probes:
        for path in (*files, *streams):
            _check_not_read(path, read)
            same = next((other for other in checked if _is_same_file(path, other)), None)
            probe = path
            try:
                if path not in streams and same is None:
                    target = _destination(path)
                    _remove_abandoned(target)
                    probe = _temporary_beside(target, token)
                    probes.callback(probe.unlink, missing_ok=True)
                    probes.enter_context(_locked_file(probe))
            except FileExistsError:
                same = next(other for other in checked if _is_same_file(probe, checked[other]))
            except OSError as error:
                raise ArtifactError(write_error(path, error)) from error
            if same is not None:
                raise ConfigError(
                    f"Two outputs would be the same file: {same} and {path}. Give each a path of "
                    "its own."
                )
            checked[path] = probe


def _check_not_read(output: Path, inputs: tuple[Path, ...]) -> None:
    for path in inputs:
        if _is_same_file(output, path):
            name = "" if output == path else f" as {path}"
            raise ConfigError(
                f"{output} is what is read here{name}, and would be lost. Pass another path."
            )
        is_data = output.name.lower() == LABELS_FILE or output.suffix.lower() in IMAGE_SUFFIXES
        if is_data and path.is_dir() and path.resolve() in _link_target(output).resolve().parents:
            raise ConfigError(
                f"{output} would become part of the data in {path}, which is read here. Pass a "
                "path outside that folder."
            )


def make_folder(path: Path) -> None:
    """Creates a folder, and those above it, where it does not exist.

    Raises:
        ArtifactError: it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(write_error(path, error)) from error


def remove_file(path: Path) -> None:
    """Removes a file, if it is there.

    Raises:
        ArtifactError: it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(f"{path} was not removed: {error.strerror}.") from error


def _temporary_beside(path: Path, token: str = "") -> Path:
    # In the same folder, since a rename is atomic only within one file system.
    return path.parent / f"{_temporary_stem(path)}{token or secrets.token_hex(8)}.tmp"


def _temporary_stem(path: Path) -> str:
    name = os.fsencode(path.name)
    # A file name has at most 255 bytes, and what is added here must fit too.
    short = path.name if len(name) <= _LONGEST_NAME else hashlib.sha256(name).hexdigest()
    return f".{short}."


@contextmanager
def _locked_file(path: Path) -> Iterator[None]:
    """Creates a file, and locks it while the block runs: a temporary file without a lock is nobody's.

    The system takes the lock off when the process ends, however it ends.

    Raises:
        OSError: the file exists, or cannot be created.
    """
    # Between creation and lock another process may take it for abandoned and remove it.
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        # Some network file systems have no locks.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)
    try:
        yield
    finally:
        os.close(descriptor)


def _remove_abandoned(path: Path) -> None:
    """Removes what killed processes have left of writing `path`, and logs how many files it was."""
    name = re.compile(re.escape(_temporary_stem(path)) + r"[0-9a-f]{16}\.tmp")
    removed = 0
    # A folder that may be written to but not listed is no reason to refuse the output.
    with suppress(OSError):
        for entry in os.scandir(path.parent):
            if name.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError), Path(entry).open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    Path(entry).unlink()
                    removed += 1
    if removed:
        _LOG.warning(
            "Removed %s of %s, left by a run that was killed.",
            counted(removed, "temporary file"),
            path,
        )


def _is_same_file(path: Path, other: Path) -> bool:
    # A path that cannot be looked up is reported where it is read or written.
    with suppress(OSError):
        return path.samefile(other)
    return False


def _link_target(path: Path) -> Path:
    """Returns the file that a link names, whether it exists or not; other paths as they are."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _destination(path: Path) -> Path:
    """Returns the regular file or new name behind `path`.

    Raises:
        OSError: it is something else, or may not be written to.
    """
    target = _link_target(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return target
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode) or _is_stream(path):
        # Renaming over /dev/null would take the device away from every program.
        raise OSError(errno.EINVAL, "It is a device or pipe, not a file")
    # A rename needs no permission on the old file, and would replace one that is write-protected.
    os.close(os.open(target, os.O_WRONLY))
    return target


def _copy_permissions(old: Path, new: Path) -> None:
    """Gives `new` the owner and permissions of `old`, as far as the file system lets it."""
    # Some file systems, such as FAT, have neither.
    with suppress(OSError):
        kept = old.stat()
        mode = stat.S_IMODE(kept.st_mode) & 0o777
        for owner, group in ((kept.st_uid, -1), (-1, kept.st_gid)):
            with suppress(PermissionError):
                os.chown(new, owner, group)
        if new.stat().st_gid != kept.st_gid:
            # Another group must not get what the old one had.
            mode &= 0o707 | (mode & 0o007) << 3
        new.chmod(mode)


_DESCRIPTORS = ("/proc/self/fd", "/dev/fd")
"""Folders whose files are the open descriptors of this process."""


def _descriptor(path: Path) -> int | None:
    """Returns the descriptor that a path such as /dev/stdout is a name of; None for others."""
    folders = {os.path.realpath(folder) for folder in _DESCRIPTORS}
    with suppress(OSError):
        # More links in a row the kernel does not follow either.
        for _ in range(40):
            if path.name.isdecimal() and os.path.realpath(path.parent) in folders:
                return int(path.name)
            path = path.parent / path.readlink()
    return None


def _is_stream(path: Path) -> bool:
    """Returns whether a path is a pipe, terminal or the like, or the name of a descriptor."""
    if _descriptor(path) is not None:
        return True
    with suppress(OSError):
        mode = path.stat().st_mode
        return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)
    return False


def _open_stream(path: Path) -> int:
    descriptor = _descriptor(path)
    if descriptor is not None:
        # Opening it by name would empty the file that a shell has redirected it to.
        return os.dup(descriptor)
    # A pipe that nobody reads is an error; waiting for a reader would hang.
    opened = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.set_blocking(opened, True)
    return opened


def write_error(path: Path, error: OSError) -> str:
    """Returns a sentence on a file or folder that the system did not let be written."""
    if error.errno == errno.ENOSPC:
        return f"{path} was not written: no space left on the disk. Free some and run again."
    if error.errno == errno.ENOENT and not path.parent.exists():
        return f"{path} was not written: the folder {path.parent} does not exist. Create it first."
    return f"{path} was not written: {error.strerror or error}. Choose a path that you may write."

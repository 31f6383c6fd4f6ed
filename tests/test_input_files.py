"""What is read: regular files of a size that their kind has, and a sentence for everything else."""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from edgeres import input_files
from edgeres.errors import ArtifactError, DataError, EdgeresError
from edgeres.input_files import (
    ARRAYS,
    CHECKPOINT,
    CLASS_NAMES,
    ENGINE,
    IMAGE,
    JSON,
    LABELS,
    MODEL,
    InputKind,
    exists,
    foreign_parser,
    is_file,
    is_folder,
    open_input,
    read_bytes,
    read_text,
    reason_of,
    sha256_of_open,
)

KINDS = (MODEL, ENGINE, JSON, CLASS_NAMES, LABELS, IMAGE, ARRAYS, CHECKPOINT)
SMALL = InputKind(name="a note", most_bytes=5, error=DataError)


@pytest.mark.parametrize(
    ("content", "digest"),
    [
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (b"a" * 10**6, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
        (b"a" * (3 << 20), hashlib.sha256(b"a" * (3 << 20)).hexdigest()),
    ],
    ids=["empty", "short", "a million", "more than one read"],
)
def test_a_file_is_hashed_whole(tmp_path: Path, content: bytes, digest: str) -> None:
    """Against the examples of FIPS 180-2, and beyond one read; the file is then read from its start."""
    path = tmp_path / "x"
    path.write_bytes(content)
    with open_input(path, MODEL) as file:
        file.read(2)
        assert sha256_of_open(path, MODEL, file) == digest
        assert file.read() == content


def fifo(path: Path) -> Path:
    """Makes a pipe that nobody writes to."""
    os.mkfifo(path)
    return path


def unix_socket(path: Path) -> Path:
    """Makes a socket."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
    return path


def loop(path: Path) -> Path:
    """Makes a link to itself."""
    path.symlink_to(path)
    return path


def below_a_file(path: Path) -> Path:
    """Returns a path in a folder that is a file."""
    path.touch()
    return path / "x"


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "absent": (lambda path: path, "cannot be read: No such file or directory. Check the path."),
    "a folder": (lambda path: path.parent, "cannot be read: Is a directory. Check the path."),
    "below a file": (below_a_file, "cannot be read: Not a directory. Check the path."),
    "a pipe": (fifo, "is a pipe, a device or a socket; "),
    "a socket": (unix_socket, "cannot be read: No such device or address."),
    "a device without end": (lambda _: Path("/dev/zero"), "is a pipe, a device or a socket; "),
    "a device": (lambda _: Path("/dev/full"), "is a pipe, a device or a socket; "),
    "a link to itself": (loop, "cannot be read: Too many levels of symbolic links."),
    "a long name": (lambda path: path.with_name("n" * 256), "cannot be read: File name too long."),
    "a long path": (lambda path: path.joinpath(*["n"] * 3000), "cannot be read: File name too lo"),
    "a null byte": (lambda path: path.with_name("a\0b"), "cannot be read: embedded null byte."),
}
"""How each is made of a new path, and what is said of it."""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.name))
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_file_is_refused_at_once(case: str, kind: InputKind, tmp_path: Path) -> None:
    """With the kind's own error, and nothing waits or fills the memory."""
    make, said = REFUSED[case]
    path = make(tmp_path / "x")
    with pytest.raises(kind.error) as refused:
        read_bytes(path, kind)
    assert str(refused.value).startswith(f"{path} {said}")


def test_a_pipe_that_is_written_to_is_refused_too(tmp_path: Path) -> None:
    """What it holds is read once, and the second reading of anything would be empty."""
    path = fifo(tmp_path / "x")
    writer = os.open(path, os.O_RDWR)
    try:
        os.write(writer, b"{}")
        with pytest.raises(ArtifactError, match=r"a JSON file is read from a file alone\. Write"):
            read_bytes(path, JSON)
    finally:
        os.close(writer)


@pytest.mark.parametrize("kind", [*KINDS, SMALL], ids=lambda kind: str(kind.name))
def test_a_file_larger_than_its_kind_is_refused_unread(kind: InputKind, tmp_path: Path) -> None:
    """A sparse file claims any size; one byte less is read, where that is small enough to try."""
    path = tmp_path / "x"
    path.touch()
    if kind.most_bytes is None:
        assert read_bytes(path, kind) == b""
        return
    os.truncate(path, kind.most_bytes + 1)
    with pytest.raises(kind.error, match=f"has {kind.most_bytes + 1} bytes; {kind.name} has at"):
        read_bytes(path, kind)
    if kind is SMALL:
        os.truncate(path, kind.most_bytes)
        assert read_bytes(path, kind) == bytes(kind.most_bytes)


def test_a_file_without_a_size_is_held_to_the_limit(tmp_path: Path) -> None:
    """Those of /proc have 0 bytes until they are read."""
    status = Path("/proc/self/status")
    assert status.stat().st_size == 0
    with pytest.raises(DataError, match=r"status has more than 5 bytes\. Check the path\."):
        read_bytes(status, SMALL)


def test_a_disk_that_fails_while_it_is_read(tmp_path: Path) -> None:
    """A process's memory opens, and its first page cannot be read."""
    with pytest.raises(ArtifactError, match=r"mem cannot be read: Input/output error\."):
        read_bytes(Path("/proc/self/mem"), MODEL)


def test_a_memory_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As any other reason."""

    class Full:
        def read(self, size: int) -> bytes:
            raise MemoryError

    monkeypatch.setattr(input_files, "open_input", lambda *_: nullcontext(Full()))
    with pytest.raises(ArtifactError, match="x cannot be read: it does not fit into memory"):
        read_bytes(tmp_path / "x", MODEL)


@pytest.fixture
def closed_folder() -> Iterator[Path]:
    """A folder that this process may not search, being nobody until the test ends."""
    if os.geteuid() != 0:
        pytest.skip("only root becomes somebody else")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        (Path(folder) / "x").write_text("{}")
        Path(folder).chmod(0o700)
        os.setegid(65534)
        os.seteuid(65534)
        yield Path(folder)
        os.seteuid(0)
        os.setegid(0)


def test_a_folder_of_another_user(closed_folder: Path) -> None:
    """Whether a file is there cannot be known, which is neither yes nor no."""
    path = closed_folder / "x"
    for ask in (read_bytes, exists, is_file, is_folder):
        with pytest.raises(ArtifactError) as refused:
            ask(path, JSON)
        assert str(refused.value) == f"{path} cannot be read: Permission denied. Check the path."


def test_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    """Files, folders, links and nothing; a name that no file can have is an error."""
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    for name, expected in {
        "file": (True, True, False),
        ".": (True, False, True),
        "dangling": (False, False, False),
        "absent": (False, False, False),
        "file/x": (False, False, False),
    }.items():
        path = tmp_path / name
        assert (exists(path, JSON), is_file(path, JSON), is_folder(path, JSON)) == expected
    for name in ("n" * 256, "a\0"):
        with pytest.raises(DataError, match="cannot be read: "):
            exists(tmp_path / name, ARRAYS)


def test_a_name_that_is_no_unicode(tmp_path: Path) -> None:
    """It is read like any other."""
    path = tmp_path / os.fsdecode(b"caf\xe9.txt")
    path.write_bytes(b"\xef\xbb\xbfcat\n")
    assert read_text(path, CLASS_NAMES) == "cat\n"


@pytest.mark.parametrize("content", [b"\xff\xfea\0", b"caf\xe9", b"\x80", b"ok\xed\xa0\x80"])
def test_a_text_in_another_encoding(content: bytes, tmp_path: Path) -> None:
    """UTF-16, Latin-1, a stray byte and a surrogate: the first wrong byte is named."""
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(
        ArtifactError, match=r"is no UTF-8 text: byte \d is 0x[0-9a-f]{2}\. Save it"
    ):
        read_text(path, CLASS_NAMES)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("two\n  lines"), "two lines"),
        (MemoryError(), "MemoryError"),
        (OSError(5, "Input/output error", "/a/path"), "Input/output error"),
        (KeyError("x" * 10**6), "'" + "x" * 499),
    ],
)
def test_whatever_a_parser_raises_is_an_error_of_edgeres(error: Exception, reason: str) -> None:
    """With the parser's words on one line and not too long; Ctrl-C is none."""
    with pytest.raises(DataError) as refused, foreign_parser(lambda e: DataError(reason_of(e))):
        raise error
    assert str(refused.value) == reason
    with pytest.raises(KeyboardInterrupt), foreign_parser(lambda e: DataError()):
        raise KeyboardInterrupt
    own = EdgeresError("a sentence already")
    with pytest.raises(EdgeresError) as kept, foreign_parser(lambda e: DataError()):
        raise own
    assert kept.value is own

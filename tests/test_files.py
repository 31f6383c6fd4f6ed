"""A file is written atomically, whatever happens meanwhile."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from edgeres.errors import ArtifactError
from edgeres.files import append_line, atomic_write, check_outputs, write_report
from edgeres.serialization import save_json


def leaves(folder: Path) -> list[str]:
    """Returns the names of everything in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 16 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_file_appears_whole(tmp_path: Path) -> None:
    """Until the block ends the old content stands; then the new one does, and nothing else."""
    path = tmp_path / "table.json"
    path.write_text("old")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
    assert path.read_text() == "new"
    assert leaves(tmp_path) == ["table.json"]


def test_who_reads_the_old_file_reads_it_to_the_end(tmp_path: Path) -> None:
    """The new file takes the name; the content of the old one is not touched."""
    path = tmp_path / "engine"
    path.write_text("old")
    with path.open() as reader:
        save_json(path, {"new": True})
        assert reader.read() == "old"


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_file_has_the_permissions_that_the_umask_leaves(tmp_path: Path, mask: int) -> None:
    """As any other program's file, and not those of a private temporary file."""
    before = os.umask(mask)
    try:
        save_json(tmp_path / "x.json", {})
    finally:
        os.umask(before)
    assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, ValueError])
@pytest.mark.parametrize("existed", [True, False])
def test_an_interrupted_file_leaves_nothing(
    tmp_path: Path, kind: type[BaseException], existed: bool
) -> None:
    """Ctrl-C, an exit or an error in the block: the old file stands, no temporary one does."""
    path = tmp_path / "engine"
    if existed:
        path.write_text("old")

    def write() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise kind

    with pytest.raises(kind):
        write()
    assert leaves(tmp_path) == (["engine"] if existed else [])
    assert not existed or path.read_text() == "old"


def test_an_interrupt_while_the_temporary_file_is_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C between the creation of the file and the start of the block."""
    create = os.open

    def interrupted(*args: Any) -> int:
        os.close(create(*args))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_json(tmp_path / "x.json", {})
    assert leaves(tmp_path) == []


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The message tells to create it."""
    path = tmp_path / "absent" / "x.json"
    with pytest.raises(ArtifactError) as refused:
        save_json(path, {})
    assert str(refused.value) == (
        f"{path} was not written: the folder {path.parent} does not exist. Create it first."
    )


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    """A folder that is none cannot be written into, not even by root."""
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "x.json"
    with pytest.raises(ArtifactError) as refused:
        save_json(path, {})
    assert str(refused.value) == (
        f"{path} was not written: Not a directory. Choose a path that you may write."
    )


@pytest.mark.parametrize("name", ["folder", "."])
def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path, name: str) -> None:
    """The folder stays and no temporary file is left in or beside it."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArtifactError, match="was not written: "):
        save_json(tmp_path / name, {})
    assert leaves(tmp_path) == ["folder"]


def test_a_folder_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's reason is passed on, with what to do."""

    def refuse(path: Path, *args: Any) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    path = tmp_path / "x.json"
    with pytest.raises(ArtifactError) as refused:
        save_json(path, {})
    assert str(refused.value) == (
        f"{path} was not written: Permission denied. Choose a path that you may write."
    )


def test_a_full_disk_leaves_nothing(tiny_disk: Path) -> None:
    """The old file stands on a disk too small for the new one, and the message says why."""
    path = tiny_disk / "x.json"
    save_json(path, {"old": True})
    with pytest.raises(ArtifactError) as refused:
        save_json(path, {"text": "x" * 100_000})
    assert str(refused.value) == (
        f"{path} was not written: no space left on the disk. Free some and run again."
    )
    assert json.loads(path.read_text()) == {"old": True}
    assert leaves(tiny_disk) == ["x.json"]


def test_the_kernels_word_on_a_full_disk_is_understood(tmp_path: Path) -> None:
    """/dev/full answers every write with ENOSPC."""
    path = tmp_path / "x.json"

    def write() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            Path("/dev/full").write_text("rest")

    with pytest.raises(ArtifactError, match="no space left on the disk"):
        write()
    assert leaves(tmp_path) == []


def test_numbers_that_json_does_not_have_are_not_written(tmp_path: Path) -> None:
    """NaN in a table is a fault of ours and not a file for others to trip over."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_json(tmp_path / "x.json", {"amax": float("nan")})
    assert leaves(tmp_path) == []


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o664, 0o755])
def test_a_replaced_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    """And what is being written is never more open than the file that it replaces."""
    path = tmp_path / "x.json"
    path.write_text("old")
    path.chmod(mode)
    with atomic_write(path) as temporary:
        assert temporary.stat().st_mode & 0o777 == mode
        temporary.write_text("new")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", mode)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@needs_root
def test_a_replaced_file_keeps_its_owner(tmp_path: Path) -> None:
    """Under sudo a user's file stays the user's."""
    path = tmp_path / "x.json"
    path.touch()
    os.chown(path, 1234, 5678)
    save_json(path, {})
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 5678)


@pytest.fixture
def another_user() -> Iterator[Path]:
    """A folder for all, in which this process is nobody until the test ends."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        (Path(folder) / "x").write_text("old")
        yield Path(folder)
        os.seteuid(0)
        os.setegid(0)


def become_nobody() -> None:
    """Gives up root, for the file system."""
    os.setegid(65534)
    os.seteuid(65534)


@needs_root
def test_a_group_that_cannot_be_kept_gives_no_rights_to_another(another_user: Path) -> None:
    """What the old group had, the new one has only if all have it."""
    path = another_user / "x"
    os.chown(path, 65534, 5678)
    path.chmod(0o664)
    become_nobody()
    save_json(path, {})
    assert (path.stat().st_gid, path.stat().st_mode & 0o777) == (65534, 0o644)


@needs_root
def test_a_write_protected_file_is_not_replaced(another_user: Path) -> None:
    """A rename would need no permission on it."""
    path = another_user / "x"
    os.chown(path, 65534, 65534)
    path.chmod(0o444)
    become_nobody()
    with pytest.raises(ArtifactError, match=r"x was not written: Permission denied\."):
        save_json(path, {})
    with pytest.raises(ArtifactError, match=r"x was not written: Permission denied\."):
        check_outputs([path])
    assert (path.read_text(), leaves(another_user)) == ("old", ["x"])


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("links", [1, 3])
def test_a_link_stays_and_its_file_is_written(tmp_path: Path, links: int, exists: bool) -> None:
    """Through several links too, and where the file is new."""
    (tmp_path / "real").mkdir()
    path = tmp_path / "real" / "x.json"
    if exists:
        path.write_text("old")
    for index in range(links):
        (link := tmp_path / f"link{index}").symlink_to(path)
        path = link
    save_json(path, {"new": True})
    assert path.is_symlink()
    assert json.loads((tmp_path / "real" / "x.json").read_text()) == {"new": True}
    assert leaves(tmp_path / "real") == ["x.json"]


def test_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    """To itself, to a folder that is missing, to a folder and to a device."""
    for name, target in {"a": "a", "b": "no/x", "c": ".", "d": "/dev/null"}.items():
        (path := tmp_path / name).symlink_to(target)
        with pytest.raises(ArtifactError, match="was not written: "):
            save_json(path, {})
        with pytest.raises(ArtifactError, match="was not written: "):
            check_outputs([path])
        assert path.is_symlink()
    assert leaves(tmp_path) == ["a", "b", "c", "d"]


def test_a_report_into_a_pipe(tmp_path: Path) -> None:
    """The reader gets all of it, and the pipe stays; the check does not end its input."""
    os.mkfifo(path := tmp_path / "pipe")
    received: list[str] = []
    text = "a report \udcff\n" * 20_000
    reader = threading.Thread(target=lambda: received.append(path.read_text()), daemon=True)
    reader.start()
    check_outputs([], reports=[path])
    while reader.is_alive() and not received:
        # Until the reader has opened it.
        with suppress(ArtifactError):
            write_report(path, text)
            break
    reader.join(10)
    assert received == [text.replace("\udcff", r"\udcff")]
    assert path.is_fifo()


def test_a_pipe_that_nobody_reads_is_an_error(tmp_path: Path) -> None:
    """And does not hang."""
    os.mkfifo(path := tmp_path / "pipe")
    with pytest.raises(ArtifactError, match="pipe was not written: "):
        write_report(path, "text")
    assert path.is_fifo()


def test_devices_take_a_report_or_refuse_it() -> None:
    """None of them is replaced."""
    write_report(Path("/dev/null"), "text")
    with pytest.raises(ArtifactError, match="/dev/full was not written: no space left"):
        write_report(Path("/dev/full"), "text")
    assert Path("/dev/null").is_char_device()
    assert Path("/dev/full").is_char_device()


REPORT = (
    "import sys; from pathlib import Path; from edgeres.files import check_outputs, write_report; "
    "path = Path(sys.argv[1]); check_outputs([], reports=[path]); write_report(path, 'report ')"
)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "{link}"])
@pytest.mark.parametrize("redirected", ["| cat", "> {file}; cat {file}", ">> {file}; cat {file}"])
def test_a_report_to_stdout(name: str, redirected: str, tmp_path: Path) -> None:
    """Between what else is written there, into a pipe, a new file or the end of an old one."""
    (link := tmp_path / "link").symlink_to("/dev/stdout")
    (file := tmp_path / "file").write_text("old ")
    script = f"(echo -n 'before '; '{sys.executable}' -c \"{REPORT}\" {name}; echo after)"
    line = f"{script} {redirected}".format(link=link, file=file)
    ended = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    old = "old " if ">>" in redirected else ""
    assert (ended.stdout, ended.stderr) == (f"{old}before report after\n", "")
    assert leaves(tmp_path) == ["file", "link"]


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1"])
def test_what_is_no_report_does_not_go_to_stdout(name: str, tmp_path: Path) -> None:
    """Nor does it replace the file that a shell has opened."""
    code = "from edgeres.serialization import save_json; from pathlib import Path; " + (
        f"save_json(Path('{name}'), dict())"
    )
    ended = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -c \"{code}\" > {tmp_path / 'x'}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{name} was not written: It is a device or pipe, not a file." in ended.stderr
    assert (tmp_path / "x").read_text() == ""


KILLED = """
import os, signal, sys
from pathlib import Path
from edgeres.files import atomic_write
with atomic_write(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("name", ["x.json", "n" * 250, "a.*[!b]", "é" * 120])
def test_what_a_killed_run_left_is_removed_by_the_next(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With a line in the log; temporary files of other outputs, and of who knows what, stay."""
    path = tmp_path / name
    (tmp_path / f".y{name}"[:200]).touch()
    (tmp_path / ".x.json.0123.tmp").touch()
    before = leaves(tmp_path)
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert len(leaves(tmp_path)) == len(before) + 1  # the second removed the first one's
    check_outputs([path])
    assert leaves(tmp_path) == before
    assert caplog.messages == [
        f"Removed 1 temporary file of {path}, left by a run that was killed."
    ]
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    with atomic_write(path) as temporary:
        temporary.write_text("new")
    assert sorted({*leaves(tmp_path)} - {*before}) == [name]


def test_what_another_run_writes_is_left_to_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A lock shows that it lives, whoever looks: the same process, or another one."""
    path = tmp_path / "x"
    with atomic_write(path) as temporary:
        temporary.write_text("one")
        save_json(path, {"two": True})
        check_outputs([path])
        look = "import sys; from pathlib import Path; from edgeres.files import *; check_outputs([Path(sys.argv[1])])"
        subprocess.run([sys.executable, "-c", look, str(path)], check=True)
        assert temporary.read_text() == "one"
    assert (path.read_text(), leaves(tmp_path), caplog.messages) == ("one", ["x"], [])


def test_without_the_lock_a_living_run_would_lose_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the test above rests on."""
    path = tmp_path / "x"
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)

    def write() -> None:
        with atomic_write(path):
            check_outputs([path])

    with pytest.raises(ArtifactError, match="x was not written: No such file or directory"):
        write()


def _append(path: Path, name: int) -> None:
    for number in range(20):
        append_line(path, f"{name}.{number}." + "x" * 5000)


def test_lines_of_several_processes_stay_whole(tmp_path: Path) -> None:
    """Each added once and in one piece, the file made by whoever is first."""
    path = tmp_path / "runs.jsonl"
    workers = [
        multiprocessing.get_context("fork").Process(target=_append, args=(path, n))
        for n in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    lines = path.read_text().splitlines()
    assert sorted(lines) == sorted(f"{n}.{i}." + "x" * 5000 for n in range(3) for i in range(20))


def test_a_line_that_does_not_fit_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up in its middle; and the half of a killed one is removed by the next."""
    path = tmp_path / "runs.jsonl"
    append_line(path, "first")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ArtifactError, match="no space left"):
            append_line(path, "second")
    assert path.read_text() == "first\n"
    path.write_text("first\nhalf of" + "x" * 200_000)
    append_line(path, "second")
    assert path.read_text() == "first\nsecond\n"
    with pytest.raises(ArtifactError, match=r"the folder .* does not exist"):
        append_line(tmp_path / "no" / "runs.jsonl", "line")
    with pytest.raises(ArtifactError, match="device or pipe"):
        append_line(Path(os.devnull), "line")

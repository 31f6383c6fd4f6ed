"""A file is written atomically, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeres.errors import ArtifactError
from edgeres.files import atomic_write
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
    touch = Path.touch

    def interrupted(self: Path, *args: Any, **named: Any) -> None:
        touch(self, *args, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "touch", interrupted)
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

    def refuse(self: Path, *args: Any, **named: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "touch", refuse)
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

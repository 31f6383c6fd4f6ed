"""Files by hash: nothing twice, nothing damaged, and a broken transfer goes on."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from edgeres.errors import ArtifactError
from edgeres.fleet.job import Job, JobFile
from edgeres.fleet.store import Receipt, Store
from edgeres.serialization import json_text

CONTENT = b"the engine"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
JOB = Job(words=("bench",), files=(JobFile(name="in/engine/e", sha256=SHA256, size=len(CONTENT)),))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty one."""
    return Store(tmp_path / "cache")


def receive(store: Store) -> Receipt:
    """Announces the job."""
    return store.receive(JOB, json_text(JOB).encode())


def test_a_file_arrives_once(store: Store) -> None:
    """It is missing at first, then laid out, and not missing for the next job."""
    receipt = receive(store)
    Path(receipt.missing[0].path).write_bytes(CONTENT)
    folder = store.folder_of(receipt.job)
    store.lay_out(JOB, folder)
    assert (folder / "in/engine/e").read_bytes() == CONTENT
    assert receive(store).missing == ()


@pytest.mark.parametrize("arrived", [None, b"", b"the eng", b"the engino", b"the engine and more"])
def test_what_did_not_arrive_whole_is_not_used(store: Store, arrived: bytes | None) -> None:
    """By its size and its hash."""
    receipt = receive(store)
    if arrived is not None:
        Path(receipt.missing[0].path).write_bytes(arrived)
    with pytest.raises(ArtifactError, match="in/engine/e did not arrive whole"):
        store.lay_out(JOB, store.folder_of(receipt.job))
    assert len(receive(store).missing) == 1


def test_a_broken_transfer_goes_on(store: Store) -> None:
    """Once nobody writes to its part any longer; before that the next one has a part of its own."""
    part = Path(receive(store).missing[0].path)
    part.write_bytes(CONTENT[:4])
    beside = receive(store).missing[0]
    assert (beside.present, beside.path != str(part)) == (0, True)
    os.utime(part, (time.time() - 60,) * 2)
    resumed = receive(store).missing[0]
    assert resumed.present == 4
    with Path(resumed.path).open("ab") as file:
        file.write(CONTENT[4:])
    receipt = receive(store)
    store.lay_out(JOB, store.folder_of(receipt.job))
    assert receive(store).missing == ()


def test_folders_of_old_jobs_go(store: Store, tmp_path: Path) -> None:
    """After a week; a newer one stays."""
    old, new = receive(store).job, receive(store).job
    os.utime(store.folder_of(old), (time.time() - 8 * 86_400,) * 2)
    receive(store)
    store.folder_of(new)
    with pytest.raises(ArtifactError, match="There is no job"):
        store.folder_of(old)


@pytest.mark.parametrize("name", ["../files", "/etc", ".", "", "a/b"])
def test_a_job_s_name_is_no_path(store: Store, name: str) -> None:
    """Whoever names a job cannot leave the folder of jobs."""
    with pytest.raises(ArtifactError, match="There is no job"):
        store.folder_of(name)

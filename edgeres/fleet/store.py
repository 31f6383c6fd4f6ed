"""Files by their hash: what was sent once is not sent again, and a broken transfer goes on.

A file arrives under a name of its own beside the others and is taken in only when its content has
the hash that it was announced with.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgeres.errors import ArtifactError
from edgeres.files import make_folder
from edgeres.fleet.job import INPUTS, OUTPUTS, Job, sha256_of
from edgeres.serialization import SCHEMA_VERSION
from edgeres.version import __version__

JOB_FILE = "job.json"
"""A job itself, in its folder."""

_QUIET_S = 30.0
"""A part that nobody has written to for so long is taken over by the next transfer."""
_KEPT_S = 7 * 86_400.0
"""Folders of jobs that ended are removed after so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A file that is still to come, and where it is written to."""

    sha256: str
    path: str
    present: int
    """Bytes that arrived before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a machine answers to a job's JSON: where it will run, and what it lacks for that."""

    kind: ClassVar[str] = "job-receipt"
    schema_version: ClassVar[int] = SCHEMA_VERSION
    json_keys: ClassVar[tuple[str, ...]] = ("kind", "schema_version", "*")

    edgeres: str = __version__
    job: str
    """Name of the job's folder."""
    missing: tuple[Part, ...]


def default_root() -> Path:
    """Returns the folder of files and jobs, in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # Source: XDG Base Directory Specification; a relative path is to be ignored.
    base = Path(cache) if cache.startswith("/") else Path.home() / ".cache"
    return base / "edgeres"


class Store:
    """Files by hash, and the folders of jobs, below one folder."""

    def __init__(self, root: Path) -> None:
        """Creates the folders.

        Raises:
            ArtifactError: they cannot be created.
        """
        self._files, self._jobs = root / "files", root / "jobs"
        make_folder(self._files)
        make_folder(self._jobs)

    def receive(self, job: Job, text: bytes) -> Receipt:
        """Keeps a job's JSON, and returns which of its files are missing here."""
        self._forget_old_jobs()
        name = secrets.token_hex(16)
        (self._jobs / name).mkdir(mode=0o700)
        (self._jobs / name / JOB_FILE).write_bytes(text)
        self._take_in_all(job)
        wanted = {file.sha256 for file in job.files}
        missing = tuple(self._part(sha256) for sha256 in sorted(wanted) if not self._has(sha256))
        return Receipt(job=name, missing=missing)

    def write(self, name: str, offset: int, content: bytes) -> None:
        """Writes a block of a part.

        Args:
            name: of the part's file, as `receive` chose it.
            offset: of the block, in bytes.
            content: the block.

        Raises:
            ArtifactError: the name is no part's.
        """
        if not re.fullmatch(r"[0-9a-f]{64}\.[0-9a-f]{8}\.part", name):
            raise ArtifactError(f"{name!r:.80} is no part of a file. Send the job again.")
        descriptor = os.open(self._files / name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.seek(offset)
            file.write(content)

    def take_in(self, sha256: str, part: Path) -> None:
        """Adds a file that has arrived.

        Raises:
            ArtifactError: its content has another hash; it is removed.
        """
        if sha256_of(part) != sha256:
            part.unlink()
            raise ArtifactError(
                f"A file arrived damaged: its SHA-256 is not {sha256:.12}... Run the command again."
            )
        part.chmod(0o444)
        part.replace(self._files / sha256)

    def folder_of(self, name: str) -> Path:
        """Returns the folder of a job that was received.

        Raises:
            ArtifactError: there is none of that name.
        """
        folder = self._jobs / name
        if not name.isalnum() or not folder.is_dir():
            raise ArtifactError(f"There is no job {name!r:.40} here. Send it again.")
        return folder

    def lay_out(self, job: Job, folder: Path) -> None:
        """Makes the job's folders, and its files in them.

        Raises:
            ArtifactError: a file did not arrive, or arrived damaged.
        """
        self._take_in_all(job)
        for file in job.files:
            if not self._has(file.sha256):
                raise ArtifactError(f"{file.name} did not arrive whole. Run the command again.")
        for part_of_job in (INPUTS, OUTPUTS):
            (folder / part_of_job).mkdir()
        for path in job.outputs:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
        for file in job.files:
            place = folder / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                # The store's files are read-only, and edgeres replaces files whole.
                os.link(self._files / file.sha256, place)
            except OSError:
                shutil.copyfile(self._files / file.sha256, place)

    def _take_in_all(self, job: Job) -> None:
        """Adds those of the job's files whose parts are complete."""
        for sha256, size in {file.sha256: file.size for file in job.files}.items():
            for part in () if self._has(sha256) else self._parts(sha256):
                # Another transfer of the same file may be under way: its part is not complete yet.
                with suppress(ArtifactError, FileNotFoundError):
                    if part.stat().st_size == size:
                        self.take_in(sha256, part)
                        break

    def _has(self, sha256: str) -> bool:
        return (self._files / sha256).is_file()

    def _parts(self, sha256: str) -> list[Path]:
        return sorted(self._files.glob(f"{sha256}.*.part"))

    def _part(self, sha256: str) -> Part:
        """Returns where a file is to be written to: what a broken transfer left, or a new name."""
        path = self._files / f"{sha256}.{secrets.token_hex(4)}.part"
        for left in self._parts(sha256):
            # The rename succeeds for one of several who want it, so no two write to one file.
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _QUIET_S:
                    left.rename(path)
                    return Part(sha256=sha256, path=str(path), present=path.stat().st_size)
        return Part(sha256=sha256, path=str(path), present=0)

    def _forget_old_jobs(self) -> None:
        for folder in self._jobs.iterdir():
            with suppress(FileNotFoundError):
                if time.time() - folder.stat().st_mtime > _KEPT_S:
                    shutil.rmtree(folder, ignore_errors=True)

"""Files of this machine as a job names them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeres.core.artifacts import manifest_path
from edgeres.errors import DataError
from edgeres.fleet.job import INPUTS, JobFile, sha256_of


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInput:
    """A file or folder that a job reads."""

    word: str
    """Its path there, for an option."""
    files: tuple[JobFile, ...] = ()
    """Empty for what is there already, under the same path."""
    sources: tuple[Path, ...] = ()
    """The same files here."""

    @property
    def by_hash(self) -> dict[str, Path]:
        """The files here, by SHA-256."""
        hashes = (file.sha256 for file in self.files)
        return dict(zip(hashes, self.sources, strict=True))


def job_input(path: Path, role: str) -> JobInput:
    """Returns an input as a job has it: below a folder of its role, with the manifest of an engine.

    Raises:
        DataError: it is missing, or a file's name cannot be that of a file of a job.
        ArtifactError: a file cannot be read.
    """
    found = tuple(_files_of(path))
    return JobInput(
        word=f"{INPUTS}/{role}/{path.name}",
        files=tuple(job_file(file, f"{INPUTS}/{role}/{inside}") for file, inside in found),
        sources=tuple(file.absolute() for file, _ in found),
    )


def job_file(path: Path, name: str) -> JobFile:
    """Returns a file as a job names it.

    Raises:
        DataError: its name cannot be that of a file of a job.
        ArtifactError: it cannot be read.
    """
    try:
        return JobFile(name=name, sha256=sha256_of(path), size=path.stat().st_size)
    except ValueError as error:
        raise DataError(f"{path} cannot be sent: {error}. Rename it.") from error


def _files_of(path: Path) -> Iterator[tuple[Path, str]]:
    """Yields the files of an input with their paths below its folder."""
    if path.is_dir():
        visited = set()
        for folder, subfolders, names in os.walk(path, followlinks=True):
            # A folder that links lead to twice, or into itself, is sent once.
            real = Path(folder).resolve()
            if real in visited:
                subfolders.clear()
                continue
            visited.add(real)
            for file in (Path(folder) / name for name in sorted(names)):
                if file.is_file():
                    yield file, (path.name / file.relative_to(path)).as_posix()
    elif path.is_file():
        yield path, path.name
        # A manifest belongs to its engine.
        if (manifest := manifest_path(path)).is_file():
            yield manifest, manifest.name
    else:
        raise DataError(f"{path} does not exist. Check the path.")

"""A job and its result, as JSON; what they may name, and which versions work together."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from edgeres.errors import ArtifactError, ConfigError, EdgeresError, MismatchError
from edgeres.input_files import InputKind, open_input, sha256_of_open
from edgeres.serialization import SCHEMA_VERSION, from_json, parse_json
from edgeres.version import __version__

COMMANDS = ("bench", "build-engine", "calibrate", "doctor")
"""Commands that a job may be of."""

INPUTS, OUTPUTS = "in", "out"
"""Folders of a job for what it reads and what it writes."""

_MAX_BYTES = 64 << 20
"""Of a job's JSON: some 300,000 images in files of their own."""

CONTENT = InputKind(name="a file of a job", most_bytes=None)

SHARED = "EDGERES_SHARED"
"""Variable with the folders, separated as PATH is, that jobs may read beside their own."""


class JobError(EdgeresError):
    """A command that ended with an error on another machine, with its exit code there."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        """Keeps the code that the command has there."""
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFile:
    """A file of a job, known by its content."""

    name: str
    """Path below the job's folder, with /."""
    sha256: str
    size: int
    """In bytes."""

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.sha256) != 64 or not set(self.sha256) <= set("0123456789abcdef"):
            raise ValueError(f"{self.sha256!r:.80} is no SHA-256")
        if self.size < 0:
            raise ValueError(f"{self.name} has {self.size} bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One command to run on another machine."""

    kind: ClassVar[str] = "job"
    schema_version: ClassVar[int] = SCHEMA_VERSION
    json_keys: ClassVar[tuple[str, ...]] = ("kind", "schema_version", "*")

    edgeres: str = __version__
    """Version that made the job."""
    words: tuple[str, ...]
    """The command and its options; paths are those of `files` and `outputs`."""
    files: tuple[JobFile, ...] = ()
    outputs: tuple[str, ...] = ()
    """Paths below `out` that come back where the command has written them."""
    holder: str = ""
    """Who runs it, shown to whoever waits for the board."""
    columns: int = 80
    """Width of the tables that it prints."""

    def __post_init__(self) -> None:
        if not self.words or self.words[0] not in COMMANDS:
            command = self.words[0] if self.words else ""
            raise ValueError(f"{command!r:.40} is none of {', '.join(COMMANDS)}")
        for path in (*(file.name for file in self.files), *self.outputs):
            check_name(path)
        if any(PurePosixPath(file.name).parts[0] != INPUTS for file in self.files) or any(
            PurePosixPath(path).parts[0] != OUTPUTS for path in self.outputs
        ):
            raise ValueError(f"files stand below {INPUTS}/, outputs below {OUTPUTS}/")
        names = [file.name for file in self.files]
        if len(set(names)) < len(names):
            raise ValueError("two files have one name")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """How a job's command ended."""

    kind: ClassVar[str] = "job-result"
    schema_version: ClassVar[int] = SCHEMA_VERSION
    json_keys: ClassVar[tuple[str, ...]] = ("kind", "schema_version", "*")

    exit_code: int
    """As a shell shows it: 128 + N after signal N."""
    signal: str | None
    """Name of the signal that ended the process, such as SIGSEGV."""
    stdout: str
    messages: str
    """What it wrote to stderr, progress aside."""
    outputs: tuple[JobFile, ...]
    folder: str
    """The job's folder on its machine, in which the outputs stand."""


def check_name(name: str) -> None:
    """Checks that a name is a path inside the job's folder.

    Raises:
        ValueError: it is absolute, leads out of the folder, or has characters that no file needs.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or len(path.parts) < 2 or str(path) != name:
        raise ValueError(f"{name!r:.80} is no path inside the job's folder")
    if any(ord(character) < 32 or character == "\x7f" for character in name) or "\\" in name:
        raise ValueError(f"{name!r:.80} has a control character or backslash")


def read_job(text: str | bytes) -> Job:
    """Returns the job of its JSON.

    Raises:
        ArtifactError: it is damaged, or names what a job may not.
        MismatchError: it is of an edgeres that this one cannot work with.
    """
    source, remedy = "The job is damaged", "Send it again."
    if len(text) > _MAX_BYTES:
        raise ArtifactError(f"{source}: {len(text)} bytes, at most {_MAX_BYTES}. {remedy}")
    try:
        raw = parse_json(text)
    except ValueError as error:
        raise ArtifactError(f"{source}: {error}. {remedy}") from error
    if isinstance(raw, dict):
        # Before its keys: those of another version may be others.
        check_version(str(raw.get("edgeres")))
    return from_json(raw, Job, source=source, remedy=remedy)


def check_version(other: str) -> None:
    """Checks that two versions of edgeres can work together: the same but for the last number.

    Raises:
        MismatchError: they cannot.
    """
    if other.split(".")[:2] != __version__.split(".")[:2]:
        raise MismatchError(
            f"A job of edgeres {other:.20} cannot run with edgeres {__version__}; the first two "
            "numbers must agree. Install the same version on both machines."
        )


def shared_folders() -> tuple[Path, ...]:
    """Returns the folders of this machine that jobs may read beside their own."""
    return tuple(Path(each) for each in os.environ.get(SHARED, "").split(os.pathsep) if each)


def check_paths(read: tuple[Path, ...], written: tuple[Path, ...], folder: Path) -> None:
    """Checks that every path that a job's options name stands inside its folder.

    What is only read may also stand in a folder that this machine shares.

    Raises:
        ConfigError: one leads out, through a link too.
    """
    for paths, roots in ((read, (folder, *shared_folders())), (written, (folder,))):
        for path in paths:
            resolved = (folder / path).resolve()
            if not any(resolved.is_relative_to(root.resolve()) for root in roots):
                raise ConfigError(
                    f"The job names {path}, which is outside its folder. Refused; what boards may "
                    f"read by its path there stands in the folders of {SHARED}."
                )


def sha256_of(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file of a job.

    Raises:
        ArtifactError: it cannot be read.
    """
    with open_input(path, CONTENT) as file:
        return sha256_of_open(path, CONTENT, file)

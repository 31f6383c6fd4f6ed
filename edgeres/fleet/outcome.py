"""How a job's command ended, on the machine that ordered it: its error, or what it wrote."""

from __future__ import annotations

import getpass
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from edgeres.core.artifacts import load_engine, manifest_path
from edgeres.core.described import save_described
from edgeres.files import atomic_write
from edgeres.fleet.job import JobError, JobResult


def holder_here() -> str:
    """Returns who orders a job, for whoever waits for the board."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def check_result(result: JobResult, on: str) -> None:
    """Checks that a job ended with a result.

    Raises:
        JobError: it ended with an error, or by a signal.
    """
    if result.signal is not None:
        raise JobError(
            f"On {on} the command was ended by {result.signal}. Nothing was written here.",
            result.exit_code,
        )
    if not result.stdout and result.exit_code:
        text = "\n".join(without_error(result.messages)[1]).removeprefix("Error: ")
        raise JobError(f"On {on}: {text or 'the command failed'}", result.exit_code)


def without_error(messages: str) -> tuple[list[str], list[str]]:
    """Returns the lines before the error, and those of the error."""
    lines = messages.splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith("Error: ")), len(lines))
    return lines[:first], lines[first:]


def place_outputs(result: JobResult, targets: Mapping[str, Path], folder: Path) -> None:
    """Replaces files here with those that a job has written, an engine with its manifest.

    Args:
        result: of the job.
        targets: where its outputs go, by their names in the job.
        folder: that they arrived in.

    Raises:
        ArtifactError: an output cannot be written, or is not what it is called.
    """
    # A board may send back what was ordered, and nothing else.
    written = {file.name for file in result.outputs} & targets.keys()
    for name in sorted(written):
        beside = str(manifest_path(Path(name)))
        if beside in written:
            engine = load_engine(folder / name)
            target = targets[name]
            save_described(target, engine.content, manifest_path(target), engine.manifest)
        elif not any(name == str(manifest_path(Path(other))) for other in written):
            with atomic_write(targets[name]) as temporary:
                shutil.copyfile(folder / name, temporary)

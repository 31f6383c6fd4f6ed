"""A folder of files, written whole or not at all."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path

from edgeres.errors import ArtifactError, ConfigError
from edgeres.files import write_error

Files = Mapping[str, bytes]
"""Contents by the path in a folder, with forward slashes."""


def check_new_folder(path: Path) -> None:
    """Checks that a folder is new or empty, so that nothing of another deployment stays in it.

    Raises:
        ConfigError: it has files, or is a file.
    """
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists() or path.is_symlink():
        raise ConfigError(
            f"{path} is there already, and a deployment is not mixed with other files. Remove it, "
            "or pass another folder with -o."
        )


def write_folder(path: Path, files: Files) -> None:
    """Writes files below a folder that is new or empty.

    Raises:
        ConfigError: the folder has files.
        ArtifactError: a file cannot be written; nothing is left then.
    """
    check_new_folder(path)
    # Beside it, since a rename is atomic only within one file system.
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"
    try:
        _remove_abandoned(path)
        temporary.mkdir(parents=True)
        with _locked(temporary):
            for name, content in files.items():
                file = temporary / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            if path.is_dir():
                path.rmdir()
            temporary.rename(path)
    except OSError as error:
        raise ArtifactError(write_error(path, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Locks a folder while the block runs; the system takes the lock off when the process ends.

    Raises:
        OSError: another process has locked it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove_abandoned(path: Path) -> None:
    """Removes what killed processes have left of writing the folder: nobody has locked it."""
    name = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{16}\.tmp")
    # A folder that may be written to but not listed is no reason to refuse the output.
    with suppress(OSError):
        for entry in path.parent.iterdir():
            if name.fullmatch(entry.name):
                with suppress(OSError), _locked(entry):
                    shutil.rmtree(entry)


def template(name: str, **values: object) -> str:
    """Returns a text of `templates` with `@KEY@` replaced by the values of its keys."""
    text = (resources.files("edgeres.deploy") / "templates" / name).read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    return text

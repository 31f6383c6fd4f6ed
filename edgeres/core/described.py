"""A file and the JSON beside it that describes it, replaced as a pair: an engine, a timing cache.

Two files cannot be renamed at one instant. So while they are replaced, the description of the new
file also holds that of the old one, and whichever of the two files stands there has its own::

    old file, old description                   before
    old file, new description + old one         the description is renamed first
    new file, new description + old one         then the file
    new file, new description                   then a description without the old one

A process that is killed anywhere in between leaves a pair that loads. All space on the disk is
taken before the first rename.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from edgeres.errors import ArtifactError, EdgeresError
from edgeres.files import atomic_write, remove_file
from edgeres.input_files import ENGINE, JSON, is_file, read_bytes
from edgeres.serialization import Document, from_json, json_text, load_json, to_json

REPLACED = "replaced"
"""Key of the description of the file that is being replaced."""

D = TypeVar("D", bound=Document)


def save_described(path: Path, content: bytes, beside: Path, description: Document) -> None:
    """Writes a file and its description, both or neither; an earlier pair loads until then.

    Raises:
        ArtifactError: the files cannot be written; what stood there stands again.
    """
    transition = to_json(description)
    with suppress(ArtifactError):
        # An earlier run that was killed may have left two descriptions; the file has one of them.
        earlier = load_json(beside, description.kind)
        older = earlier.pop(REPLACED, None)
        if _has_hash_of(path, older):
            earlier = older
        transition[REPLACED] = earlier
    with (
        _restored_on_failure(path, content, beside),
        # Left in the reverse order: the file is renamed before the description without the old one.
        atomic_write(beside) as described,
        atomic_write(path) as temporary,
    ):
        described.write_text(json_text(description), encoding="utf-8")
        temporary.write_bytes(content)
        with atomic_write(beside) as temporary:
            temporary.write_text(json_text(transition), encoding="utf-8")


def load_described(beside: Path, cls: type[D], *, hash_key: str, sha256: str, remedy: str) -> D:
    """Returns the description of the file of a hash; of two, the one that is about it.

    Args:
        beside: the JSON file.
        cls: the description.
        hash_key: key of the file's SHA-256 in it.
        sha256: the file's, which the caller compares: a file that was changed has no description.
        remedy: a sentence on what to do where it is damaged.

    Raises:
        ArtifactError: unreadable, another kind of file or version, or damaged.
    """
    raw = load_json(beside, cls.kind)
    replaced: Any = raw.pop(REPLACED, None)
    if isinstance(replaced, dict) and replaced.get(hash_key) == sha256:
        raw = replaced
    damage = f"is a damaged {cls.kind} file"
    return from_json(raw, cls, source=str(beside), remedy=remedy, damage=damage)


def _has_hash_of(path: Path, description: Any) -> bool:
    """Whether any value of a description is the hash of the file at `path`."""
    if not isinstance(description, dict) or not is_file(path, ENGINE):
        return False
    return hashlib.sha256(read_bytes(path, ENGINE)).hexdigest() in map(str, description.values())


@contextmanager
def _restored_on_failure(path: Path, content: bytes, beside: Path) -> Iterator[None]:
    """Leaves the description as it was when the block fails before the file was renamed."""
    # A folder in its place is refused where it would be written.
    before = read_bytes(beside, JSON) if is_file(beside, JSON) else None
    try:
        yield
    except BaseException:
        # Whatever fails here, the description with both is valid for the file that stands there.
        with suppress(EdgeresError, OSError):
            renamed = is_file(path, ENGINE) and read_bytes(path, ENGINE) == content
            if before is None and not renamed:
                remove_file(beside)
            elif before is not None and not renamed and read_bytes(beside, JSON) != before:
                with atomic_write(beside) as temporary:
                    temporary.write_bytes(before)
        raise

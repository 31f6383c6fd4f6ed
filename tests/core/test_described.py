"""A file and its description: at every instant of their replacement a pair that loads."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import pytest

from edgeres.core.described import REPLACED, load_described, save_described
from edgeres.errors import ArtifactError


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A description."""

    kind: ClassVar[str] = "edgeres-note"
    schema_version: ClassVar[int] = 1
    json_keys = ("schema_version", "kind", "*")

    sha256: str
    text: str


class Killed(BaseException):
    """Stands for a process that is no more: nothing after it does anything."""


def save(folder: Path, content: bytes) -> None:
    """Writes a pair."""
    note = Note(sha256=sha256(content).hexdigest(), text=content.decode())
    save_described(folder / "x", content, folder / "x.json", note)


def load(folder: Path) -> str:
    """Returns the text that the description of the file in a folder has."""
    actual = sha256((folder / "x").read_bytes()).hexdigest()
    note = load_described(folder / "x.json", Note, hash_key="sha256", sha256=actual, remedy="")
    assert note.sha256 == actual
    return note.text


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets a process die before its `step`th rename: from then on it changes no file."""
    counted, rename = [0], Path.replace

    def replace(self: Path, target: Path) -> Path:
        counted[0] += 1
        if counted[0] == step:
            for name in ("replace", "unlink", "write_bytes", "write_text"):
                monkeypatch.setattr(Path, name, dead)
            monkeypatch.setattr(os, "open", dead)
            raise Killed
        return rename(self, target)

    def dead(*_: Any, **named: Any) -> Any:
        raise Killed

    monkeypatch.setattr(Path, "replace", replace)
    return monkeypatch.undo


@pytest.mark.parametrize("steps", [(1,), (2,), (3,), (2, 2), (3, 3), (2, 3), (3, 2), (3, 2, 1)])
def test_a_kill_between_any_two_renames_leaves_a_pair(
    tmp_path: Path, steps: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one or the new one, and so after several kills in a row; then the next run is whole."""
    save(tmp_path, b"0")
    known = {"0"}
    for number, step in enumerate(steps, start=1):
        undo = killed_at(step, monkeypatch)
        with pytest.raises(Killed):
            save(tmp_path, str(number).encode())
        undo()
        known.add(str(number))
        assert load(tmp_path) in known
        # A third of the renames before the file's own: the old one; after it: the new one.
        assert (load(tmp_path) == str(number)) == (step == 3)
    save(tmp_path, b"last")
    assert load(tmp_path) == "last"
    assert REPLACED not in json.loads((tmp_path / "x.json").read_text())


def test_a_kill_in_a_first_run_leaves_no_file_without_its_description(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine without a manifest could be taken for another tool's."""
    for step in (1, 2, 3):
        undo = killed_at(step, monkeypatch)
        with pytest.raises(Killed):
            save(tmp_path, b"new")
        undo()
        assert (tmp_path / "x").exists() == (step == 3)
        assert not (tmp_path / "x").exists() or load(tmp_path) == "new"


def test_renamed_in_the_plain_order_a_kill_would_lose_the_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tests above rest on: without the old description, the old file has none."""
    save(tmp_path, b"0")
    undo = killed_at(2, monkeypatch)
    with pytest.raises(Killed):
        save(tmp_path, b"1")
    undo()
    raw = json.loads((tmp_path / "x.json").read_text())
    del raw[REPLACED]
    (tmp_path / "x.json").write_text(json.dumps(raw))
    with pytest.raises(AssertionError):
        load(tmp_path)


@pytest.mark.parametrize("replaced", [None, 1, [], {}, {"sha256": "0"}, {"sha256": 3}])
def test_a_damaged_old_description_does_not_hide_the_new_one(tmp_path: Path, replaced: Any) -> None:
    """It counts only for the file that it names, and is then read as strictly as any."""
    save(tmp_path, b"0")
    raw = json.loads((tmp_path / "x.json").read_text())
    (tmp_path / "x.json").write_text(json.dumps({**raw, REPLACED: replaced}))
    assert load(tmp_path) == "0"
    damaged = {**raw, "text": 1}
    (tmp_path / "x.json").write_text(json.dumps({**raw, "sha256": "", REPLACED: damaged}))
    with pytest.raises(ArtifactError, match=r"x\.json is a damaged edgeres-note file \(text: "):
        load(tmp_path)

"""An engine and its manifest appear together or not at all, whatever goes wrong in between."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from digits import Digits

from edgeres.core.artifacts import EngineArtifact, load_engine, manifest_path
from edgeres.core.contract import preset
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.errors import ArtifactError
from edgeres.onnx_file import LoweredNetwork, load_onnx
from edgeres.quantization.lowering import float_network
from edgeres.serialization import json_text
from edgeres.targets.engine_files import Built, save_engine

CONFIG = BuildRequest(target="tensorrt", precision=Precision.FP32)
OLD = Built(engine=b"old engine", versions={"tensorrt": "10.3.0"})
NEW = replace(OLD, engine=b"new engine", flags=("STRONGLY_TYPED",))

_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{16}\.tmp")
"""Name of the file that becomes another one when it is whole."""

FAILURES = {
    "full disk": (OSError(errno.ENOSPC, "No space left on device"), ArtifactError),
    "Ctrl-C": (KeyboardInterrupt(), KeyboardInterrupt),
}


@pytest.fixture(scope="module")
def network(digits: Digits) -> LoweredNetwork:
    """Any network: its bytes are not what is written here."""
    return float_network(load_onnx(digits.model), Precision.FP32)


def save(built: Built, network: LoweredNetwork, path: Path) -> EngineArtifact:
    """Writes an engine with its manifest."""
    return save_engine(built, network, CONFIG, preset("digits"), path)


def contents(folder: Path) -> dict[str, bytes]:
    """Returns every file of a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def failing(operation: str, name: str, error: BaseException) -> Callable[..., object]:
    """Returns `Path.operation`, except that it fails where it is about the file of that name."""
    original = getattr(Path, operation)

    def patched(self: Path, *arguments: Any, **options: Any) -> object:
        temporary = _TEMPORARY.fullmatch(self.name)
        if temporary is not None and temporary[1] == name:
            raise error
        return original(self, *arguments, **options)

    return patched


def test_what_is_written_is_what_is_loaded(network: LoweredNetwork, tmp_path: Path) -> None:
    """The plan pure, the manifest beside it, and no other file."""
    saved = save(NEW, network, tmp_path / "a.plan")
    assert contents(tmp_path).keys() == {"a.plan", "a.plan.json"}
    assert saved.path.read_bytes() == b"new engine"
    assert load_engine(saved.path) == saved
    assert manifest_path(saved.path).read_text() == json_text(saved.manifest)


def test_a_pair_is_replaced_as_a_pair(network: LoweredNetwork, tmp_path: Path) -> None:
    """Building to the same place twice leaves the second."""
    save(OLD, network, tmp_path / "a.plan")
    save(NEW, network, tmp_path / "a.plan")
    assert load_engine(tmp_path / "a.plan").manifest.flags == NEW.flags


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("had", [False, True], ids=["first build", "rebuild"])
@pytest.mark.parametrize(
    ("operation", "name"),
    [
        ("write_bytes", "a.plan"),
        ("write_text", "a.plan.json"),
        ("replace", "a.plan.json"),
        ("replace", "a.plan"),
    ],
)
def test_both_or_neither(
    operation: str,
    name: str,
    had: bool,
    failure: str,
    network: LoweredNetwork,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A failure at any step leaves what stood there before, to the byte."""
    path = tmp_path / "a.plan"
    if had:
        save(OLD, network, path)
    before = contents(tmp_path)
    error, raised = FAILURES[failure]
    monkeypatch.setattr(Path, operation, failing(operation, name, error))
    with pytest.raises(raised):
        save(NEW, network, path)
    monkeypatch.undo()
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["a.plan", "a.plan.json"])
def test_a_folder_in_the_way_is_refused(name: str, network: LoweredNetwork, tmp_path: Path) -> None:
    """In the place of either file; the other does not appear."""
    (tmp_path / name).mkdir()
    with pytest.raises(ArtifactError, match=f"{name} was not written: Is a directory"):
        save(NEW, network, tmp_path / "a.plan")
    assert [path.name for path in tmp_path.iterdir()] == [name]

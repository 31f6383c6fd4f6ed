"""What goes wrong on someone's desk, each through the command line: a sentence, and no debris.

Every refusal has its exit code, an empty standard output, no traceback and leaves the output
folder as it was. The rules themselves are tested beside the code that holds them.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from commands import passed, refusal
from digits import QUICK, Digits, save_manifest
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image

from edgeres.core.artifacts import load_engine, manifest_path
from edgeres.core.contract import PRESETS
from edgeres.core.table import load_table
from edgeres.images import image_hash

EXPORT = "export resnet20 --weights {weights} --preset digits -o {out}/made "
CALIBRATE = "calibrate {model} --data {data} -o {out}/made "
BUILD = "build-engine {model} --calibration {table} -o {out}/made "
BENCH = "bench {engine} --reference {model} --data {test} " + QUICK

Refuse = Callable[..., str]


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """An output folder that must be empty in the end."""
    folder = tmp_path / "out"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def refuse(digits: Digits, out: Path) -> Refuse:
    """Runs a line on the digits' files, some exchanged, and returns what it is refused with."""

    def refused(line: str, code: int = 1, **files: object) -> str:
        return refusal(*digits.words(line, **{"out": out, **files}), code=code)

    return refused


@pytest.fixture
def foreign(digits: Digits, tmp_path: Path) -> Path:
    """The digits' model as another tool would have exported it: without metadata."""
    model = onnx.load(digits.model)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    return tmp_path / "foreign.onnx"


def test_a_file_that_is_no_checkpoint(refuse: Refuse, tmp_path: Path) -> None:
    """Whatever it is called."""
    path = tmp_path / "notes.pth"
    path.write_text("learning rate 0.1")
    said = refuse(EXPORT, weights=path)
    assert said.startswith(f"{path} is no checkpoint. Expected a file of torch.save")


class _Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_pickle_that_would_run_code(writer: str, refuse: Refuse, tmp_path: Path) -> None:
    """It is refused, and nothing was run."""
    import torch

    path, trace = tmp_path / "net.pth", tmp_path / "trace"
    content = {"state_dict": _Payload(trace)}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    said = refuse(EXPORT, weights=path)
    assert f"{path} was refused: " in said
    assert "Nothing was run." in said
    assert not trace.exists()
    pickle.loads(pickle.dumps(content))  # the payload works where it is run
    assert trace.exists()


def test_truncated_safetensors(refuse: Refuse, digits: Digits, tmp_path: Path) -> None:
    """A download that broke off."""
    path = tmp_path / "net.safetensors"
    path.write_bytes(digits.weights.read_bytes()[:-1000])
    said = refuse(EXPORT, weights=path)
    assert said.startswith(f"{path} is truncated or no safetensors file")
    assert said.endswith("Copy or download it again.")


def test_a_checkpoint_of_another_architecture(refuse: Refuse, digits: Digits) -> None:
    """What differs is listed, and the architecture whose shapes these are is named."""
    said = refuse(EXPORT.replace("resnet20", "resnet32"))
    assert said.startswith(f"{digits.weights} does not fit resnet32: ")
    assert "missing (layer1.3.conv1.weight, " in said
    assert "These are the shapes of resnet20 or plain20: export that architecture " in said


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(
    value: float, refuse: Refuse, digits: Digits, tmp_path: Path
) -> None:
    """One value among 270,000 is enough, and its tensor is named."""
    from safetensors.torch import load_file, save_file

    path = tmp_path / "net.safetensors"
    weights = load_file(digits.weights)
    weights["layer2.0.conv1.weight"][3, 2, 1, 0] = value
    save_file(weights, path)
    said = refuse(EXPORT, weights=path)
    assert f"{path} has NaN or infinite values in 1 tensor (layer2.0.conv1.weight)." in said


def test_a_file_that_is_no_model(refuse: Refuse, digits: Digits, tmp_path: Path) -> None:
    """Text, a part of a model, a checkpoint and nothing at all."""
    path = tmp_path / "m.onnx"
    for content in (b"a model", digits.model.read_bytes()[:5000], digits.weights.read_bytes(), b""):
        path.write_bytes(content)
        said = refuse(BUILD, model=path)
        assert said.startswith(f"{path} ")
        assert "onnx" in said.lower()


@pytest.mark.parametrize(
    "line",
    [CALIBRATE.replace("{data}", "{train}"), "build-engine {model} --precision fp32 -o {out}/made"],
)
@pytest.mark.parametrize("options", ["", "--mean 0,0,0"])
def test_a_model_without_a_contract(options: str, line: str, refuse: Refuse, foreign: Path) -> None:
    """The options that supply one are named; a part of one is not taken for the whole."""
    said = refuse(f"{line} {options}", code=2, model=foreign)
    assert said.startswith(f"{foreign} carries no preprocessing contract: it was not exported by ")
    wanted = ("--preset", *PRESETS, "--mean", "--std", "--color", "--input-size", "--resize")
    assert [word for word in wanted if word not in said] == []


def test_an_engine_of_another_contract_than_the_reference(
    refuse: Refuse, digits: Digits, foreign: Path, tmp_path: Path
) -> None:
    """Built for one preprocessing, judged with another: no figure would mean anything."""
    engine = tmp_path / "e.onnx"
    build = "build-engine {model} --precision fp32 --preset digits -o {engine}"
    passed(*digits.words(build, model=foreign, engine=engine))
    said = refuse(BENCH + " --preset cifar", code=6, model=foreign, engine=engine)
    assert said.startswith(f"{engine} expects resize 32 bilinear, crop 32, rgb, (x * 0.00392157 - ")
    assert "they cannot be evaluated on the same images" in said


@pytest.mark.parametrize("line", [CALIBRATE, BENCH.replace("{test}", "{data}")])
def test_an_empty_or_missing_data_folder(line: str, refuse: Refuse, tmp_path: Path) -> None:
    """Both with what a data set looks like."""
    (tmp_path / "empty").mkdir()
    assert " has no images; " in refuse(line, data=tmp_path / "empty")
    said = refuse(line, data=tmp_path / "missing")
    assert said.startswith(f"{tmp_path / 'missing'} does not exist")
    assert "labels.csv" in said


def noise(*shape: int) -> NDArray[np.uint8]:
    """Returns the same random values every time."""
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


GREY = noise(40, 48)
COLOUR = noise(40, 48, 3)
OPAQUE = np.concatenate([COLOUR, np.full((40, 48, 1), 255, np.uint8)], axis=2)
CMYK = Image.fromarray(COLOUR).convert("CMYK")

DECODED: dict[str, tuple[Callable[[Path], object], NDArray[np.uint8]]] = {
    "grey.png": (lambda path: Image.fromarray(GREY).save(path), np.stack([GREY] * 3, axis=2)),
    "16-bit.png": (
        lambda path: Image.fromarray(GREY.astype(np.uint16) * 257).save(path),
        np.stack([GREY] * 3, axis=2),
    ),
    "rgba.png": (lambda path: Image.fromarray(OPAQUE).save(path), COLOUR),
    "cmyk.tiff": (lambda path: CMYK.save(path), np.asarray(CMYK.convert("RGB"))),
}
"""Files that are not plain RGB: how each is written, and the pixels that it has."""


@pytest.mark.parametrize("name", DECODED)
def test_an_image_that_is_not_plain_rgb(name: str, digits: Digits, tmp_path: Path) -> None:
    """It is decoded to the pixels that it has: their hash is in the table."""
    write, expected = DECODED[name]
    write(tmp_path / name)
    line = "calibrate {model} --data {data} --method max -o {data}/table"
    passed(*digits.words(line, data=tmp_path))
    assert load_table(tmp_path / "table").data.image_hashes == (image_hash(expected),)


def test_a_cmyk_jpeg(digits: Digits, tmp_path: Path) -> None:
    """As cameras and print shops leave them: decoded as Pillow does, and counted."""
    CMYK.save(tmp_path / "a.jpg")
    passed(*digits.words("calibrate {model} --data {data} -o {data}/table", data=tmp_path))
    expected = np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB"))
    assert load_table(tmp_path / "table").data.image_hashes == (image_hash(expected),)


@pytest.mark.parametrize("line", [CALIBRATE, BENCH.replace("{test}", "{data}")])
def test_a_corrupt_jpeg_among_good_ones(line: str, refuse: Refuse, tmp_path: Path) -> None:
    """It is named; nothing is judged on the rest in silence."""
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        Image.fromarray(COLOUR).save(data / name)
    (data / "labels.csv").write_text("file,class_index\na.jpg,0\nb.jpg,1\nc.jpg,2\n")
    broken = data / "b.jpg"
    broken.write_bytes(broken.read_bytes()[:900])
    said = refuse(line, data=data)
    assert said.startswith(f"{broken} cannot be decoded: ")
    assert said.endswith("Replace the file or take it out of the data.")


def test_transparent_pixels(refuse: Refuse, tmp_path: Path) -> None:
    """What stands behind them is not in the file, so the file is named."""
    data = tmp_path / "data"
    data.mkdir()
    clear = OPAQUE.copy()
    clear[0, :7, 3] = 0
    Image.fromarray(clear).save(data / "a.png")
    said = refuse(CALIBRATE, data=data)
    assert said.startswith(f"{data / 'a.png'} has 7 transparent pixels of 1920;")


def test_labels_outside_the_classes(refuse: Refuse, tmp_path: Path) -> None:
    """The first is named, with the range that was expected."""
    data = tmp_path / "test.npz"
    np.savez(data, images=noise(5, 32, 32, 3), labels=np.array([0, 9, 10, 3, 12]))
    assert refuse(BENCH, test=data) == (
        f"2 of 5 labels of {data} are outside the network's 10 classes (first: test.npz[2] with "
        "10); expected 0 to 9. Correct the labels or use the network that they belong to."
    )


@pytest.fixture
def other(digits: Digits, tmp_path: Path) -> Path:
    """The digits' model with one weight moved a little, as another epoch would have it."""
    model = onnx.load(digits.model)
    tensor = model.graph.initializer[0]
    moved = numpy_helper.to_array(tensor) * np.float32(1.01)
    tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))
    onnx.save(model, tmp_path / "other.onnx")
    return tmp_path / "other.onnx"


def test_a_table_of_another_model(refuse: Refuse, other: Path) -> None:
    """Both hashes, and what to do."""
    said = refuse(BUILD, model=other)
    assert said.startswith("The calibration table belongs to another model: it was made from ")
    assert said.endswith("Run calibrate on this model.")


def test_an_engine_of_other_weights_than_the_reference(
    refuse: Refuse, digits: Digits, other: Path
) -> None:
    """A stale engine does not pass on the strength of its old accuracy."""
    said = refuse(BENCH, code=6, model=other)
    assert said.startswith(f"{digits.engine} was built from a model with sha256 ")
    assert "other weights, or exported again since. Build the engine again" in said


Damage = Callable[[Path], object]


def _edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


TABLES: dict[str, tuple[Damage, str]] = {
    "no file": (lambda path: path.unlink(), "cannot be read: No such file or directory."),
    "cut off": (lambda path: os.truncate(path, 999), "is not JSON ("),
    "not text": (lambda path: path.write_bytes(b"\xff\xfe\x00"), "is not JSON ("),
    "another file": (lambda path: path.write_text("{}"), "is no edgeres-calibration-tabl"),
    "another version": (
        lambda path: _edit(path, lambda raw: raw.update(schema_version=2)),
        "has schema version 2, this edgeres reads 1. Make the file again with this version.",
    ),
    "no tensors": (
        lambda path: _edit(path, lambda raw: raw.pop("tensors")),
        "is a damaged edgeres-calibration-table file (tensors: missing). Run calibrate again.",
    ),
    "a tensor less": (
        lambda path: _edit(path, lambda raw: raw["tensors"].pop(next(iter(raw["tensors"])))),
        "The calibration table has no tensor '",
    ),
    "a negative threshold": (
        lambda path: _edit(path, lambda raw: _first_threshold(raw).update(s8=-1.0)),
        "].thresholds[...]: threshold -1.0, expected 0 to 3.4028e+38). Run calibrate again.",
    ),
    "a threshold that is no number": (
        lambda path: _edit(path, lambda raw: _first_threshold(raw).update(s8=float("nan"))),
        "is not JSON (NaN is not a finite number)",
    ),
}


def _first_threshold(raw: dict[str, Any]) -> dict[str, Any]:
    thresholds: dict[str, Any] = next(iter(raw["tensors"].values()))["thresholds"]["max"]
    return thresholds


@pytest.mark.parametrize("case", TABLES)
def test_a_damaged_table(case: str, refuse: Refuse, digits: Digits, tmp_path: Path) -> None:
    """No engine is built from it."""
    damage, said = TABLES[case]
    table = tmp_path / "table.json"
    shutil.copy(digits.table, table)
    damage(table)
    assert said in refuse(BUILD, table=table)


ENGINES: dict[str, tuple[Damage, str]] = {
    "no engine": (
        lambda path: path.unlink(),
        "does not exist. Check the path, or build the engine",
    ),
    "truncated": (
        lambda path: os.truncate(path, 9999),
        "was changed or truncated after it was bui",
    ),
    "changed": (
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\0"),
        "was changed or truncated after it was built: sha256 ",
    ),
    "a manifest that is none": (
        lambda path: manifest_path(path).write_text("[]"),
        "engine.onnx.json is no edgeres-engine file: its kind is 'list'. Check the path.",
    ),
    "a manifest cut off": (lambda path: os.truncate(manifest_path(path), 500), "is not JSON ("),
    "a manifest without layers": (
        lambda path: _edit(manifest_path(path), lambda raw: raw.pop("layers")),
        "is a damaged edgeres-engine file (layers: missing, as in files of an earlier edgeres). Undo an edit of it, or run build-engine again.",
    ),
    "a manifest of an unknown target": (
        lambda path: save_manifest(path, replace(load_engine(path).manifest, target="tpu")),
        "The engine was built for the target 'tpu' by edgeres",
    ),
    "a manifest without part of its contract": (
        lambda path: _edit(manifest_path(path), lambda raw: raw["contract"].pop("mean")),
        "is a damaged edgeres-engine file (contract.mean: missing, as in files of an earlier edgeres). Undo an edit of it, or run build-engine again.",
    ),
}


@pytest.mark.parametrize("case", ENGINES)
def test_a_damaged_engine(case: str, refuse: Refuse, digits: Digits, tmp_path: Path) -> None:
    """It is not run, and the sentence says which of the two files it is about."""
    damage, said = ENGINES[case]
    engine = tmp_path / "engine.onnx"
    shutil.copy(digits.engine, engine)
    shutil.copy(manifest_path(digits.engine), manifest_path(engine))
    damage(engine)
    assert said in refuse(BENCH, engine=engine)

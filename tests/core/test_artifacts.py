"""Tables, manifests and engines: they come back as they were, or are refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeres.core.artifacts import (
    LayerPrecision,
    Manifest,
    OnnxArtifact,
    TensorSpec,
    load_engine,
    manifest_path,
)
from edgeres.core.contract import preset
from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.core.table import (
    CalibrationTable,
    DataLineage,
    TensorRange,
    Threshold,
    load_table,
    save_table,
)
from edgeres.errors import ArtifactError
from edgeres.serialization import load_json, save_json, to_json

TABLE = CalibrationTable(
    model_sha256="a" * 64,
    data=DataLineage(path="images", fingerprint="f" * 16, image_hashes=("01", "02")),
    contract=preset("imagenet-caffe"),
    method=Method.ENTROPY,
    percentile=99.99,
    samples=2,
    seed=7,
    edgeres_version="0.1.0",
    tensors={
        "input": TensorRange(
            amax=2.1,
            signed=True,
            thresholds={Method.ENTROPY: Threshold(s8=2.0), Method.MAX: Threshold(s8=2.1)},
        ),
        "relu": TensorRange(
            amax=6.0,
            signed=False,
            thresholds={Method.ENTROPY: Threshold(s8=5.0, u8=5.5)},
        ),
    },
)

MANIFEST = Manifest(
    target="tensorrt-rtx",
    precision=Precision.INT8,
    engine_sha256=hashlib.sha256(b"plan").hexdigest(),
    model_sha256="a" * 64,
    table_sha256="b" * 64,
    method=Method.MSE,
    edgeres_version="0.1.0",
    versions={"tensorrt-rtx": "1.7.1"},
    gpu=None,
    compute_capability="8.6",
    flags=("strongly-typed",),
    contract=preset("digits"),
    classes=("0", "1"),
    input=TensorSpec(name="images", shape=(None, 3, 32, 32)),
    output=TensorSpec(name="logits", shape=(None, 2)),
    calibration_images=("01", "02"),
    layers=(
        LayerPrecision(name="conv1", op_type="Conv", precision=Precision.INT8),
        LayerPrecision(name="fc", op_type="Gemm", precision=Precision.FP32, reason="no range"),
    ),
)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """An engine file with its manifest."""
    path = tmp_path / "net.plan"
    path.write_bytes(b"plan")
    save_json(manifest_path(path), MANIFEST)
    return path


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    """Every field, through the file."""
    save_table(tmp_path / "table.json", TABLE)
    assert load_table(tmp_path / "table.json") == TABLE


def test_a_manifest_comes_back_as_it_was(engine: Path) -> None:
    """Every field, through the file, with the engine's path."""
    found = load_engine(engine)
    assert found.manifest == MANIFEST
    assert found.path == engine


def test_a_threshold_is_found_by_method() -> None:
    """The table's own method unless another is asked for."""
    assert TABLE.threshold("input") == Threshold(s8=2.0)
    assert TABLE.threshold("input", Method.MAX) == Threshold(s8=2.1)


def test_a_threshold_that_is_not_there_is_refused() -> None:
    """An unknown tensor and an unknown method are told apart."""
    with pytest.raises(ArtifactError) as no_tensor:
        TABLE.threshold("add")
    assert str(no_tensor.value) == (
        "The calibration table has no tensor 'add' among its 2. "
        "Another version of edgeres wrote it: run calibrate again."
    )
    with pytest.raises(ArtifactError) as no_method:
        TABLE.threshold("input", Method.MSE)
    assert str(no_method.value) == (
        "The calibration table has no mse threshold of 'input'; it has entropy, max. "
        "Build with one of these methods, or run calibrate again."
    )


def test_a_truncated_table_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    """Each of a hundred lengths; never a traceback, never a table."""
    path = tmp_path / "table.json"
    save_table(path, TABLE)
    whole = path.read_bytes().rstrip()
    for length in range(0, len(whole), max(1, len(whole) // 100)):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match="is not JSON"):
            load_table(path)


TABLE_KEYS = sorted(set(to_json(TABLE)) - {"schema_version", "kind"})
TEXT_KEYS = ("model_sha256", "edgeres_version")
OPTIONAL_KEYS = ("recovery", "sensitivity")
"""Null where it was not asked for."""


@pytest.mark.parametrize("key", TABLE_KEYS)
def test_a_table_without_one_of_its_keys_is_refused(tmp_path: Path, key: str) -> None:
    """Every key is needed, and the message names it."""
    raw = to_json(TABLE)
    del raw[key]
    save_json(tmp_path / "table.json", raw)
    with pytest.raises(ArtifactError) as refused:
        load_table(tmp_path / "table.json")
    # What the first edgeres did not write has a default, by which it is known.
    later = {"choices", "recovery", "sensitivity", "weight_method"}
    earlier = ", as in files of an earlier edgeres" if key in later else ""
    assert str(refused.value) == (
        f"{tmp_path / 'table.json'} is a damaged edgeres-calibration-table file "
        f"({key}: missing{earlier}). "
        "Run calibrate again."
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (key, value)
        for key in TABLE_KEYS
        if key not in TEXT_KEYS
        for value in (None, "?", [1])
        if value is not None or key not in OPTIONAL_KEYS
    ],
)
def test_a_table_with_a_key_of_another_kind_is_refused(
    tmp_path: Path, key: str, value: Any
) -> None:
    """Nothing, text or a list where a number or an object belongs."""
    save_json(tmp_path / "table.json", {**to_json(TABLE), key: value})
    with pytest.raises(ArtifactError, match=r"Run calibrate again\.|Export the model again"):
        load_table(tmp_path / "table.json")


def test_a_threshold_that_is_no_number_is_refused(tmp_path: Path) -> None:
    """Text, a list or NaN where an amax belongs."""
    path = tmp_path / "table.json"
    save_table(path, TABLE)
    text = path.read_text()
    for wrong, message in (
        ('"x"', "is a damaged edgeres-calibration-table file"),
        ("[]", "is a damaged edgeres-calibration-table file"),
        ("NaN", r"is not JSON \(NaN is not a finite number\)"),
    ):
        path.write_text(text.replace('"s8": 2.0', f'"s8": {wrong}'))
        with pytest.raises(ArtifactError, match=message):
            load_table(path)


def test_a_contract_of_impossible_values_is_the_files_fault(tmp_path: Path) -> None:
    """It is an ArtifactError of exit code 1, not a usage error of the command."""
    raw = to_json(TABLE)
    raw["contract"]["height"] = 0
    save_json(tmp_path / "table.json", raw)
    with pytest.raises(
        ArtifactError, match=r"\(contract: Input size is 0x224; expected 1 to 8192"
    ) as refused:
        load_table(tmp_path / "table.json")
    assert refused.value.exit_code == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "is not JSON"),
        (b"", "is not JSON"),
        (b"[" * 200_000, "is not JSON"),
        (b"[]", "is no edgeres-calibration-table file: its kind is 'list'. Check the path."),
        (b"{}", "is no edgeres-calibration-table file: its kind is None. Check the path."),
        (
            b'{"kind": "edgeres-calibration-table", "schema_version": 2}',
            "has schema version 2, this edgeres reads 1. Make the file again with this version.",
        ),
    ],
    ids=["binary", "empty", "nested", "list", "foreign", "other schema"],
)
def test_a_foreign_file_is_no_table(tmp_path: Path, content: bytes, message: str) -> None:
    """Each is told what it is instead."""
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ArtifactError) as refused:
        load_json(tmp_path / "x", "edgeres-calibration-table")
    assert message in str(refused.value)


def test_an_absent_table_is_named(tmp_path: Path) -> None:
    """The path and the system's reason."""
    with pytest.raises(ArtifactError, match=r"t\.json cannot be read: No such file or directory"):
        load_table(tmp_path / "t.json")


def test_a_manifest_is_no_table(engine: Path) -> None:
    """Files of ours are told from one another by their kind."""
    with pytest.raises(ArtifactError, match="its kind is 'edgeres-engine'"):
        load_table(manifest_path(engine))


def test_an_absent_engine_is_named(engine: Path) -> None:
    """The engine itself is named, not its manifest."""
    engine.unlink()
    with pytest.raises(ArtifactError) as refused:
        load_engine(engine)
    assert str(refused.value) == (
        f"{engine} does not exist. Check the path, or build the engine with build-engine."
    )


def test_an_engine_without_a_manifest_is_refused(engine: Path) -> None:
    """An engine of unknown origin is not run."""
    manifest_path(engine).unlink()
    with pytest.raises(ArtifactError) as refused:
        load_engine(engine)
    assert str(refused.value) == (
        f"{engine} has no manifest: net.plan.json is not beside it. An engine is code, so one of "
        "unknown origin is not run. Copy both files, or build it with build-engine; bench runs a "
        "plan of your own with --trust."
    )


@pytest.mark.parametrize("content", [b"pla", b"plan!", b""])
def test_an_engine_that_was_changed_is_refused(engine: Path, content: bytes) -> None:
    """Truncated, longer or empty: both hashes are shown."""
    engine.write_bytes(content)
    with pytest.raises(ArtifactError) as refused:
        load_engine(engine)
    assert "was changed or truncated after it was built" in str(refused.value)
    assert hashlib.sha256(content).hexdigest()[:12] in str(refused.value)
    assert MANIFEST.engine_sha256[:12] in str(refused.value)


@pytest.mark.parametrize("key", sorted(set(to_json(MANIFEST)) - {"schema_version", "kind"}))
def test_a_damaged_manifest_is_refused_whatever_key_is_missing(engine: Path, key: str) -> None:
    """Every key is needed."""
    raw = to_json(MANIFEST)
    del raw[key]
    save_json(manifest_path(engine), raw)
    with pytest.raises(
        ArtifactError, match=r"damaged edgeres-engine file .*run build-engine again\."
    ):
        load_engine(engine)


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a mean": lambda raw: raw["contract"]["mean"].__setitem__(0, 0.25),
    "the order of the colours": lambda raw: raw["contract"].update(color="bgr"),
    "the classes": lambda raw: raw["classes"].reverse(),
    "a precision": lambda raw: raw.update(precision="fp32"),
    "the images that it was calibrated on": lambda raw: raw.update(calibration_images=[]),
    "its own hash": lambda raw: raw.update(manifest_sha256="0" * 64),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_manifest_that_was_edited_is_refused(engine: Path, edit: str) -> None:
    """A plan has its contract there alone: edited, it would be evaluated on other images."""
    raw = to_json(MANIFEST)
    EDITS[edit](raw)
    save_json(manifest_path(engine), raw)
    with pytest.raises(
        ArtifactError, match=r"manifest_sha256: '\w+, expected '\w+\). Undo an edit"
    ):
        load_engine(engine)


def test_a_manifest_laid_out_anew_is_the_same(engine: Path) -> None:
    """Its hash is of the values, not of their order, spaces or byte order mark."""
    raw = dict(reversed(to_json(MANIFEST).items()))
    manifest_path(engine).write_text("\ufeff" + json.dumps(raw, indent=4), encoding="utf-8")
    assert load_engine(engine).manifest == MANIFEST


def test_an_onnx_artifact_knows_its_classes() -> None:
    """The length of the logits, 0 where the file leaves it open."""
    image, logits = (
        TensorSpec(name="x", shape=(None, 3, 8, 8)),
        TensorSpec(name="y", shape=(None, 10)),
    )
    path = Path("net.onnx")
    known = OnnxArtifact(path=path, sha256="", input=image, output=logits)
    unknown = OnnxArtifact(
        path=path, sha256="", input=image, output=TensorSpec(name="y", shape=(None, None))
    )
    assert (known.num_classes, unknown.num_classes) == (10, 0)


@pytest.mark.parametrize(
    ("given", "dtype"), [("input", "nan"), ("input", "float16"), ("output", "uint8")]
)
def test_a_manifest_has_types_that_engines_take(given: str, dtype: str) -> None:
    """Runners and servers' configurations are chosen by them."""
    described = getattr(MANIFEST, given)
    changed: Any = {given: replace(described, dtype=dtype)}
    with pytest.raises(ValueError, match=r"expected float32 or uint8 to float32"):
        replace(MANIFEST, **changed)


@pytest.mark.parametrize(
    ("given", "shape"), [("input", (3, 32, 32)), ("input", (None, 0, 32, 32)), ("output", ())]
)
def test_a_manifest_is_of_a_classifier(given: str, shape: tuple[int | None, ...]) -> None:
    """From images to logits, with no dimension of 0."""
    changed: Any = {given: TensorSpec(name="x", shape=shape)}
    with pytest.raises(ValueError, match=r"expected \(N, 3, H, W\) to \(N, classes\)"):
        replace(MANIFEST, **changed)

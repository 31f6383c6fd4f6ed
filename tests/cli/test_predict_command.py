"""`edgeres predict`: files, folders and patterns in, a table, JSON and CSV out; bad images named."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import passed, refusal, run
from digits import Digits
from PIL import Image

import edgeres
from edgeres.core.predictions import ImagePrediction
from edgeres.runtime import BATCH
from edgeres.workflows import PredictInputs, predict_images


@pytest.fixture
def photos(digits: Digits, tmp_path: Path) -> Path:
    """A folder with four images, one of them in a folder below, and what is no image."""
    images = np.load(digits.test)["images"]
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for index, name in enumerate(["a.png", "b.png", "c[1].png", "more/d.png"]):
        Image.fromarray(images[index]).save(folder / name)
    (folder / "notes.txt").write_text("none")
    (folder / "._a.png").write_bytes(b"macOS")
    return folder


def predict(digits: Digits, *words: object) -> dict[str, Any]:
    """Returns the object that the command prints."""
    raw: dict[str, Any] = json.loads(passed("predict", digits.engine, *words, "--json"))
    return raw


def names(raw: dict[str, Any]) -> list[str]:
    """Returns the images that something was predicted for."""
    return [Path(one["image"]).name for one in raw["predictions"]]


def test_json_has_the_predictions_of_python(digits: Digits, photos: Path) -> None:
    """Index, name, probability and logit of each class, by image."""
    raw = predict(digits, photos / "a.png", "--top", 3)
    assert raw["engine"] == str(digits.engine)
    assert raw["failed"] == []
    (one,) = raw["predictions"]
    with edgeres.load(digits.engine) as model:
        expected = model.predict(photos / "a.png", top=3)
    assert one == {
        "image": str(photos / "a.png"),
        "top": [
            {"index": p.index, "name": p.name, "probability": p.probability, "logit": p.logit}
            for p in expected
        ],
    }


def test_files_folders_and_patterns(digits: Digits, photos: Path) -> None:
    """In the order of the line; in a folder sorted, with those below it, hidden files left out."""
    everything = ["a.png", "b.png", "c[1].png", "d.png"]
    assert names(predict(digits, photos)) == everything
    assert names(predict(digits, photos / "b.png", photos / "a.png")) == ["b.png", "a.png"]
    assert names(predict(digits, photos / "[ab].png")) == ["a.png", "b.png"]
    assert names(predict(digits, photos / "**/*.png")) == everything
    # A name that looks like a pattern is a name.
    assert names(predict(digits, photos / "c[1].png")) == ["c[1].png"]


def test_more_images_than_a_batch(digits: Digits, photos: Path) -> None:
    """In their order, each with its own predictions."""
    words = [photos / name for name in ("a.png", "b.png") for _ in range(35)]
    raw = predict(digits, *words, "--top", 1)
    assert [one["image"] for one in raw["predictions"]] == list(map(str, words))
    first, second = predict(digits, *words[::35], "--top", 1)["predictions"]
    assert [one["top"][0]["index"] for one in raw["predictions"]] == (
        [first["top"][0]["index"]] * 35 + [second["top"][0]["index"]] * 35
    )


def test_rows_come_batch_by_batch(digits: Digits, photos: Path) -> None:
    """Each before the images behind it are done, and all of them in the result."""
    images = tuple(str(photos / name) for name in ["a.png"] * 2 * BATCH + ["b.png"])
    done, batches = [0.0], list[tuple[float, Sequence[ImagePrediction]]]()
    result = predict_images(
        PredictInputs(engine=digits.engine, images=images, top=1),
        progress=lambda stage, so_far, total, note="": done.append(so_far),
        receive=lambda batch: batches.append((done[-1], batch)),
    )
    expected = [(BATCH, BATCH), (2 * BATCH, BATCH), (2 * BATCH + 1, 1)]
    assert [(before + 1, len(batch)) for before, batch in batches] == expected
    assert [one for _, batch in batches for one in batch] == list(result.predictions)


def test_a_table_of_batches_is_one_table(digits: Digits, photos: Path) -> None:
    """With one header, and figures below each other however long a name is."""
    long = photos / f"{'x' * 60}.png"
    long.write_bytes((photos / "b.png").read_bytes())
    words = [photos / "a.png"] * 64 + [long]
    lines = passed("predict", digits.engine, *words, "--top", 2).splitlines()
    header, *rows = lines
    assert header.split() == ["image", "index", "probability", "logit", "class"]
    assert not any("index" in row for row in rows)
    place = header.index("probability") + len("probability")
    assert {row.index(" %") + 2 for row in rows if " %" in row} == {place}
    assert sum(" %" in row for row in rows) == 130


def test_bad_images_are_named_and_stop_nothing(digits: Digits, photos: Path) -> None:
    """Each with its reason, in JSON and on stderr; the exit code is 1."""
    (photos / "b.png").write_bytes(b"no image")
    (photos / "empty").mkdir()
    missing, nothing = photos / "none.png", photos / "*.gif"
    words = ("predict", digits.engine, photos, missing, nothing, photos / "empty")
    result = run(*words, "--json")
    raw = json.loads(result.stdout)
    assert result.exit_code == 1
    assert names(raw) == ["a.png", "c[1].png", "d.png"]
    failed = {one["image"]: one["error"] for one in raw["failed"]}
    assert list(failed) == [
        str(missing),
        str(nothing),
        str(photos / "empty"),
        str(photos / "b.png"),
    ]
    assert "does not exist, and no file matches it as a pattern" in failed[str(missing)]
    assert "is no image that can be decoded (8 bytes)" in failed[str(photos / "b.png")]
    assert "has no images" in failed[str(photos / "empty")]
    shown = run(*words)
    assert shown.exit_code == 1
    assert all(f"Error: {error}" in shown.stderr for error in failed.values())
    assert "a.png" in shown.stdout


def test_the_table_has_a_row_for_each_class(digits: Digits, photos: Path) -> None:
    """The image once, above its classes."""
    lines = passed("predict", digits.engine, photos / "a.png", "--top", 2).splitlines()
    assert [line.split()[:2] for line in lines[:1]] == [["image", "index"]]
    raw = predict(digits, photos / "a.png", "--top", 2)
    rows = " ".join(" ".join(lines[1:]).split())
    for one in raw["predictions"][0]["top"]:
        assert f"{one['index']} {100 * one['probability']:.2f} % {one['logit']:.3f}" in rows


def test_csv_has_a_row_for_each_class_and_each_failure(
    digits: Digits, photos: Path, tmp_path: Path
) -> None:
    """So that no image is missing from it in silence."""
    out = tmp_path / "out.csv"
    line = ("predict", digits.engine, photos / "a.png", photos / "none.png", "--top", 2)
    assert run(*line, "--csv", out).exit_code == 1
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "rank", "index", "name", "probability", "logit", "error"]
    raw = json.loads(run(*line, "--json").stdout)
    for row, one in zip(rows, raw["predictions"][0]["top"], strict=False):
        assert (int(row["index"]), float(row["probability"]), float(row["logit"])) == (
            one["index"],
            one["probability"],
            one["logit"],
        )
    assert [row["rank"] for row in rows] == ["1", "2", ""]
    assert rows[-1]["error"] == raw["failed"][0]["error"]


def test_what_the_request_lacks_is_a_refusal(digits: Digits, photos: Path) -> None:
    """Before any image is read."""
    words = ("predict", digits.engine, photos)
    assert refusal(*words, "--top", 0, code=2) == "--top is 0; expected at least 1 class."
    assert "Leave the preprocessing options out" in refusal(*words, "--preset", "digits", code=2)
    assert "does not exist" in refusal("predict", photos / "none.onnx", photos)
    assert "--trust is for TensorRT plans" in refusal(
        "predict", digits.model, photos, "--trust", code=2
    )


def test_a_csv_does_not_replace_an_image(digits: Digits, photos: Path) -> None:
    """Nor becomes one of a folder that is read."""
    words = ("predict", digits.engine, photos)
    assert "would become part of the data" in refusal(*words, "--csv", photos / "x.png", code=2)
    line = ("predict", digits.engine, photos / "a.png", "--csv", photos / "a.png")
    assert "is what is read here" in refusal(*line, code=2)

"""Bench and calibrate in parts: what joins is what one pass over all images gives, bit for bit."""

from __future__ import annotations

import itertools
import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from digits import Digits

from edgeres.core.bench_requests import BenchInputs, BenchRequest
from edgeres.core.contract_options import NO_OPTIONS
from edgeres.core.methods import Method
from edgeres.core.requests import CalibrationRequest
from edgeres.errors import ArtifactError, ConfigError, MismatchError
from edgeres.evaluation.saved_outcomes import join_outcomes
from edgeres.images import ImageArray, load_dataset, png_bytes, select
from edgeres.images.part import Part, save_rows, split
from edgeres.progress import silent
from edgeres.serialization import from_json, save_json
from edgeres.workflows import bench_engine, calibrate_model
from edgeres.workflows.bench import evaluate_images
from edgeres.workflows.bench_pair import load_pair
from edgeres.workflows.parts import PART_UNIT, bench_part, calibrate_part, unit_of

SOME = BenchRequest(energy=False, iterations=1, warmup=0, diagnose=False, samples=300, seed=4)


def same(first: Any, second: Any) -> bool:
    """Returns whether all arrays of two results are equal, bit for bit."""
    if is_dataclass(first):
        pairs = ((getattr(first, f.name), getattr(second, f.name)) for f in fields(first))
        return all(same(*pair) for pair in pairs)
    if isinstance(first, np.ndarray):
        return bool(first.tobytes() == second.astype(first.dtype).tobytes())
    return bool(first == second)


@pytest.fixture(scope="module")
def inputs(digits: Digits) -> BenchInputs:
    """Files of a bench."""
    return BenchInputs(engine=digits.engine, reference=digits.model, data=digits.test)


@pytest.fixture(scope="module")
def outcomes(digits: Digits, inputs: BenchInputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the outcomes of three parts: by path, as a block of rows, and by path again."""
    folder = tmp_path_factory.mktemp("parts")
    dataset = select(load_dataset(digits.test), SOME.samples, SOME.seed)
    for number, part in enumerate(split(dataset, unit=PART_UNIT, parts=3)):
        data = digits.test
        if number == 1:
            data = folder / "block.npz"
            rows = np.arange(part.first, part.first + len(part.rows))
            save_rows(replace(dataset, images=dataset.images.take(rows)), data)
            part = replace(part, rows=tuple(range(len(part.rows))))
        save_json(folder / "part", part)
        bench_part(
            replace(inputs, data=data), SOME, folder / "part", folder / f"{number}.json", silent
        )
    return folder


def test_outcomes_of_parts_are_those_of_one_pass(
    digits: Digits, inputs: BenchInputs, outcomes: Path
) -> None:
    """Prediction by prediction, in whatever order they came, and so the verdict."""
    pair = load_pair(inputs, SOME)
    dataset = select(load_dataset(digits.test), SOME.samples, SOME.seed)
    assert dataset.labels is not None
    with pair.reference.runner, pair.engine.runner:
        whole, _ = evaluate_images(pair, dataset, pair.batches(SOME)[0], silent)
    paths = [outcomes / f"{number}.json" for number in (2, 0, 1)]
    joined = join_outcomes(
        paths,
        engine_sha256=pair.engine.sha256,
        reference_sha256=pair.reference.sha256,
        labels=dataset.labels,
    )
    assert same(whole, joined.outcomes)
    verdict = bench_engine(replace(inputs, outcomes=tuple(paths)), SOME)
    assert verdict.accuracy == bench_engine(inputs, SOME).accuracy


@pytest.mark.parametrize(
    ("numbers", "key", "value", "refused"),
    [
        ((0, 1), "", "", "do not cover"),
        ((0, 1, 1, 2), "", "", "do not cover"),
        ((0, 1, 2), "engine_sha256", "0" * 64, "evaluated with engine 0000"),
        ((0, 1, 2), "first", 48, "do not cover"),
        ((0, 1, 2), "hashes", "x", "damaged"),
    ],
)
def test_parts_of_other_images_or_engines_do_not_join(
    inputs: BenchInputs, outcomes: Path, tmp_path: Path, numbers: tuple[int, ...], key: str,
    value: object, refused: str,
) -> None:  # fmt: skip
    """One that is lacking, one twice, one of another engine, one at another place, a damaged one."""
    paths = []
    for place, number in enumerate(numbers):
        raw = json.loads((outcomes / f"{number}.json").read_text())
        if key and place == 0:
            raw[key] = value
        paths.append(tmp_path / f"{place}.json")
        paths[-1].write_text(json.dumps(raw))
    with pytest.raises((MismatchError, ArtifactError), match=refused):
        bench_engine(replace(inputs, outcomes=tuple(paths)), SOME)


@pytest.mark.parametrize(("method", "samples"), [(Method.MSE, 90), (Method.AUTO, 170)])
def test_a_table_of_parts_is_that_of_one_pass(
    digits: Digits, tmp_path: Path, method: Method, samples: int
) -> None:
    """Byte for byte, from files of a folder; with a search, whose images are held out of all."""
    config = CalibrationRequest(method=method, samples=samples, batch_size=3, seed=2)
    stored = select(load_dataset(digits.train), 200, 0)
    data = tmp_path / "train"
    data.mkdir()
    for index in range(200):
        (data / f"{index:03}.png").write_bytes(png_bytes(stored.image(index)))
    dataset = select(load_dataset(data, labelled=False), config.samples, config.seed)
    paths = []
    for number, part in enumerate(split(dataset, unit=unit_of(config), parts=3)):
        save_json(tmp_path / "part", part)
        paths.append(tmp_path / f"{number}.json")
        calibrate_part(digits.model, data, config, NO_OPTIONS, tmp_path / "part", paths[-1], silent)
    calibrate_model(digits.model, data, config, output=tmp_path / "whole")
    calibrate_model(digits.model, data, config, output=tmp_path / "joined", ranges=paths[::-1])
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "joined").read_bytes()
    with pytest.raises(MismatchError, match="cover"):
        calibrate_model(digits.model, data, config, ranges=paths[:-1])


@pytest.mark.parametrize("images", [1, 47, 48, 49, 96, 300])
@pytest.mark.parametrize("parts", [1, 2, 7])
def test_a_split_covers_each_image_once(digits: Digits, images: int, parts: int) -> None:
    """In order, each part a multiple of the unit but the last, at most so many parts."""
    dataset = select(load_dataset(digits.test), images, 0)
    made = [*split(dataset, unit=12, parts=parts)]
    assert [part.first for part in made] == [
        *itertools.accumulate((len(part.rows) for part in made[:-1]), initial=0)
    ]
    assert all(len(part.rows) % 12 == 0 for part in made[:-1])
    assert len(made) <= parts
    rows = [row for part in made for row in part.rows]
    assert isinstance(dataset.images, ImageArray)
    assert rows == dataset.images.rows.tolist()


@pytest.mark.parametrize("file", ["../x.png", "/etc/x.png", "a/../../x.png"])
def test_a_part_names_no_file_outside(file: str) -> None:
    """Whoever sends a part does not choose what a board reads."""
    raw = {
        "kind": "edgeres-part", "schema_version": 1, "first": 0, "files": [file], "rows": [],
        "classes": [], "labels": [0],
    }  # fmt: skip
    with pytest.raises(ArtifactError, match="leads out"):
        from_json(raw, Part, source="x", remedy="y")


def test_a_part_must_begin_with_a_batch(inputs: BenchInputs, tmp_path: Path) -> None:
    """Other batches are another computation."""
    part = Part(first=50, files=(), rows=(50, 51), classes=(), labels=(0, 1))
    save_json(tmp_path / "part", part)
    with pytest.raises(ConfigError, match="no multiple of 16"):
        bench_part(inputs, SOME, tmp_path / "part", tmp_path / "out", silent)

"""`bench --baseline` and `compare`, from the JSON that bench printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import passed, refusal, run
from digits import QUICK, Digits

from edgeres.core.methods import Method
from edgeres.core.requests import BuildRequest
from edgeres.core.table import load_table
from edgeres.core.verdict import load_run
from edgeres.workflows import BuildInputs, build_from_model

LINE = "bench {engine} --reference {model} --data {test} --json " + QUICK


@pytest.fixture(scope="module")
def old(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What bench said of the digits' engine."""
    path = tmp_path_factory.mktemp("verdicts") / "old.json"
    path.write_text(passed(*digits.words(LINE)))
    return path


@pytest.fixture(scope="module")
def other(digits: Digits, old: Path) -> Path:
    """What bench said of an engine by another method, beside it."""
    engine = old.parent / "max.onnx"
    table = load_table(digits.table)
    build_from_model(
        BuildInputs(model=digits.model, table=table, method=Method.MAX, output=engine),
        BuildRequest(),
    )
    path = old.parent / "max.json"
    path.write_text(passed(*digits.words(LINE.replace("{engine}", str(engine)))))
    return path


def test_a_verdict_comes_back_from_its_json(old: Path) -> None:
    """The figures that later runs are held against."""
    raw, found = json.loads(old.read_text()), load_run(old)
    assert (found.name, found.engine, found.samples) == ("old", "digits.int8.onnx", 100)
    assert found.top1 == raw["accuracy"]["engine"]["top1"]
    assert found.images.engine.count("1") == raw["accuracy"]["engine"]["correct"]
    assert found.latency is not None
    assert list(found.latency.engine.samples_ms) == raw["latency"]["engine"]["samples_ms"]
    assert found.latency.speedup == raw["latency"]["speedup"]


def test_the_same_engine_is_not_worse_than_itself(digits: Digits, old: Path) -> None:
    """Its accuracy is, image by image, the same; timings of two samples prove nothing."""
    line = [*digits.words(LINE), "--baseline", old, "--max-slowdown", "1000"]
    told = json.loads(passed(*line))
    assert [check["name"] for check in told["checks"]] == ["baseline_accuracy", "baseline_latency"]
    assert told["baseline"]["baseline"] == "old"
    assert told["baseline"]["accuracy"]["gained"] == told["baseline"]["accuracy"]["lost"] == 0
    assert told["baseline"]["latency"]["ci95"] is None


def test_other_images_are_refused_before_anything_is_timed(digits: Digits, old: Path) -> None:
    """A usage error that names the options."""
    line = [word.replace("100", "90") if word == "100" else word for word in digits.words(LINE)]
    said = refusal(*line, "--baseline", old, code=2)
    assert said.startswith("The baseline old was evaluated on 100 other images, or on these in")


def test_what_is_no_verdict_is_refused(digits: Digits, old: Path) -> None:
    """A table, and a verdict with a part cut out."""
    said = refusal(*digits.words(LINE), "--baseline", digits.table)
    assert "is no edgeres-verdict file" in said
    damaged = old.parent / "damaged.json"
    raw = json.loads(old.read_text())
    del raw["accuracy"]["images"]
    damaged.write_text(json.dumps(raw))
    said = refusal("compare", old, damaged)
    assert "damaged.json is a damaged edgeres-verdict file (accuracy.images: missing)" in said


def test_engines_are_set_side_by_side(old: Path, other: Path) -> None:
    """As a table and as one object."""
    shown = passed("compare", old, other)
    assert {"old", "max"} <= {line.split()[0] for line in shown.splitlines() if line.split()}
    assert "Pareto front, accuracy against latency: " in shown
    told = json.loads(passed("compare", old, other, "--json"))
    assert [engine["name"] for engine in told["engines"]] == ["old", "max"]
    assert told["front"]
    assert told["engines"][1]["against_first"]["ci95_pp"][0] <= 0


def test_one_verdict_is_not_enough(old: Path) -> None:
    """A usage error."""
    assert run("compare", old).exit_code == 2

"""`--json`: one object on standard output and nothing else; `-q`: nothing on standard error."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from commands import passed, run
from digits import CLASSES, QUICK, Digits, sha256_of
from PIL import Image

from edgeres.cli import main
from edgeres.core.artifacts import load_engine, manifest_path
from edgeres.core.table import load_table

LINES = {
    "export": "export resnet20 --weights {weights} --preset digits -o {output}",
    "calibrate": "calibrate {model} --data {train} --samples 20 -o {output}",
    "build-engine": "build-engine {model} --calib-data {train} -o {output}",
    "bench": "bench {engine} --reference {model} --data {test} " + QUICK,
    "predict": "predict {engine} {picture}",
    "deploy": "deploy {engine} --to python -o {output}",
    "compare": "compare {output}.new.json {output}.old.json",
    "inspect": "inspect {engine}",
    "estimate": "estimate resnet20 --board t4",
    "sweep": "sweep {model} --data {test} --precision fp32 --samples 60 --iterations 2 -o {output}",
    "explain": "explain resnet20",
    "doctor": "doctor",
    "demo": "demo",
}
"""A line of each command that succeeds."""


def words_of(name: str, digits: Digits, folder: Path) -> list[str]:
    """Returns a command's line, once what it reads is there."""
    if name == "compare":
        verdict = passed(*digits.words(LINES["bench"]), "--json")
        for path in (folder / "a.new.json", folder / "a.old.json"):
            path.write_text(verdict)
    Image.fromarray(np.load(digits.test)["images"][0]).save(folder / "picture.png")
    return digits.words(LINES[name], output=folder / "a", picture=folder / "picture.png")


def answer(capfd: pytest.CaptureFixture[str], *line: object) -> dict[str, Any]:
    """Returns the object that a command prints with `--json`.

    Libraries write past Python's standard output too: what they say there is seen by `capfd`.
    """
    told = json.loads(passed(*line, "--json"), parse_constant=pytest.fail)
    assert capfd.readouterr().out == ""
    assert isinstance(told, dict)
    return told


def test_there_is_a_line_of_every_command() -> None:
    """No command is left out below."""
    groups = {name for name, each in main.commands.items() if isinstance(each, click.Group)}
    assert set(LINES) == set(main.commands) - groups


@pytest.mark.parametrize("name", LINES)
def test_every_command_prints_one_object(
    name: str, digits: Digits, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """JSON without NaN, of a known version, and no other byte."""
    assert answer(capfd, *words_of(name, digits, tmp_path))["schema_version"] == 1


@pytest.mark.parametrize("name", [name for name in LINES if name != "demo"])
def test_quiet_silences_progress(name: str, digits: Digits, tmp_path: Path) -> None:
    """Nothing on standard error; what the command is for is still on standard output."""
    quiet = run(*words_of(name, digits, tmp_path), "-q")
    assert (quiet.exit_code, quiet.stderr) == (0, "")
    assert bool(quiet.stdout) == (
        name in {"bench", "predict", "compare", "inspect", "estimate", "sweep", "explain", "doctor"}
    )


@pytest.mark.parametrize("name", ["export", "calibrate", "build-engine"])
def test_what_was_written_is_told_on_stderr(name: str, digits: Digits, tmp_path: Path) -> None:
    """With its path first, after warnings; standard output stays free for results."""
    told = run(*digits.words(LINES[name], output=tmp_path / "a"))
    assert told.stdout == ""
    lines = [line for line in told.stderr.splitlines() if not line.startswith("WARNING ")]
    assert lines[0].startswith(f"{tmp_path / 'a'}: ")


def test_export_tells_the_model(
    digits: Digits, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Hashes of what was read and written, shape and preprocessing."""
    told = answer(capfd, *digits.words(LINES["export"], output=tmp_path / "a"))
    assert told["kind"] == "edgeres-model"
    assert told["sha256"] == sha256_of(tmp_path / "a")
    assert told["checkpoint_sha256"] == sha256_of(digits.weights)
    assert told["output"]["shape"] == [None, CLASSES]
    assert (told["contract"]["height"], told["contract"]["width"]) == (32, 32)


def test_calibrate_tells_the_table_that_it_wrote(
    digits: Digits, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Word for word."""
    told = answer(capfd, *digits.words(LINES["calibrate"], output=tmp_path / "a"))
    assert told == json.loads((tmp_path / "a").read_text())
    assert told["samples"] == 20


def test_build_engine_tells_the_manifest_that_it_wrote(
    digits: Digits, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Word for word."""
    told = answer(capfd, *digits.words(LINES["build-engine"], output=tmp_path / "a"))
    assert told == json.loads((tmp_path / "a.json").read_text())
    assert told["engine_sha256"] == sha256_of(tmp_path / "a")


def test_bench_tells_the_verdict(digits: Digits, capfd: pytest.CaptureFixture[str]) -> None:
    """The keys that a CI job reads, and figures that agree among themselves."""
    line = digits.words(LINES["bench"])
    told = answer(capfd, *line, "--max-drop", 100, "--min-speedup", 0)
    accuracy, latency = told["accuracy"], told["latency"]
    assert told["passed"] is True
    assert (accuracy["samples"], told["energy"], told["warnings"]) == (100, None, [])
    lost = accuracy["reference"]["correct"] - accuracy["engine"]["correct"]
    assert accuracy["drop_pp"] == pytest.approx(lost)
    assert accuracy["flips"]["lost"] - accuracy["flips"]["gained"] == lost
    assert latency["engine"]["samples"] == latency["reference"]["samples"] == 2
    expected = latency["reference"]["p50_ms"] / latency["engine"]["p50_ms"]
    assert latency["speedup"] == pytest.approx(expected)
    assert [check["name"] for check in told["checks"]] == ["accuracy_drop", "speedup"]
    assert told["environment"]["engine"] == "digits.int8.onnx on onnxruntime-cpu"


def test_a_failed_verdict_is_an_object_too(digits: Digits) -> None:
    """The exit code says that it failed, the object says why."""
    line = digits.words(LINES["bench"])
    failed = run(*line, "--min-speedup", 1000, "--decide", "point", "--json")
    assert failed.exit_code == 4
    told = json.loads(failed.stdout)
    assert told["passed"] is False
    (check,) = told["checks"]
    assert (check["name"], check["limit"], check["passed"]) == ("speedup", 1000.0, False)
    assert check["value"] == told["latency"]["speedup"]
    assert check["reason"].endswith(" times as fast, short of the 1000 requested")


def test_inspect_tells_each_kind(digits: Digits, capfd: pytest.CaptureFixture[str]) -> None:
    """A model, a table, and an engine by its own name or its manifest's."""
    model = answer(capfd, "inspect", digits.model)
    assert (model["kind"], model["sha256"]) == ("edgeres-model", sha256_of(digits.model))
    assert answer(capfd, "inspect", digits.table) == json.loads(digits.table.read_text())
    manifest = json.loads(manifest_path(digits.engine).read_text())
    assert answer(capfd, "inspect", digits.engine) == manifest
    assert answer(capfd, "inspect", manifest_path(digits.engine)) == manifest


def test_a_table_named_like_a_manifest_is_a_table(
    digits: Digits, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`MODEL.onnx.json` beside `MODEL.onnx` does not make the model an engine."""
    model, table = tmp_path / "m.onnx", tmp_path / "m.onnx.json"
    model.write_bytes(digits.model.read_bytes())
    table.write_bytes(digits.table.read_bytes())
    assert answer(capfd, "inspect", model)["kind"] == "edgeres-model"
    assert answer(capfd, "inspect", table)["kind"] == "edgeres-calibration-table"
    line = f"bench {digits.engine} --reference {model} --data {digits.test} --samples 50"
    verdict = answer(capfd, *line.split(), "--iterations", "2", "--warmup", "0")
    assert verdict["accuracy"]["samples"] == 50


def test_inspect_prints_facts_layers_and_tensors(digits: Digits) -> None:
    """For people: what it is first, then one line a layer or tensor."""
    assert passed("inspect", digits.model).startswith("kind           ONNX model")
    table = passed("inspect", digits.table)
    assert "calibration table" in table
    assert all(name in table for name in load_table(digits.table).tensors)
    engine = passed("inspect", digits.engine)
    assert "int8 engine for onnxruntime" in engine
    kinds = Counter(layer.precision for layer in load_engine(digits.engine).manifest.layers)
    assert ", ".join(f"{count} {kind}" for kind, count in kinds.items()) in engine


def test_doctor_tells_machine_and_capabilities(capfd: pytest.CaptureFixture[str]) -> None:
    """Each capability with whether it works, and what to do where it does not."""
    told = answer(capfd, "doctor")
    assert {"cpu", "versions", "has_nvidia_gpu"} <= told["machine"].keys()
    works = {found["name"]: found["available"] for found in told["capabilities"]}
    assert works["onnxruntime engines"] is True
    assert "tensorrt plans" in works
    shown = passed("doctor")
    assert all(name in shown for name in works)

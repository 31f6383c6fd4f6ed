"""`edgeres demo`: the whole path on the embedded data, for every target of this machine."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import refusal, run
from digits import Digits

from edgeres.core.artifacts import load_engine, manifest_path
from edgeres.core.requests import CalibrationRequest
from edgeres.core.table import load_table
from edgeres.images import embedded_path
from edgeres.onnx_file import load_onnx
from edgeres.workflows import demo, run_demo

TARGETS = ["onnxruntime"] + (["tensorrt-rtx"] if importlib.util.find_spec("tensorrt_rtx") else [])


def test_it_passes_quietly_and_leaves_what_was_made(tmp_path: Path) -> None:
    """One verdict a target; the files kept are those that the verdicts are about."""
    kept = tmp_path / "a" / "b"
    done = run("demo", "--keep", kept, "--json", "-q")
    assert (done.exit_code, done.stderr) == (0, "")
    verdicts = json.loads(done.stdout)["verdicts"]
    assert list(verdicts) == TARGETS
    for verdict in verdicts.values():
        assert verdict["passed"] is True
        assert verdict["accuracy"]["samples"] == 797
        assert abs(verdict["accuracy"]["reference"]["correct"] - 785) <= 1
        assert abs(verdict["accuracy"]["drop_pp"]) < 1
    assert verdicts["onnxruntime"]["latency"]["engine"]["samples"] > 0
    model, table = load_onnx(kept / "digits.onnx").artifact, load_table(kept / "digits.table.json")
    assert table.model_sha256 == model.sha256
    engines = [load_engine(path) for path in kept.iterdir() if manifest_path(path).exists()]
    assert {engine.manifest.target for engine in engines} == set(TARGETS)
    assert {engine.manifest.model_sha256 for engine in engines} == {model.sha256}
    assert {engine.manifest.table_sha256 for engine in engines} == {table.sha256}
    assert not [path for path in kept.iterdir() if path.name.startswith(".")]


def test_without_rtx_the_cpu_engine_is_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its steps are told in order, and it is timed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    told: list[str] = []
    (result,) = run_demo(tmp_path, show_status=told.append)
    assert (result.engine.manifest.target, result.simulated) == ("onnxruntime", False)
    assert result.verdict.latency is not None
    assert [line.split()[0] for line in told] == ["export", "calibrate", "build", "bench"]
    assert f" {CalibrationRequest().samples} training images" in told[1]
    assert load_table(tmp_path / "digits.table.json").samples == CalibrationRequest().samples


def test_the_embedded_model_is_what_export_writes(digits: Digits) -> None:
    """Contract, architecture, checkpoint and operators; weights within rounding of the folding."""
    embedded, exported = onnx.load(embedded_path(demo.MODEL)), onnx.load(digits.model)
    facts = [{p.key: p.value for p in model.metadata_props} for model in (embedded, exported)]
    assert facts[0] | {"edgeres.version": ""} == facts[1] | {"edgeres.version": ""}
    embedded_nodes, nodes = (
        [(node.op_type, *node.input, *node.output) for node in model.graph.node]
        for model in (embedded, exported)
    )
    assert embedded_nodes == nodes
    for ours, theirs in zip(embedded.graph.initializer, exported.graph.initializer, strict=True):
        here, there = onnx.numpy_helper.to_array(ours), onnx.numpy_helper.to_array(theirs)
        np.testing.assert_allclose(here, there, rtol=1e-5, atol=1e-6, err_msg=ours.name)


def test_nothing_is_left_without_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files go with the temporary folder, and a failed step gives its own exit code."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(demo, "WEIGHTS", "digits.npz")
    assert "digits.npz is truncated, damaged or not from torch.save" in refusal("demo", "-q")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A file stands in its place."""
    (tmp_path / "a").touch()
    said = f"{tmp_path / 'a'} was not written: File exists. Choose a path that you may write."
    assert refusal("demo", "--keep", tmp_path / "a") == said


@pytest.mark.parametrize(
    "name", ["train.npz", "digits.onnx", "digits.int8.onnx.json", "digits.table.json", demo.WEIGHTS]
)
def test_files_of_the_user_are_not_overwritten(name: str, tmp_path: Path) -> None:
    """`--keep .` where files of these names are; a link to nowhere is one too."""
    (tmp_path / name).write_text("mine")
    said = refusal("demo", "--keep", tmp_path, code=2)
    assert said == (
        f"{tmp_path / name} was not written by edgeres demo, and would be lost. Pass a new folder."
    )
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("nowhere")
    assert refusal("demo", "--keep", tmp_path, code=2) == said


def test_a_folder_of_an_earlier_run_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of one that was interrupted: its mark is written first."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "embedded_digits", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_demo(tmp_path, show_status=print)
    assert [path.name for path in tmp_path.iterdir()] == [demo.WEIGHTS]

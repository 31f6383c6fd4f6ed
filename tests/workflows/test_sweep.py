"""`edgeres sweep`: every combination once, whatever interrupts it, and what it refuses."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commands import passed, refusal
from digits import Digits

from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest, CalibrationRequest
from edgeres.core.verdict import Verdict
from edgeres.errors import BuildError
from edgeres.targets import base
from edgeres.workflows import bench_engine
from edgeres.workflows import sweep as stage
from edgeres.workflows.build import BuildInputs

LINE = (
    "sweep {model} --data {test} --calibration {table} --precision fp32,int8 --batch 1,2 "
    "--samples 60 --iterations 5 --streams 1 -o {out}"
)
NAMES = [f"onnxruntime.{p}.b{b}" for p in ("fp32", "int8") for b in (1, 2)]


@pytest.fixture(scope="module")
def undisturbed(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep that nothing interrupted."""
    folder: Path = tmp_path_factory.mktemp("sweep") / "out"
    passed(*digits.words(LINE, out=folder))
    return folder


def _table(folder: Path) -> list[tuple[Any, ...]]:
    """Returns what of a sweep's table no clock decides."""
    runs = json.loads((folder / "sweep.json").read_text())["runs"]
    keys = ("name", "precision", "batch", "target", "board", "verdict", "top1")
    return [tuple(run[key] for key in keys) for run in runs]


def _stamps(folder: Path) -> dict[str, int]:
    """Returns when each verdict was written."""
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("verdicts/*.json")}


def test_every_combination_has_an_engine_and_a_verdict(undisturbed: Path) -> None:
    """One engine a precision, one verdict a batch too, all of them as bench's own JSON."""
    runs = json.loads((undisturbed / "sweep.json").read_text())["runs"]
    assert [run["name"] for run in runs] == NAMES
    for run in runs:
        verdict = json.loads((undisturbed / run["verdict"]).read_text())
        assert verdict["accuracy"]["engine"]["top1"] == run["top1"]
        assert verdict["latency"]["engine"]["p50_ms"] == run["p50_ms"]
        assert verdict["latency"]["batch_size"] == run["batch"]
        measured = verdict["throughput"]["measured"]
        assert (measured["streams"], measured["batch_size"]) == (1, run["batch"])
        per_s = 1e3 * run["batch"] / measured["engine"]["mean_ms"]
        assert run["images_per_s"] == pytest.approx(per_s)
    assert sorted(file.name for file in undisturbed.glob("engines/*.onnx")) == [
        "onnxruntime.fp32.onnx",
        "onnxruntime.int8.onnx",
    ]
    assert any(run["on_front"] for run in runs)
    page = (undisturbed / "index.html").read_text()
    assert all(name.rpartition(".b")[0] in page for name in NAMES)
    assert "<script" not in page
    assert page.count("<svg") == 2
    assert (undisturbed / "sweep.md").read_text().startswith("| run | batch |")


def test_what_is_done_is_not_done_again(
    digits: Digits, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same line on a finished folder neither builds nor benches, and says the same."""
    monkeypatch.setattr(stage, "bench_engine", pytest.fail)
    monkeypatch.setattr(stage, "build_from_model", pytest.fail)
    before = _table(undisturbed)
    passed(*digits.words(LINE, out=undisturbed))
    assert _table(undisturbed) == before


@pytest.mark.parametrize("at", [0, 3])
def test_an_interrupted_sweep_goes_on_where_it_was(
    at: int, digits: Digits, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the bench calls only the one in progress is made twice."""
    calls: list[str] = []

    def counted(*arguments: Any, **options: Any) -> Verdict:
        calls.append(arguments[0].engine.name)
        if len(calls) == at + 1:
            raise KeyboardInterrupt
        return bench_engine(*arguments, **options)

    monkeypatch.setattr(stage, "bench_engine", counted)
    words = digits.words(LINE, out=tmp_path / "out")
    with pytest.raises(AssertionError):
        passed(*words)
    passed(*words)
    assert len(calls) == len(NAMES) + 1
    assert _table(tmp_path / "out") == _table(undisturbed)


def test_a_sweep_survives_kill_9(digits: Digits, tmp_path: Path, undisturbed: Path) -> None:
    """Killed at random moments and begun again: the same table, and no file written twice."""
    words = digits.words(LINE, out=tmp_path / "out")
    moments = random.Random(7)
    for _ in range(2):
        done = _stamps(tmp_path / "out")
        process = subprocess.Popen(
            [sys.executable, "-m", "edgeres", *words], stderr=subprocess.PIPE
        )
        # From the first file on, so that not all moments fall into the imports.
        deadline = time.monotonic() + 60
        while not (tmp_path / "out/plan.json").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(moments.uniform(0.0, 1.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert done.items() <= _stamps(tmp_path / "out").items()
    passed(*words)
    assert _table(tmp_path / "out") == _table(undisturbed)


def test_a_folder_of_another_sweep_is_refused(digits: Digits, undisturbed: Path) -> None:
    """With what differs."""
    words = digits.words(LINE.replace("--samples 60", "--samples 50"), out=undisturbed)
    said = refusal(*words, code=2)
    assert "its samples is 60, this one's is 50" in said


def test_what_cannot_run_here_is_estimated(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan without a GPU has the board's latency and no accuracy; without a board, the reason."""
    monkeypatch.setattr(base, "has_nvidia_gpu", lambda: False)
    line = (
        "sweep {model} --data {test} --calibration {table} --precision int8,fp16 "
        "--target tensorrt --batch 4 -o {out} --json"
    )
    told = json.loads(passed(*digits.words(line, out=tmp_path / "a")))["runs"]
    assert all(run["reason"] and run["p50_ms"] is None and not run["on_front"] for run in told)
    line += " --board orin-nano-8 --power-mode 25W"
    told = json.loads(passed(*digits.words(line, out=tmp_path / "b")))["runs"]
    words = ("estimate", digits.model, "--board", "orin-nano-8", "--power-mode", "25W")
    own = json.loads(passed(*words, "--batch", 4, "--json"))["estimates"]
    by_precision = {one["precision"]: one["latency_ms"] for one in own}
    for run in told:
        assert (run["estimated"], run["top1"], run["verdict"]) == (True, None, None)
        assert run["p50_ms"] == by_precision[run["precision"]]
        assert run["board"] == "orin-nano-8"


def test_fp8_has_a_table_of_its_own(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same images, with FP8's biases; each engine is built from the table of its precision."""
    requests: dict[str, CalibrationRequest] = {}
    tables: dict[Precision, str] = {}

    def calibrate_model(
        model: object, data: object, request: CalibrationRequest, *, output: Path, **_: object
    ) -> None:
        requests[output.name] = request
        output.write_text(digits.table.read_text())

    def build(inputs: BuildInputs, request: BuildRequest) -> None:
        tables[request.precision] = "" if inputs.table is None else Path(str(inputs.table)).name
        raise BuildError("enough")

    monkeypatch.setattr(stage, "calibrate_model", calibrate_model)
    monkeypatch.setattr(stage._ThisMachine, "build", lambda _, *of: build(*of))
    line = (
        "sweep {model} --data {test} --calib-data {train} --precision fp32,int8,fp8 "
        "--target onnx -o {out}"
    )
    for precision in ("fp32", "int8", "fp8"):
        words = digits.words(line.replace("fp32,int8,fp8", precision), out=tmp_path / precision)
        refusal(*words, code=1)
    assert requests == {
        "table.json": CalibrationRequest(),
        "table.fp8.json": CalibrationRequest(precision=Precision.FP8),
    }
    assert tables == {
        Precision.FP32: "",
        Precision.INT8: "table.json",
        Precision.FP8: "table.fp8.json",
    }


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--calib-data {test}", "--calib-data and --data are both"),
        ("", "int8 and mixed need ranges"),
        ("--calibration {table} --precision mixed", "--judge-data"),
        ("--calibration {table} --precision fp16", "They have: onnxruntime:"),
        ("--calibration {table} --precision int9", "Did you mean 'int8'?"),
        ("--calibration {table} --target onnxruntim", "Did you mean 'onnxruntime'?"),
        ("--calibration {table} --batch 0", "--batch 0"),
    ],
)
def test_what_it_refuses(line: str, said: str, digits: Digits, tmp_path: Path) -> None:
    """Before anything is built: the folder does not appear."""
    words = digits.words("sweep {model} --data {test} -o {out} " + line, out=tmp_path / "out")
    assert said in refusal(*words, code=2)
    assert not (tmp_path / "out").exists()

"""The report from a board: here it says what is lacking, on the pretend driver every step runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from digits import Digits, save_manifest, sha256_of
from fake_runtime import put_in_place
from pretend_cuda import PretendCuda

from edgeres.core.artifacts import EngineArtifact, Manifest, TensorSpec
from edgeres.core.contract import preset
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.images import load_dataset, select
from edgeres.machine.cuda import NoCudaDevice
from edgeres.onnx_file import load_onnx
from edgeres.quantization.qdq.network import quantize_for_tensorrt
from edgeres.workflows import BuildInputs

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

PRECISIONS = [precision.value for precision in Precision]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script as a module, beside its steps."""
    pytest.importorskip("torch", reason="torch, which exports the network, is not installed")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import verify_on_device

    yield verify_on_device
    for name in ("verify_on_device", "device_steps", "device_bench"):
        sys.modules.pop(name, None)


@pytest.fixture
def steps(script: ModuleType) -> ModuleType:
    """The module of the steps."""
    return sys.modules["device_steps"]


Verify = Callable[..., dict[str, Any]]


@pytest.fixture
def verify(script: ModuleType, steps: ModuleType, tmp_path: Path) -> Verify:
    """Runs the script on the digits and returns its report."""

    def run(**changes: Any) -> dict[str, Any]:
        options = steps.Options(
            folder=tmp_path,
            networks=("digits",),
            onnx=None,
            data=None,
            target="tensorrt",
            inferences=64,
            images=32,
        )
        report: dict[str, Any] = script.verify(replace(options, **changes), lambda line: None)
        return report

    return run


def statuses(report: dict[str, Any], *names: str) -> list[str]:
    """Returns what became of the steps whose name has one of these in it, or of all."""
    found = [step for step in report["steps"] if not names or any(n in step["name"] for n in names)]
    return [step["status"] for step in found]


def step(report: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns one step."""
    (found,) = (s for s in report["steps"] if s["name"] == name)
    return dict(found)


def test_without_hardware_it_reports_what_is_lacking(
    script: ModuleType, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the CPU can do passes; each other step names what it lacks."""
    none, kit = NoCudaDevice(reason="it has no NVIDIA driver"), sys.modules["device_bench"]
    for module in (script, kit):
        monkeypatch.setattr(module, "find_cuda_device", lambda: none)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(kit, "is_installed", lambda name: name == "torch")
    report = verify()
    assert report["device"] is None
    assert report["lacks"]["GPU"] == "this machine: it has no NVIDIA driver"
    assert set(statuses(report, "model and ranges", "simulation")) == {"passed"}
    rest = ["build", "accuracy", "coverage", "latency", "trtexec", "memory", "streams", "torch"]
    assert set(statuses(report, *rest)) == {"skipped"}
    assert step(report, "digits int8: build")["reason"] == "lacks GPU, TensorRT"
    assert step(report, "digits int8: accuracy")["reason"] == "lacks GPU, TensorRT, pycuda"
    told = script.text_of(report)
    assert told.startswith("device: none\nlacks GPU: this machine: it has no NVIDIA driver\n")
    assert "skipped digits int8: accuracy: lacks GPU, TensorRT, pycuda\n" in told
    assert len(told.splitlines()) == 1 + len(report["lacks"]) + len(report["steps"])


Build = Callable[..., EngineArtifact]


def builder(change: Callable[[bytes], bytes] = bytes) -> Build:
    """Returns a builder whose plan is the network that TensorRT would be given."""

    def build(inputs: BuildInputs, config: BuildRequest) -> EngineArtifact:
        assert (inputs.selection is not None) is (config.precision is Precision.MIXED)
        table, output = inputs.table, inputs.output
        assert not isinstance(table, Path)
        described = load_onnx(inputs.model)
        plan = described.content
        if table is not None:
            plan = quantize_for_tensorrt(described, table).model.SerializeToString()
        content = change(plan)
        output.write_bytes(content)
        manifest = Manifest(
            target=config.target,
            precision=config.precision,
            engine_sha256=sha256_of(output),
            model_sha256=described.artifact.sha256,
            table_sha256=None,
            method=None,
            edgeres_version="",
            versions={"tensorrt": "10.3.0"},
            gpu="Pretend GPU",
            compute_capability="8.7",
            flags=(),
            contract=preset("digits"),
            classes=(),
            input=TensorSpec(name="input", shape=(None, 3, 32, 32)),
            output=TensorSpec(name="logits", shape=(None, 10)),
        )
        save_manifest(output, manifest)
        return EngineArtifact(path=output, manifest=manifest, content=content)

    return build


@pytest.fixture
def board(
    cuda: PretendCuda, steps: ModuleType, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> PretendCuda:
    """A pretend board with TensorRT's double, and the digits' network that is made already."""
    put_in_place(monkeypatch)

    def prepared(bench: Any) -> Any:
        test = select(load_dataset(digits.test), bench.options.images, 1)
        return steps.prepare(bench, "digits", digits.model, digits.train, test)

    monkeypatch.setattr(steps, "MODELS", {"digits": prepared})
    monkeypatch.setattr(steps, "build_from_model", builder())
    for module in (steps, sys.modules["device_bench"]):
        monkeypatch.setattr(module, "trtexec", lambda: None)
    monkeypatch.setattr(steps, "SAMPLES", 8)
    return cuda


@pytest.mark.cuda
def test_with_a_device_every_step_runs(board: PretendCuda, verify: Verify) -> None:
    """But for the layer list, trtexec and torch's CUDA, which are not pretended."""
    report = verify()
    ran = ["simulation", "build", "accuracy", "latency", "memory", "streams"]
    found = statuses(report, *ran)
    assert (len(found), set(found)) == (4 * len(PRECISIONS) + 2, {"passed"}), report["steps"]
    for precision in PRECISIONS:
        figures = step(report, f"digits {precision}: accuracy")["figures"]
        assert (figures["same_answer"], figures["drop_pp"]) == (1.0, 0.0)
        assert len(step(report, f"digits {precision}: latency")["figures"]) == 12
    assert step(report, "digits: memory over many inferences")["figures"]["device"] == 0
    assert "lacks trtexec" in step(report, "digits int8: trtexec")["reason"]
    assert board.living == {}


@pytest.mark.cuda
def test_an_engine_that_computes_something_else_fails(
    board: PretendCuda, steps: ModuleType, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the figures; and a step that ends as nobody expected is told, not fatal."""

    def other_classes(plan: bytes) -> bytes:
        model = onnx.load_model_from_string(plan)
        for tensor in model.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.shape[:1] == (10,):
                tensor.CopyFrom(onnx.numpy_helper.from_array(values[::-1].copy(), tensor.name))
        return bytes(model.SerializeToString())

    def broken(*_: object) -> None:
        raise ZeroDivisionError("nobody expected this")

    monkeypatch.setattr(steps, "build_from_model", builder(other_classes))
    monkeypatch.setattr(steps, "resident_mib", broken)
    report = verify()
    failed = step(report, "digits int8: accuracy")
    assert (failed["status"], failed["reason"]) == (
        "failed",
        "the engine is not what was simulated",
    )
    assert failed["figures"]["relative_l2"] > 0.2
    unexpected = step(report, "digits: memory over many inferences")
    assert unexpected["status"] == "failed"
    assert "ZeroDivisionError: nobody expected this" in unexpected["reason"]
    assert statuses(report, "streams") == ["passed"]


TRTEXEC = """\
[11/24/2026-10:00:00] [I] Throughput: 1405.1 qps
[11/24/2026-10:00:00] [I] Latency: min = 0.71 ms, max = 0.99 ms, mean = 0.74 ms, median = 0.73 ms, percentile(90%) = 0.76 ms
[11/24/2026-10:00:00] [I] GPU Compute Time: min = 0.68 ms, max = 0.93 ms, mean = 0.69 ms, median = 0.687 ms, percentile(90%) = 0.7 ms
"""
"""In the form of NVIDIA's tool. Source: TensorRT developer guide, "Performance Benchmarking using
trtexec"."""


def test_trtexec_s_figure_is_read(steps: ModuleType) -> None:
    """The median of the network's own time; without one, the output is kept."""
    assert steps.gpu_compute_ms(TRTEXEC) == 0.687
    with pytest.raises(steps.FailureError, match="trtexec printed no GPU compute time") as failed:
        steps.gpu_compute_ms("&&&& FAILED")
    assert failed.value.figures == {"output": "&&&& FAILED"}


def test_random_images_excite_more_than_noise(steps: ModuleType, tmp_path: Path) -> None:
    """Squares of one colour, large enough for ImageNet's crop."""
    path = steps.random_images(tmp_path / "images.npz", 3)
    images = np.load(path)["images"]
    assert (images.shape, images.dtype) == ((3, 256, 256, 3), np.dtype(np.uint8))
    assert (images[:, :16, :16] == images[:, :1, :1]).all()

"""bench of TensorRT plans on the pretend driver: verdict, timing modes, reference, trust."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import passed, refusal
from digits import QUICK, Digits, save_manifest, sha256_of
from fake_runtime import FakeRuntimeModule, put_in_place
from pretend_cuda import PretendCuda

from edgeres.core.artifacts import EngineArtifact, Manifest, load_engine
from edgeres.core.contract import Contract
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.estimation.arithmetic import Arithmetic
from edgeres.estimation.estimate import EstimateRequest, estimate_network
from edgeres.estimation.model import EstimatedTiming
from edgeres.estimation.network import network_of
from edgeres.machine import describe_machine
from edgeres.machine.boards import find_board
from edgeres.onnx_file import LoweredNetwork
from edgeres.progress import Progress
from edgeres.quantization.lowering import float_network
from edgeres.targets.tensorrt.target import TensorRTTarget

pytestmark = pytest.mark.cuda


@pytest.fixture
def trt(cuda: PretendCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRuntimeModule:
    """The double of TensorRT, and a cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return put_in_place(monkeypatch)


@pytest.fixture
def built(trt: FakeRuntimeModule, monkeypatch: pytest.MonkeyPatch) -> list[BuildRequest]:
    """What was asked of the builder, which writes the model itself as the plan."""
    asked: list[BuildRequest] = []

    def build(
        target: TensorRTTarget,
        network: LoweredNetwork,
        config: BuildRequest,
        contract: Contract,
        *,
        output: Path,
        progress: Progress,
    ) -> EngineArtifact:
        asked.append(config)
        progress("Building", 1, 1)
        return write_plan(network.source.path, output, precision=config.precision)

    monkeypatch.setattr(TensorRTTarget, "build", build)
    monkeypatch.setattr(
        TensorRTTarget, "lower", lambda target, model, *_: float_network(model, Precision.FP32)
    )
    return asked


def write_plan(onnx: Path, path: Path, **changes: Any) -> EngineArtifact:
    """Writes an ONNX file as a plan of the pretend GPU, with the manifest of the digits' engine."""
    path.write_bytes(onnx.read_bytes())
    beside = onnx.parent / "digits.int8.onnx"
    manifest: Manifest = replace(
        load_engine(beside).manifest,
        **{
            "target": "tensorrt",
            "engine_sha256": sha256_of(path),
            "versions": {"tensorrt": "10.3.0"},
            "gpu": "Pretend GPU",
            "compute_capability": "8.7",
            **changes,
        },
    )
    save_manifest(path, manifest)
    return EngineArtifact(path=path, manifest=manifest, content=path.read_bytes())


@pytest.fixture
def plan(digits: Digits, tmp_path: Path) -> Path:
    """A plan whose engine computes what the CPU's INT8 engine does."""
    return write_plan(digits.engine, tmp_path / "digits.plan").path


def bench(digits: Digits, plan: Path, *more: object, quick: str = QUICK) -> dict[str, Any]:
    """Returns the verdict on the plan."""
    line = digits.words(f"bench {{plan}} --reference {{model}} --data {{test}} {quick}", plan=plan)
    verdict: dict[str, Any] = json.loads(passed(*line, "--json", *more))
    return verdict


def test_the_verdict_is_the_cpu_s(
    built: Sequence[BuildRequest], digits: Digits, plan: Path
) -> None:
    """The same engine, so the same images are right; who ran where is told."""
    found = bench(digits, plan)
    other = bench(digits, digits.engine)
    assert found["accuracy"]["engine"] == other["accuracy"]["engine"]
    assert found["environment"]["engine"] == (
        "digits.plan on tensorrt 10.3.0, Pretend GPU, copied memory"
    )
    assert found["environment"]["reference"] == "digits.onnx on onnxruntime-cpu"


@pytest.mark.parametrize("timing", ["end-to-end", "end-to-end-graph", "compute", "compute-graph"])
def test_the_mode_is_named(
    timing: str, built: Sequence[BuildRequest], digits: Digits, plan: Path
) -> None:
    """And both networks are timed on the GPU, each by its plan."""
    latency = bench(digits, plan, "--timing", timing)["latency"]
    first, _, second = latency["mode"].partition(" against ")
    assert first == f"{timing}, batch 1: digits.plan on tensorrt 10.3.0, Pretend GPU, copied memory"
    assert second.startswith("digits-")
    assert second.endswith(".fp32.plan on tensorrt 10.3.0, Pretend GPU, copied memory")
    assert latency["engine"]["p50_ms"] > 0


def test_the_reference_engine_is_built_once(
    built: Sequence[BuildRequest], digits: Digits, plan: Path, tmp_path: Path
) -> None:
    """In FP32, for the batch that is timed, and kept; one that was damaged is built anew."""
    for _ in range(2):
        bench(digits, plan)
    assert [(c.target, c.precision, c.batch) for c in built] == [
        ("tensorrt", Precision.FP32, (1, 1, 16))
    ]
    (kept,) = (tmp_path / "cache/edgeres/reference").glob("*.plan")
    kept.write_bytes(b"plan")
    bench(digits, plan)
    assert len(built) == 2
    bench(digits, plan, "--latency-batch", "4")
    assert [c.batch for c in built[2:]] == [(1, 4, 16)]


def test_another_gpu_has_another_reference(
    built: Sequence[BuildRequest], digits: Digits, plan: Path, cuda: PretendCuda, tmp_path: Path
) -> None:
    """What one GPU runs fastest is no reference for the next."""
    bench(digits, plan)
    cuda.set_device(name="Other GPU")
    other = write_plan(digits.engine, tmp_path / "other.plan", gpu="Other GPU").path
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TensorRTTarget, "build", lambda target, network, config, contract, *, output, progress: (
            built.append(config),  # type: ignore[attr-defined]
            write_plan(network.source.path, output, gpu="Other GPU"),
        )[1])  # fmt: skip
        bench(digits, other)
    assert len(built) == 2


def test_trtexec_has_counts_of_its_own(digits: Digits, plan: Path, trt: FakeRuntimeModule) -> None:
    """Counts that were typed would have no effect, so they are refused."""
    line = digits.words("bench {plan} --reference {model} --data {test}", plan=plan)
    said = refusal(*line, "--timing", "trtexec-10", "--iterations", "5", "--warmup", "1", code=2)
    assert said.endswith(
        "--timing trtexec-10 takes as many inferences as trtexec does: at least 10, for 3 seconds, "
        "after 0.2 seconds of warm-up. Leave --iterations and --warmup out."
    )


def test_a_mode_of_the_gpu_s_is_refused_on_the_cpu(digits: Digits) -> None:
    """Before any image is judged."""
    line = digits.words("bench {engine} --reference {model} --data none.npz --timing compute")
    assert refusal(*line, code=2) == (
        "--timing compute needs a GPU, and digits.int8.onnx on onnxruntime-cpu has none. Use "
        "--timing end-to-end, or build the engine with --target tensorrt."
    )


def test_a_plan_without_a_manifest_needs_trust(
    built: Sequence[BuildRequest], digits: Digits, plan: Path
) -> None:
    """A plan is code. With the user's word it runs as one of the reference's model."""
    with_manifest = bench(digits, plan)
    plan.with_name("digits.plan.json").unlink()
    line = digits.words(f"bench {{plan}} --reference {{model}} --data {{test}} {QUICK}", plan=plan)
    assert refusal(*line) == (
        f"{plan} has no manifest: digits.plan.json is not beside it. An engine is code, so one of "
        "unknown origin is not run. Copy both files, or build it with build-engine; bench runs a "
        "plan of your own with --trust."
    )
    trusted = bench(digits, plan, "--trust")
    assert trusted["accuracy"]["engine"] == with_manifest["accuracy"]["engine"]


def test_trust_does_not_overrule_a_manifest(
    digits: Digits, plan: Path, cuda: PretendCuda, trt: FakeRuntimeModule
) -> None:
    """One that says that the plan belongs elsewhere is believed."""
    cuda.set_device(capability=72, name="Xavier")
    line = digits.words("bench {plan} --reference {model} --data {test} --trust", plan=plan)
    said = refusal(*line, code=6)
    assert "it is for compute capability 8.7, this machine has 7.2 (Xavier)" in said


def test_trust_takes_the_contract_of_the_reference(
    built: Sequence[BuildRequest], digits: Digits, plan: Path, tmp_path: Path
) -> None:
    """Of its model, or of another engine. An ONNX file is no plan, and runs without."""
    bare = tmp_path / "bare.plan"
    bare.write_bytes(plan.read_bytes())
    line = digits.words(
        f"bench {{bare}} --reference {{plan}} --data {{test}} {QUICK} --trust --json "
        "--quantized-reference",
        bare=bare,
        plan=plan,
    )
    verdict = json.loads(passed(*line))
    assert verdict["accuracy"]["engine"] == verdict["accuracy"]["reference"]
    model = tmp_path / "bare.onnx"
    model.write_bytes(digits.model.read_bytes())
    line = digits.words("bench {bare} --reference {model} --data {test} --trust", bare=model)
    said = refusal(*line, code=2)
    assert said.startswith("--trust is for TensorRT plans, and ")
    assert said.endswith("is an ONNX file, which is run without. Leave --trust out.")


@pytest.mark.parametrize("timing", ["end-to-end", "compute-graph"])
def test_streams_have_contexts_of_their_own(
    timing: str, built: Sequence[BuildRequest], digits: Digits, plan: Path, cuda: PretendCuda
) -> None:
    """Throughput is measured on the GPU with both plans, and all that it took is given back."""
    found = bench(digits, plan, "--timing", timing, "--streams", "3")
    run = found["throughput"]["measured"]
    mode = "end-to-end-graph" if timing == "compute-graph" else "end-to-end"
    assert run["mode"].startswith(f"{mode}, batch 1, 3 at a time: digits.plan on tensorrt 10.3.0")
    assert found["throughput"]["streams"] == 3
    mean_ms = run["engine"]["mean_ms"]
    assert found["throughput"]["engine_images_per_s"] == pytest.approx(1000 / mean_ms)
    assert found["latency"]["mode"].startswith(f"{timing}, batch 1: ")
    assert cuda.living == {}


def test_the_measurement_stands_beside_the_estimate(
    built: Sequence[BuildRequest],
    digits: Digits,
    plan: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a board that is known; elsewhere, and on the CPU, there is none."""
    assert bench(digits, plan)["estimate"] is None
    board = replace(
        describe_machine(), board="NVIDIA Jetson Orin Nano Developer Kit", memory_mib=7600
    )
    monkeypatch.setattr("edgeres.workflows.bench.describe_machine", lambda: board)
    monkeypatch.setattr("edgeres.workflows.board_estimate._power_mode", lambda *_: "MODE_15W")
    assert bench(digits, digits.engine)["estimate"] is None
    page = tmp_path / "page.html"
    found = bench(digits, plan, "--report", page)
    told, p50_ms = found["estimate"], found["latency"]["engine"]["p50_ms"]
    assert (told["board"], told["power_mode"], told["sms"]) == ("orin-nano-8", "15W", 8)
    estimate = told["estimate"]
    assert (told["measured_ms"], estimate["timing"]) == (p50_ms, "loop")
    assert told["within"] == (estimate["low_ms"] <= p50_ms <= estimate["high_ms"])
    alone = EstimateRequest(
        board=find_board("orin-nano-8", "15W"),
        precisions=(Arithmetic.INT8,),
        timings=(EstimatedTiming.LOOP,),
    )
    (same,) = estimate_network(network_of(str(digits.model)), alone).estimates
    assert estimate["latency_ms"] == pytest.approx(same.latency_ms)
    assert "orin-nano-8 in 15W: 8 SMs at 625 MHz" in page.read_text()
    line = digits.words(f"bench {{plan}} --reference {{model}} --data {{test}} {QUICK}", plan=plan)
    assert "80 % interval" in " ".join(passed(*line).split())

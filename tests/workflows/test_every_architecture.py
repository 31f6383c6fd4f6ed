"""Every registered architecture goes to INT8 and runs; a wide and a plain one reach a verdict."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from commands import run
from digits import Digits
from numpy.typing import NDArray
from torch import nn

from edgeres.core.artifacts import EngineArtifact
from edgeres.core.contract import Contract, preset
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest, CalibrationRequest, OnnxExportRequest
from edgeres.core.resize import shortest
from edgeres.core.table import CalibrationTable
from edgeres.images import embedded_digits, normalise
from edgeres.networks import ARCHITECTURES, find_spec
from edgeres.networks.onnx_export import export_onnx
from edgeres.networks.resnet import build_model
from edgeres.networks.specification import BlockKind, ModelSpec, Shortcut, Stem
from edgeres.targets.base import engine_runner
from edgeres.workflows import BuildInputs, build_from_model, calibrate_model
from training.loop import RECIPES, Settings, Training, labelled

IMAGES = 8
DEEPEST = ("resnet152", "resnext101_32x8d", "resnet110", "wrn_40_4")
"""Of each kind of block; resnet1202 alone is deeper, with 200 blocks a stage, which take minutes."""


def small(name: str) -> ModelSpec:
    """Returns the architecture with few channels and small images, the deepest at their depth.

    Two blocks a stage are all the kinds there are: one that changes the shape, one that does not.
    """
    spec = find_spec(name)
    imagenet = spec.stem is Stem.IMAGENET
    return replace(
        spec,
        layers=tuple(blocks if name in DEEPEST else min(blocks, 2) for blocks in spec.layers),
        base_width=16 if imagenet else 4,
        num_classes=10,
        input_size=32 if imagenet else 16,
    )


def initialised(spec: ModelSpec) -> nn.Module:
    """Returns a network of random weights whose blocks change their input by a part.

    As in a trained one; at full strength a hundred blocks would blow any rounding up.
    """
    torch.manual_seed(0)
    model = build_model(spec).eval()
    last = "bn3" if spec.block is BlockKind.BOTTLENECK else "bn2"
    for name, module in model.named_modules():
        if name.startswith("layer") and name.endswith(last) and spec.shortcut is not Shortcut.NONE:
            nn.init.constant_(module.get_parameter("weight"), 0.2)
    return model


def float_convolutions(engine: EngineArtifact) -> list[str]:
    """Returns the convolutions that did not become INT8."""
    return [
        layer.name
        for layer in engine.manifest.layers
        if layer.op_type == "Conv" and layer.precision is not Precision.INT8
    ]


@dataclass(frozen=True, eq=False)
class Member:
    """An architecture of the family with random weights, exported and calibrated."""

    model: nn.Module
    images: NDArray[np.float32]
    path: Path
    table: CalibrationTable


@pytest.fixture(scope="module", params=ARCHITECTURES)
def member(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Member:
    """Every registered architecture in turn."""
    folder = tmp_path_factory.mktemp("member")
    spec = small(request.param)
    model = initialised(spec)
    contract = Contract(
        height=spec.input_size, width=spec.input_size, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
    )
    shape = (IMAGES, spec.input_size, spec.input_size, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.savez(folder / "a.npz", images=pixels, labels=np.arange(IMAGES))
    exported = export_onnx(model, OnnxExportRequest(contract=contract), output=folder / "a.onnx")
    config = CalibrationRequest(samples=IMAGES, batch_size=IMAGES)
    table = calibrate_model(exported.path, folder / "a.npz", config)
    return Member(model, normalise(pixels, contract), exported.path, table)


def test_every_architecture_runs_in_int8(member: Member, tmp_path: Path) -> None:
    """Random weights: every convolution INT8, logits near those that torch computes in FP32."""
    with torch.inference_mode():
        expected = member.model(torch.from_numpy(member.images)).numpy()
    engine = build_from_model(
        BuildInputs(model=member.path, table=member.table, output=tmp_path / "b.onnx"),
        BuildRequest(),
    )
    with engine_runner(engine) as runner:
        found = runner.infer(member.images)

    convolutions = [m for m in member.model.modules() if isinstance(m, nn.Conv2d)]
    assert sum(layer.op_type == "Conv" for layer in engine.manifest.layers) == len(convolutions)
    assert float_convolutions(engine) == []
    # An engine that answered every image alike would be off by all that tells them apart.
    told_apart = np.linalg.norm(expected - expected.mean(0))
    assert np.linalg.norm(found - expected) < 0.8 * told_apart


def test_nvidias_builder_takes_every_architecture(member: Member, tmp_path: Path) -> None:
    """TensorRT for RTX parses and builds INT8 with FP16 around it, all of it in its precision."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    config = BuildRequest(target="tensorrt-rtx", compute_capability="8.6", required_coverage=100.0)
    engine = build_from_model(
        BuildInputs(model=member.path, table=member.table, output=tmp_path / "b.plan"), config
    )
    audit = engine.manifest.audit
    assert audit is not None
    assert audit.coverage == 100
    assert Counter(node.op_type for node in audit.nodes) == Counter(
        node.op_type
        for node in onnx.load(member.path).graph.node
        if node.op_type in {"Conv", "Add"}
    )
    assert float_convolutions(engine) == []


@dataclass(frozen=True)
class Case:
    """A network trained on the digits, at their own 8 pixels, for as long as it needs to tell them apart."""

    name: str
    epochs: int


def write_trained(case: Case, path: Path) -> None:
    """Writes the weights of a short training."""
    contract = replace(preset("digits"), height=8, width=8, resize=shortest(8))
    first, _ = embedded_digits()
    settings = Settings(
        recipe=replace(RECIPES["digits"], shift=1), contract=contract, epochs=case.epochs
    )
    spec = replace(find_spec(case.name), input_size=8)
    training = Training(spec, labelled(first, contract, "digits"), settings)
    for _ in range(case.epochs):
        for _ in training.run_epoch():
            pass
    torch.save(training.model.state_dict(), path)


@pytest.mark.parametrize("case", [Case("wrn_16_4", 2), Case("plain20", 5)], ids=str)
def test_a_wide_and_a_plain_net_reach_a_verdict(
    case: Case, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From their own trained checkpoints, by the commands, to a pass at two percentage points."""
    monkeypatch.chdir(tmp_path)
    write_trained(case, Path("w.pth"))
    lines = (
        f"export {case.name} --weights w.pth --preset digits --input-size 8 -o m.onnx",
        "calibrate m.onnx --data {train} --samples 256 -o t.json",
        "build-engine m.onnx --calibration t.json -o e.onnx",
        "bench e.onnx --reference m.onnx --data {test} --max-drop 2 --json "
        "--samples 300 --iterations 2 --warmup 0",
    )
    for line in lines:
        result = run(*digits.words(line))
        assert result.exit_code == 0, result.output
    verdict = json.loads(result.stdout)
    assert verdict["passed"]
    assert verdict["accuracy"]["samples"] == 300
    assert verdict["accuracy"]["reference"]["top1"] > 0.85

"""NVIDIA's own parser and builder take what edgeres writes, on a machine without a GPU."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from digits import Digits
from onnx import numpy_helper

from edgeres.core.artifacts import EngineArtifact, load_engine
from edgeres.core.contract import Contract, preset
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest, CalibrationRequest, OnnxExportRequest
from edgeres.core.table import CalibrationTable, load_table
from edgeres.errors import BuildError, ConfigError
from edgeres.networks import ARCHITECTURES
from edgeres.networks.specification import ModelSpec, Shortcut, Stem
from edgeres.onnx_file import LoweredNetwork, load_onnx
from edgeres.quantization.qdq.network import quantize_for_tensorrt
from edgeres.targets.base import build_engine
from edgeres.workflows import BuildInputs, build_from_model, calibrate_model

pytestmark = pytest.mark.rtx

RTX = BuildRequest(target="tensorrt-rtx", compute_capability="8.6")


@dataclass(frozen=True)
class Case:
    """A request, and the precisions of the layers that it leads to."""

    precision: Precision
    floats: Precision
    expected: frozenset[Precision]


CASES = {
    "fp32": Case(Precision.FP32, Precision.FP16, frozenset({Precision.FP32})),
    "fp16": Case(Precision.FP16, Precision.FP16, frozenset({Precision.FP16})),
    "int8 with fp16": Case(
        Precision.INT8, Precision.FP16, frozenset({Precision.INT8, Precision.FP16})
    ),
    "int8 with fp32": Case(
        Precision.INT8, Precision.FP32, frozenset({Precision.INT8, Precision.FP32})
    ),
}


@pytest.fixture(scope="module")
def plans(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> dict[str, EngineArtifact]:
    """The digits' plan of every case, for compute capability 8.6."""
    folder = tmp_path_factory.mktemp("plans")
    return {
        name: build_from_model(
            BuildInputs(
                model=digits.model,
                table=load_table(digits.table) if case.precision is Precision.INT8 else None,
                output=folder / f"{name}.plan",
            ),
            replace(RTX, precision=case.precision, float_layers=case.floats),
        )
        for name, case in CASES.items()
    }


@pytest.mark.parametrize("name", CASES)
def test_a_plan_of_each_precision(name: str, plans: dict[str, EngineArtifact]) -> None:
    """Strongly typed, for the GPU that was named, with every layer's precision in the manifest."""
    plan, case = plans[name], CASES[name]
    manifest = plan.manifest
    assert load_engine(plan.path) == plan
    assert (manifest.compute_capability, manifest.gpu) == ("8.6", None)
    assert manifest.flags == ("STRONGLY_TYPED",)
    assert manifest.versions.keys() == {"tensorrt_rtx"}
    assert frozenset(layer.precision for layer in manifest.layers) == case.expected
    kinds = Counter(layer.op_type for layer in manifest.layers)
    assert (kinds["Conv"], kinds["Add"]) == (19, 9)


def test_the_plan_holds_narrower_weights(plans: dict[str, EngineArtifact]) -> None:
    """The four plans differ: the FP16 one saves weights of 272,474 numbers in half the bytes."""
    size = {name: len(plan.path.read_bytes()) for name, plan in plans.items()}
    assert size["fp32"] - size["fp16"] > 272_474
    assert len({plan.manifest.engine_sha256 for plan in plans.values()}) == len(CASES)


def slim(spec: ModelSpec) -> ModelSpec:
    """Returns the architecture with at most two blocks a stage and a quarter of the width.

    Two blocks are all the kinds there are: one that changes the shape and one that does not.
    """
    width = 16 if spec.stem is Stem.IMAGENET else spec.base_width
    layers = tuple(min(count, 2) for count in spec.layers)
    return replace(spec, layers=layers, base_width=width, num_classes=10)


STRUCTURES = {replace(slim(spec), name=""): name for name, spec in ARCHITECTURES.items()}
"""The structures that the registered architectures have, each with one that has it."""


def calibrated(spec: ModelSpec, folder: Path) -> tuple[Path, CalibrationTable]:
    """Returns a model of random weights and its table of random images."""
    import torch

    from edgeres.networks.onnx_export import export_onnx
    from edgeres.networks.resnet import build_model

    torch.manual_seed(0)
    size = 32
    model, data = folder / "m.onnx", folder / "images.npz"
    network = build_model(spec)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # Or dozens of random blocks overflow, and as many layers without a shortcut underflow.
            gain = 1.0 if spec.shortcut is Shortcut.NONE else 0.1
            torch.nn.init.constant_(module.weight, gain)
    export_onnx(
        network, OnnxExportRequest(contract=Contract(height=size, width=size)), output=model
    )
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    np.savez(data, images=images)
    return model, calibrate_model(model, data, CalibrationRequest())


@pytest.mark.parametrize("spec", STRUCTURES, ids=STRUCTURES.values())
def test_every_structure_builds_in_int8(spec: ModelSpec, tmp_path: Path) -> None:
    """Whatever blocks, groups, widths and shortcuts an architecture has, NVIDIA reads it."""
    model, table = calibrated(spec, tmp_path)
    plan = build_from_model(BuildInputs(model=model, table=table, output=tmp_path / "a.plan"), RTX)
    convolutions = [layer for layer in plan.manifest.layers if layer.op_type == "Conv"]
    assert {layer.precision for layer in convolutions} == {Precision.INT8}


FULL_DEPTH = ("resnet152", "resnext101_32x8d", "resnet110", "wrn_40_4")
"""The deepest of each kind of block; `scripts/check_rtx.py` builds all there are, at full width."""


@pytest.mark.parametrize("name", FULL_DEPTH)
def test_full_depth_builds_in_int8(name: str, tmp_path: Path) -> None:
    """As deep as registered and a quarter as wide: every convolution and addition is INT8."""
    spec = replace(slim(ARCHITECTURES[name]), layers=ARCHITECTURES[name].layers)
    model, table = calibrated(spec, tmp_path)
    request = replace(RTX, required_coverage=100.0)
    audit = build_from_model(
        BuildInputs(model=model, table=table, output=tmp_path / "a.plan"), request
    ).manifest.audit
    assert audit is not None
    assert Counter(node.op_type for node in audit.nodes) == Counter(
        node.op_type for node in onnx.load(model).graph.node if node.op_type in {"Conv", "Add"}
    )


@pytest.mark.parametrize("capability", ["9.0", "8.7"])
def test_an_unsupported_gpu_is_named(capability: str, digits: Digits, tmp_path: Path) -> None:
    """With those that this version of NVIDIA's module builds for."""
    config = replace(RTX, precision=Precision.FP32, compute_capability=capability)
    with pytest.raises(ConfigError) as refused:
        build_from_model(BuildInputs(model=digits.model, output=tmp_path / "a.plan"), config)
    message = str(refused.value)
    assert (
        f"does not build for compute capability {capability}. Available: 7.5, 8.0, 8.6" in message
    )
    # An Orin has 8.7, and 9.0 is no Jetson's.
    assert ("builds its own: --target tensorrt there" in message) == (capability == "8.7")
    assert list(tmp_path.iterdir()) == []


def with_zero_point(model: onnx.ModelProto, value: int) -> onnx.ModelProto:
    """Returns a copy in which the first activation's Q/DQ has this zero point."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    quantize = next(n for n in changed.graph.node if n.op_type == "QuantizeLinear")
    zero = numpy_helper.from_array(np.array(value, np.int8), "seeded")
    changed.graph.initializer.append(zero)
    for node in changed.graph.node:
        if node is quantize or node.input[0] == quantize.output[0]:
            node.input[2] = zero.name
    return changed


@pytest.fixture(scope="module")
def lowered(digits: Digits) -> LoweredNetwork:
    """The digits' network with TensorRT's placement."""
    return quantize_for_tensorrt(load_onnx(digits.model), load_table(digits.table))


def test_a_zero_point_that_tensorrt_lacks_is_refused(
    lowered: LoweredNetwork, tmp_path: Path
) -> None:
    """NVIDIA's parser holds what is written against its rules, and its words reach the error."""
    wrong = replace(lowered, model=with_zero_point(lowered.model, 3))
    with pytest.raises(BuildError) as refused:
        build_engine(wrong, RTX, preset("digits"), output=tmp_path / "a.plan")
    message = str(refused.value)
    assert message.startswith("NVIDIA's ONNX parser ")
    assert "zero point" in message.lower()
    assert list(tmp_path.iterdir()) == []


def test_the_same_graph_with_a_zero_point_of_zero_is_taken(
    lowered: LoweredNetwork, tmp_path: Path
) -> None:
    """The zero point alone was what the parser refused."""
    same = replace(lowered, model=with_zero_point(lowered.model, 0))
    build_engine(same, RTX, preset("digits"), output=tmp_path / "a.plan")
    assert load_engine(tmp_path / "a.plan").manifest.precision is Precision.INT8

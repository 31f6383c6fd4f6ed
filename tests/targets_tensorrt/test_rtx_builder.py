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
from edgeres.core.contract import preset
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.core.table import load_table
from edgeres.errors import BuildError, ConfigError
from edgeres.onnx_file import LoweredNetwork, load_onnx
from edgeres.quantization.qdq.network import quantize_for_tensorrt
from edgeres.targets.base import build_engine
from edgeres.workflows import BuildInputs, build_from_model

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

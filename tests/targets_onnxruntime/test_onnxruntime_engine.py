"""An INT8 engine for the CPU computes in integers after ONNX Runtime's own fusions, or is none."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from digits import Digits, save_manifest, sha256_of
from onnx import numpy_helper
from qdq import without_pair

from edgeres.core.artifacts import EngineArtifact, load_engine
from edgeres.core.audit import Source
from edgeres.core.contract import preset
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.core.table import load_table
from edgeres.errors import ArtifactError, BuildError, CoverageError, RunnerError
from edgeres.onnx_file import LoweredNetwork, load_onnx
from edgeres.quantization.lowering import float_network
from edgeres.quantization.qdq.network import quantize_for_tensorrt
from edgeres.runtime import load
from edgeres.targets.base import build_engine
from edgeres.targets.onnxruntime.build import audit_of_graph, check_integer, optimized_model
from edgeres.targets.onnxruntime.quantize import quantize_for_cpu

INT8 = BuildRequest(precision=Precision.INT8)


INTEGER_FORMS = {
    "Conv": "QLinearConv",
    "Add": "QLinearAdd",
    "Gemm": "QGemm",
    "GlobalAveragePool": "MatMulInteger",
}
"""ONNX Runtime's integer operators, by the operator that each is the integer form of."""


def operators(model: onnx.ModelProto) -> Counter[str]:
    """Counts the nodes of a model by operator."""
    return Counter(node.op_type for node in model.graph.node)


def build(network: LoweredNetwork, output: Path) -> EngineArtifact:
    """Builds an INT8 engine for the CPU."""
    return build_engine(network, INT8, preset("digits"), output=output)


@pytest.fixture(scope="module")
def network(digits: Digits) -> LoweredNetwork:
    """The digits' network, lowered for the CPU."""
    return quantize_for_cpu(load_onnx(digits.model), load_table(digits.table))


def test_what_the_manifest_calls_int8_runs_in_integers(digits: Digits) -> None:
    """In the graph after ONNX Runtime's fusions: every convolution and addition, and no float."""
    plain = operators(onnx.load(digits.model))
    layers = load_engine(digits.engine).manifest.layers
    told = Counter(layer.op_type for layer in layers if layer.precision is Precision.INT8)
    run = operators(optimized_model(digits.engine.read_bytes()))
    assert told == {kind: run[form] for kind, form in INTEGER_FORMS.items() if run[form]}
    assert (told["Conv"], told["Add"]) == (plain["Conv"], plain["Add"]) == (19, 9)
    assert not {"Conv", "FusedConv", "Add", "Relu"} & run.keys()


def test_the_fp32_model_is_float_by_the_same_look(digits: Digits) -> None:
    """The look tells one from the other."""
    run = operators(optimized_model(digits.model.read_bytes()))
    assert not set(INTEGER_FORMS.values()) & run.keys()


def test_layers_that_run_in_float_are_counted(digits: Digits, network: LoweredNetwork) -> None:
    """The FP32 graph in the place of the integer one."""
    with pytest.raises(BuildError) as refused:
        check_integer(network, optimized_model(digits.model.read_bytes()))
    said = str(refused.value)
    assert "19 Conv" in said
    assert " Add" in said
    assert said.endswith("Update onnxruntime, or build with --precision fp32.")


@pytest.mark.parametrize("kind", ["Conv", "FusedConv", "NhwcFusedConv"])
def test_one_float_convolution_is_enough(network: LoweredNetwork, kind: str) -> None:
    """In whichever of its forms ONNX Runtime left it."""
    model = optimized_model(network.model.SerializeToString())
    check_integer(network, model)
    model.graph.node.add(op_type=kind)
    with pytest.raises(BuildError, match=r"would run 1 Conv in float that were to be INT8\."):
        check_integer(network, model)


def test_a_layer_that_was_left_float_may_be_float(network: LoweredNetwork) -> None:
    """The lowering says so of a layer, with its reason."""
    model = optimized_model(network.model.SerializeToString())
    model.graph.node.add(op_type="FusedConv")
    first, *others = network.layers
    assert first.op_type == "Conv"
    left = replace(first, precision=Precision.FP32, reason="seeded")
    check_integer(replace(network, layers=(left, *others)), model)


def test_a_placement_that_the_cpu_cannot_fuse_is_no_engine(digits: Digits, tmp_path: Path) -> None:
    """TensorRT's leaves convolutions before Add in float on the CPU, and they are counted."""
    table = load_table(digits.table)
    foreign = quantize_for_tensorrt(load_onnx(digits.model), table)
    with pytest.raises(BuildError, match=r"would run \d+ Conv.* in float that were to be INT8"):
        build(foreign, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_audit_tells_every_layer(digits: Digits) -> None:
    """All convolutions and additions integer, each in a layer of its own, by ONNX Runtime's name."""
    audit = load_engine(digits.engine).manifest.audit
    assert audit is not None
    assert audit.source is Source.ONNXRUNTIME
    assert (audit.coverage, len(audit.nodes), audit.missed) == (100.0, 28, ())
    kinds = {layer.name: layer.kind for layer in audit.layers}
    assert Counter(kinds[node.layer] for node in audit.nodes) == {
        "QLinearConv": 19,
        "QLinearAdd": 9,
    }


ADD = "/layer2/layer2.1/Add"


@pytest.fixture(scope="module")
def seeded(network: LoweredNetwork) -> LoweredNetwork:
    """The same network with one operand of one addition left in float."""
    return replace(network, model=without_pair(network.model, ADD))


def test_the_audit_finds_a_float_addition_by_name(seeded: LoweredNetwork) -> None:
    """With the convolution before it, which computes what the addition reads."""
    optimized = optimized_model(seeded.model.SerializeToString())
    audit = audit_of_graph(optimized, seeded.layers, Precision.INT8)
    assert ADD in {node.name for node in audit.missed}
    assert {node.ran for node in audit.missed} == {Precision.FP32}
    assert len(audit.missed) <= 2


def test_names_do_not_matter_where_all_is_integer(network: LoweredNetwork) -> None:
    """Another ONNX Runtime may call its fusions otherwise."""
    model = optimized_model(network.model.SerializeToString())
    for node in model.graph.node:
        node.name = ""
    assert audit_of_graph(model, network.layers, Precision.INT8).coverage == 100


def test_a_required_coverage_decides(seeded: LoweredNetwork, tmp_path: Path) -> None:
    """Without one, whatever was lowered to INT8 must run so; with one, that share is enough."""
    output = tmp_path / "a.onnx"
    with pytest.raises(CoverageError, match=r"would run 1 Conv, 1 Add in float") as unasked:
        build(seeded, output)
    asked = replace(INT8, required_coverage=97.0)
    with pytest.raises(
        CoverageError, match=r"coverage is 9\d\.\d %, and --require-coverage is 97"
    ) as no:
        build_engine(seeded, asked, preset("digits"), output=output)
    assert unasked.value.exit_code == no.value.exit_code == 5
    assert list(tmp_path.iterdir()) == []
    asked = replace(INT8, required_coverage=90.0)
    built = build_engine(seeded, asked, preset("digits"), output=output)
    assert built.manifest.audit is not None
    assert 90 < built.manifest.audit.coverage < 97


def test_an_fp32_engine_is_the_model_itself(digits: Digits, tmp_path: Path) -> None:
    """Nothing is lowered, and nothing is checked to be integer."""
    network = float_network(load_onnx(digits.model), Precision.FP32)
    config = BuildRequest(precision=Precision.FP32)
    engine = build_engine(network, config, preset("digits"), output=tmp_path / "a.onnx")
    assert onnx.load(engine.path).graph == onnx.load(digits.model).graph
    assert {layer.precision for layer in engine.manifest.layers} == {Precision.FP32}
    assert engine.manifest.method is None


def test_what_onnx_runtime_refuses_is_no_engine(network: LoweredNetwork, tmp_path: Path) -> None:
    """Its own reason is in the message."""
    broken = onnx.ModelProto()
    broken.CopyFrom(network.model)
    broken.graph.node[0].op_type = "Quantise"
    with pytest.raises(RunnerError, match=r"refused the model: .*Quantise"):
        build(replace(network, model=broken), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_tells_where_the_engine_comes_from(digits: Digits, tmp_path: Path) -> None:
    """Hashes of model and table, method, images, contract, versions, one precision a layer."""
    model, table = load_onnx(digits.model), load_table(digits.table)
    network = quantize_for_cpu(model, table)
    built = build(network, tmp_path / "a.onnx")
    manifest = built.manifest
    assert load_engine(built.path) == built
    assert (manifest.model_sha256, manifest.table_sha256) == (model.artifact.sha256, table.sha256)
    assert manifest.method == table.method
    assert manifest.calibration_images == table.data.image_hashes
    assert manifest.contract == preset("digits")
    assert (manifest.input, manifest.output) == (model.artifact.input, model.artifact.output)
    assert manifest.versions.keys() == {"onnx", "onnxruntime"}
    assert (manifest.gpu, manifest.compute_capability, manifest.flags) == (None, None, ())
    assert manifest.layers == network.layers


def test_an_engine_that_would_take_all_memory_is_not_run(digits: Digits, tmp_path: Path) -> None:
    """Its manifest, which anybody can write, is no proof of what ONNX Runtime does with it."""
    model = onnx.load(digits.engine)
    values = np.array([0, 1 << 28, 1], np.int64)
    for name, value in zip("abc", values, strict=True):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    model.graph.node.append(onnx.helper.make_node("Range", list("abc"), ["range"]))
    onnx.save(model, path := tmp_path / "x.onnx")
    manifest = load_engine(digits.engine).manifest
    save_manifest(path, replace(manifest, engine_sha256=sha256_of(path)))
    with pytest.raises(ArtifactError, match="its tensor 'range' has the sizes"):
        load(path)

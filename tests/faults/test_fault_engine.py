"""Engines that are not what they should be: broken, foreign, stale, or partly in float."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import networks
import numpy as np
import onnx
import pytest
from commands import passed, refusal
from digits import Digits, gpu_plan, save_manifest
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file
from seeds import BRIEF, alarms, bench, fp32_engine, reasons, rewritten, save_arrays, without_pair

from edgeres.core.artifacts import load_engine
from edgeres.core.audit import Audit, AuditedNode, EngineLayer, Source
from edgeres.core.contract_options import ContractOptions
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest, CalibrationRequest
from edgeres.core.table import load_table
from edgeres.errors import CoverageError
from edgeres.evaluation.coverage import coverage_checks
from edgeres.onnx_file import load_model, load_onnx, save_model
from edgeres.quantization.qdq.network import quantize_for_tensorrt
from edgeres.quantization.shortcuts import float_branches
from edgeres.targets.base import build_engine
from edgeres.targets.onnxruntime.quantize import quantize_for_cpu
from edgeres.workflows import BuildInputs, build_from_model, calibrate_model

COVERAGE, MISMATCH = 5, 6

WARNED = ("The reference is an engine in int8", "was built from another model")
"""Of a reference that is a quantized engine of another network."""


def bench_refusal(digits: Digits, engine: Path, *options: object, code: int = 1) -> str:
    """Returns the sentence that bench refuses an engine with."""
    words = ("bench", engine, "--reference", digits.model, "--data", digits.test, *BRIEF.split())
    return refusal(*words, *options, code=code)


def additions(model: onnx.ModelProto) -> list[str]:
    """Returns the names of the residual additions."""
    return [node.name for node in model.graph.node if node.op_type == "Add"]


def test_a_sound_engine_raises_no_alarm(digits: Digits) -> None:
    """Every convolution and addition runs as it was lowered."""
    result, verdict = bench(digits.engine, digits.model, digits.test)
    assert (result.exit_code, alarms(verdict)) == (0, [])
    assert coverage_checks(load_engine(digits.engine)) == ()


def test_qdq_missing_on_the_shortcut(digits: Digits, tmp_path: Path) -> None:
    """Of an engine that exists: the addition and its branch are named, and bench ends with 5."""
    model = load_model(digits.engine)
    name = additions(model)[1]
    place, branch = shortcut(model, name)
    broken = rewritten(digits.engine, without_pair(model, name, place), tmp_path / "bare.onnx")
    result, verdict = bench(broken, digits.model, digits.test)
    assert result.exit_code == COVERAGE
    (message,) = reasons(verdict, "int8_coverage")
    assert f"Add {name} (ran in fp32), whose branch {branch} has no Q/DQ" in message


def test_qdq_missing_on_the_shortcut_is_not_built(digits: Digits, tmp_path: Path) -> None:
    """The builder sees it in the graph after ONNX Runtime's fusions, and writes nothing."""
    network = quantize_for_cpu(load_onnx(digits.model), load_table(digits.table))
    name = additions(network.model)[1]
    bare = replace(
        network, model=without_pair(network.model, name, shortcut(network.model, name)[0])
    )
    contract = load_engine(digits.engine).manifest.contract
    config = BuildRequest(required_coverage=100)
    with pytest.raises(CoverageError, match=rf"Add {name} \(ran in fp32\)") as refused:
        build_engine(bare, config, contract, output=tmp_path / "never.onnx")
    assert refused.value.exit_code == COVERAGE
    assert list(tmp_path.iterdir()) == []


def test_qdq_missing_on_the_shortcut_of_a_board_s_network(digits: Digits) -> None:
    """TensorRT's placement leaves the main branch alone in float; without the pair both are."""
    network = quantize_for_tensorrt(load_onnx(digits.model), load_table(digits.table))
    sound = float_branches(network.model)
    names = additions(network.model)
    assert {name: len(inputs) for name, inputs in sound.items()} == dict.fromkeys(names, 1)
    node = next(node for node in network.model.graph.node if node.name == names[0])
    place = 1 - list(node.input).index(sound[names[0]][0])
    assert len(float_branches(without_pair(network.model, names[0], place))[names[0]]) == 2


def shortcut(model: onnx.ModelProto, name: str) -> tuple[int, str]:
    """Returns which input of an addition no convolution makes, and what it is called unpaired."""
    makers = {output: node for node in model.graph.node for output in node.output}
    node = next(node for node in model.graph.node if node.name == name)
    sources = [makers[makers[i].input[0]].input[0] for i in node.input]
    place = next(p for p, source in enumerate(sources) if makers[source].op_type != "Conv")
    return place, sources[place]


def test_layers_fallen_back_to_fp32(digits: Digits, tmp_path: Path) -> None:
    """Without a pair between them a convolution and what feeds it run in float, and are named."""
    model = load_model(digits.engine)
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    fallen = rewritten(
        digits.engine, without_pair(model, convolutions[3], 0), tmp_path / "fallen.onnx"
    )
    result, verdict = bench(fallen, digits.model, digits.test)
    assert result.exit_code == COVERAGE
    (message,) = reasons(verdict, "int8_coverage")
    assert message.startswith(
        "2 of 28 convolutions and additions that INT8 was requested of do not"
    )
    assert f"Conv {convolutions[3]} (ran in fp32)" in message
    assert message.endswith("Build the engine again for this machine and version")


def test_a_plan_s_layers_fallen_back_are_read_off_its_audit(digits: Digits, tmp_path: Path) -> None:
    """What NVIDIA's builder told stands in the manifest, and counts where no GPU is."""
    plan = gpu_plan(digits, tmp_path / "a.plan")
    manifest = load_engine(plan).manifest
    meant = [layer for layer in manifest.layers if layer.op_type == "Conv"][:7]
    nodes = tuple(
        AuditedNode(name=n.name, op_type="Conv", asked=Precision.INT8, ran=Precision.FP16)
        for n in meant
    )
    layer = EngineLayer(name="k", kind="CaskConvolution", precision=Precision.FP16)
    audit = Audit(source=Source.INSPECTOR, layers=(layer,), nodes=nodes)
    save_manifest(plan, replace(manifest, audit=audit))
    (check,) = coverage_checks(load_engine(plan))
    assert (check.value, check.passed, check.exit_code) == (7, False, COVERAGE)
    assert f"Conv {meant[0].name} (ran in fp16)" in check.reason
    assert "; and 2 more." in check.reason
    save_manifest(plan, replace(manifest, audit=replace(audit, nodes=())))
    assert coverage_checks(load_engine(plan)) == ()


def test_an_engine_of_other_weights(digits: Digits, tmp_path: Path) -> None:
    """The same architecture, trained otherwise."""
    weights = {name: value * 1.01 for name, value in load_file(digits.weights).items()}
    other, model = tmp_path / "other.safetensors", tmp_path / "other.onnx"
    save_file(weights, other)
    passed("export", "resnet20", "--weights", other, "--preset", "digits", "-o", model)
    message = bench_refusal(digits, fp32_engine(model), code=MISMATCH)
    assert message.startswith(
        f"{tmp_path / 'other.fp32.onnx'} was built from a model with sha256 "
        f"{load_onnx(model).artifact.sha256[:12]}, but {digits.model} is "
        f"{load_onnx(digits.model).artifact.sha256[:12]}: other weights, or exported again since."
    )


def test_another_network_s_engine_is_no_reference(digits: Digits, tmp_path: Path) -> None:
    """As its model is none; quantized ones are compared as they are, with a warning."""
    model = tmp_path / "other.onnx"
    save_model(
        model,
        load_model(digits.model),
        replace(load_onnx(digits.model).artifact, architecture="resnet20b"),
    )
    other = fp32_engine(model)
    words = ("--reference", other, "--data", digits.test, *BRIEF.split())
    said = refusal("bench", digits.engine, *words, code=MISMATCH)
    assert f"but {other} was built from {load_onnx(model).artifact.sha256[:12]}" in said
    table, quantized = tmp_path / "t.json", tmp_path / "other.int8.onnx"
    passed("calibrate", model, "--data", digits.train, "--samples", 64, "-o", table)
    passed("build-engine", model, "--calibration", table, "-o", quantized)
    _, verdict = bench(digits.engine, quantized, digits.test, "--quantized-reference")
    assert [words in verdict["warnings"][n] for n, words in enumerate(WARNED)] == [True, True]
    own = tmp_path / "own.onnx"
    own.write_bytes(digits.model.read_bytes())
    assert alarms(bench(digits.engine, fp32_engine(own), digits.test)[1]) == []


def test_a_stale_engine(digits: Digits, tmp_path: Path) -> None:
    """The model was exported again, in place, after the engine was built."""
    model = tmp_path / "model.onnx"
    model.write_bytes(digits.model.read_bytes())
    engine = fp32_engine(model)
    assert bench(engine, model, digits.test)[0].exit_code == 0
    export = ("export", "resnet20", "--weights", digits.weights, "--preset", "digits")
    passed(*export, "--opset", 18, "-o", model)
    words = ("bench", engine, "--reference", model, "--data", digits.test)
    message = refusal(*words, code=MISMATCH)
    assert (
        "other weights, or exported again since. Build the engine again from this model" in message
    )


def test_a_batch_larger_than_the_profile(digits: Digits, tmp_path: Path) -> None:
    """Refused before anything is run, and the options that help are named."""
    plan = gpu_plan(digits, tmp_path / "a.plan")
    save_manifest(plan, replace(load_engine(plan).manifest, batch=(1, 1, 8)))
    assert bench_refusal(digits, plan, "--batch-size", 16, code=MISMATCH) == (
        f"--batch-size is 16, but {plan} was built for batches of 1 to 8. Pass one of these, or "
        "build the engine with --batch 1:16:16."
    )
    fitting = bench_refusal(digits, plan, "--batch-size", 8, "--latency-batch", 9, code=MISMATCH)
    assert fitting.startswith(f"--latency-batch is 9, but {plan} was built for")
    assert "was built for" not in bench_refusal(digits, plan, "--batch-size", 8, code=MISMATCH)


def test_a_network_of_a_fixed_batch_takes_any(digits: Digits, tmp_path: Path) -> None:
    """Exported for single images, it is opened: sixteen and single ones have the same accuracy."""
    model = load_model(digits.model)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    described = load_onnx(digits.model).artifact
    fixed = tmp_path / "fixed.onnx"
    save_model(fixed, model, described)
    engine = fp32_engine(fixed)
    one, sixteen = (
        bench(engine, fixed, digits.test, "--batch-size", batch)[1]["accuracy"] for batch in (1, 16)
    )
    assert one["engine"] == sixteen["engine"] == one["reference"]


def test_an_engine_that_answers_nan(digits: Digits, tmp_path: Path) -> None:
    """No verdict rests on it."""
    model = load_model(digits.engine)
    last = model.graph.node[-1]
    bias = next(t for t in model.graph.initializer if t.name == last.input[2])
    values = numpy_helper.to_array(bias).copy()
    values[3] = np.nan
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    message = bench_refusal(digits, rewritten(digits.engine, model, tmp_path / "nan.onnx"))
    assert "nan.onnx on onnxruntime-cpu returned NaN or infinite logits for 16 of the 16" in message
    assert message.endswith("check the weights, or build in a precision of wider range.")


def test_a_truncated_engine(digits: Digits, tmp_path: Path) -> None:
    """Its manifest tells before anything is loaded."""
    cut = rewritten(digits.engine, load_model(digits.engine), tmp_path / "cut.onnx")
    cut.write_bytes(cut.read_bytes()[:-100])
    message = bench_refusal(digits, cut)
    assert message.startswith(f"{cut} was changed or truncated after it was built: sha256 ")
    assert message.endswith("Run build-engine again.")


@pytest.mark.parametrize("name", networks.FOLDED)
def test_every_kind_of_block_raises_no_alarm(name: str, tmp_path: Path) -> None:
    """What the lowering leaves in float on purpose is no fallback."""
    path = tmp_path / "model.onnx"
    onnx.save(networks.network(name), path)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
    data = save_arrays(tmp_path / "images.npz", pixels, np.zeros(8, np.int64))
    options = ContractOptions(preset="digits", input_size=networks.SIZE, resize=networks.SIZE)
    table = calibrate_model(path, data, CalibrationRequest(), options)
    config = BuildRequest()
    engine = build_from_model(
        BuildInputs(model=path, table=table, contract=options, output=tmp_path / "e.onnx"), config
    )
    assert coverage_checks(engine) == ()

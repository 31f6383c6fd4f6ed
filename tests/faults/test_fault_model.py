"""Models that others made, from file to verdict: none passes that should be stopped."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import refusal, run
from digits import QUICK, Digits
from onnx import helper, numpy_helper
from seeds import alarms, arrays, bench, fp32_engine, reasons, save_arrays

from edgeres.onnx_file import load_onnx, save_model
from edgeres.workflows.bench_pair import Reference


def with_end(digits: Digits, path: Path, *operators: str) -> Path:
    """Writes the digits' network with these operators behind its logits."""
    loaded = load_onnx(digits.model)
    model, tensor = loaded.proto, "scores"
    last = next(node for node in model.graph.node if "logits" in node.output)
    last.output[0] = tensor
    for index, op_type in enumerate(operators):
        output = "logits" if index == len(operators) - 1 else f"end{index}"
        model.graph.node.append(helper.make_node(op_type, [tensor], [output], name=output))
        tensor = output
    save_model(path, model, loaded.artifact)
    return path


def with_mixed_batch(digits: Digits, path: Path) -> Path:
    """Writes the digits' network with the mean of the batch's logits taken off.

    The batch is the last axis while the mean is taken, so that only running it shows what it does.
    """
    loaded = load_onnx(digits.model)
    model = loaded.proto
    last = next(node for node in model.graph.node if "logits" in node.output)
    last.output[0] = "scores"
    model.graph.node.extend(
        [
            helper.make_node("Transpose", ["scores"], ["columns"], perm=[1, 0]),
            helper.make_node("ReduceMean", ["columns"], ["means"], axes=[1]),
            helper.make_node("Sub", ["columns", "means"], ["centred"]),
            helper.make_node("Transpose", ["centred"], ["logits"], perm=[1, 0]),
        ]
    )
    save_model(path, model, loaded.artifact)
    return path


@pytest.fixture(scope="module")
def swapped(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test images with the labels 3 and 5 exchanged, as by two class folders."""
    images, labels = arrays(digits.test)
    other = labels.copy()
    other[labels == 3], other[labels == 5] = 5, 3
    return save_arrays(tmp_path_factory.mktemp("swapped") / "swapped.npz", images, other)


QUICK_ALL = "--iterations 2 --warmup 0 --no-energy"
"""Every image, and no clock."""

ENDS = [("Softmax",), ("Softmax", "Log"), ("Softmax", "Identity", "Flatten")]


@pytest.mark.parametrize("operators", [*ENDS, ("Identity",)], ids="+".join)
def test_swapped_classes_are_named_whatever_a_network_ends_in(
    operators: tuple[str, ...], digits: Digits, swapped: Path, tmp_path: Path
) -> None:
    """As they are with logits: with the classes, and exit code 6."""
    model = with_end(digits, tmp_path / "m.onnx", *operators)
    result, verdict = bench(fp32_engine(model), model, swapped, brief=QUICK_ALL)
    assert result.exit_code == 6
    assert "3 is 5, 5 is 3" in "".join(reasons(verdict, "likely_mistakes"))
    assert (f"ends in {'LogSoftmax' if 'Log' in operators else operators[0]}" in result.stderr) is (
        operators != ("Identity",)
    )


@pytest.mark.parametrize("end", ["Softmax", "Sigmoid", "LogSoftmax"])
def test_a_healthy_network_raises_no_alarm(end: str, digits: Digits, tmp_path: Path) -> None:
    """Its confidence is that of its logits, within rounding, or the class's own for Sigmoid."""
    model = with_end(digits, tmp_path / "m.onnx", end)
    result, verdict = bench(fp32_engine(model), model, digits.test, "--diagnose", brief=QUICK_ALL)
    assert (result.exit_code, alarms(verdict)) == (0, [])
    copied = Path(shutil.copy(digits.model, tmp_path / "plain.onnx"))
    _, plain = bench(
        fp32_engine(copied),
        copied,
        digits.test,
        "--diagnose",
        brief=QUICK_ALL,
    )
    expected = plain["diagnosis"]["confidence"]
    if end != "Sigmoid":
        assert verdict["diagnosis"]["confidence"] == pytest.approx(expected, rel=1e-5)
    assert verdict["accuracy"]["reference"] == plain["accuracy"]["reference"]


def test_the_swap_would_pass_if_probabilities_were_taken_for_logits(
    digits: Digits, swapped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard's fault, seeded."""
    monkeypatch.setattr(Reference, "gives_probabilities", False)
    model = with_end(digits, tmp_path / "m.onnx", "Softmax")
    result, verdict = bench(fp32_engine(model), model, swapped, brief=QUICK_ALL)
    assert (result.exit_code, verdict["diagnosis"]) == (0, None)


def test_calibration_warns_of_probabilities(digits: Digits, tmp_path: Path) -> None:
    """In one line."""
    model = with_end(digits, tmp_path / "m.onnx", "Softmax")
    words = ("--data", digits.train, "--samples", 32, "-o", tmp_path / "t.json")
    result = run("calibrate", model, *words)
    assert result.exit_code == 0
    assert f"{model} ends in Softmax" in result.stderr.replace("\n", "")


def test_a_batch_that_mixes_is_refused_before_any_figure(digits: Digits, tmp_path: Path) -> None:
    """By calibrate and by bench, which an engine of it that exists does not change."""
    model = with_mixed_batch(digits, tmp_path / "m.onnx")
    engine = fp32_engine(model)
    sentence = "gives an image other logits in a batch than alone"
    output = tmp_path / "t.json"
    assert sentence in refusal("calibrate", model, "--data", digits.train, "-o", output)
    words = ("--reference", model, "--data", digits.test, *QUICK.split())
    assert sentence in refusal("bench", engine, *words)


@pytest.fixture
def lost_manifest(digits: Digits, tmp_path: Path) -> Path:
    """A copy of the INT8 engine without its manifest."""
    return Path(shutil.copy(digits.engine, tmp_path / "model.onnx"))


def quantized_elsewhere(digits: Digits, path: Path) -> Path:
    """Writes the digits' network with the weights of its classifier in FP16."""
    model = onnx.load(digits.model)
    weight = next(t for t in model.graph.initializer if t.dims == [10, 64])
    half = numpy_helper.to_array(weight).astype(np.float16)
    model.graph.initializer.append(numpy_helper.from_array(half, "half"))
    cast = helper.make_node("Cast", ["half"], [weight.name], to=onnx.TensorProto.FLOAT)
    model.graph.initializer.remove(weight)
    model.graph.node.insert(0, cast)
    onnx.save(model, path)
    return path


def test_a_quantized_reference_is_refused(digits: Digits, lost_manifest: Path) -> None:
    """With its operators, and the option that takes it."""
    words = ("--reference", lost_manifest, "--data", digits.test, *QUICK.split())
    message = refusal("bench", digits.engine, *words)
    assert "is no FP32 model: it has" in message
    assert "19 INT8 weights" in message
    assert "--quantized-reference" in message


@pytest.mark.parametrize("kind", ["engine", "FP16"])
def test_a_quantized_reference_is_taken_where_it_is_wanted(
    kind: str, digits: Digits, lost_manifest: Path, tmp_path: Path
) -> None:
    """The verdict then has the warning that another model is compared."""
    reference = lost_manifest
    if kind == "FP16":
        reference = quantized_elsewhere(digits, tmp_path / "half.onnx")
    result, verdict = bench(digits.engine, reference, digits.test, "--quantized-reference")
    assert result.exit_code == 0
    assert "is the baseline with" in result.stderr
    assert any("built from another model" in warning for warning in verdict["warnings"])
    if kind == "engine":
        assert verdict["accuracy"]["reference"] == verdict["accuracy"]["engine"]


def test_a_request_that_contradicts_itself_is_refused(digits: Digits) -> None:
    """An FP32 reference is not quantized, and a simulation needs one."""
    words = ("--reference", digits.model, "--data", digits.test, "--quantized-reference")
    assert "is in FP32. Leave it out" in refusal("bench", digits.engine, *words, code=2)
    assert "--simulate lowers" in refusal("bench", digits.table, *words, "--simulate", code=2)

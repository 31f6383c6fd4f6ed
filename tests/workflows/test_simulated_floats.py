"""What a plan runs in FP16 is simulated in FP16: the same labels, or a refusal before any image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import passed, refusal
from digits import Digits
from onnx.numpy_helper import from_array, to_array

from edgeres.core.artifacts import load_engine
from edgeres.core.bench_requests import BenchInputs
from edgeres.core.precision import Precision
from edgeres.errors import ConfigError

SIMULATE = "bench {t} --simulate --reference {m} --data {test} --json --samples 300"


def scaled_model(source: Path, output: Path, factor: float) -> Path:
    """Writes a model of the same function whose activations are `factor` times as large."""
    model = onnx.load(source)
    factors: dict[str, float] = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            if node.input[0] == model.graph.input[0].name:
                factors[node.input[1]] = factor
            factors |= dict.fromkeys(node.input[2:], factor)
        elif node.op_type == "Gemm":
            factors[node.input[1]] = 1 / factor
    return _multiplied(model, factors, output)


def loud_model(source: Path, output: Path, factor: float) -> Path:
    """Writes a model of the same labels whose logits are `factor` times as large."""
    model = onnx.load(source)
    (classifier,) = (node for node in model.graph.node if node.op_type == "Gemm")
    return _multiplied(model, dict.fromkeys(classifier.input[1:], factor), output)


def _multiplied(model: onnx.ModelProto, factors: dict[str, float], output: Path) -> Path:
    for tensor in model.graph.initializer:
        if tensor.name in factors:
            value = to_array(tensor) * np.float32(factors[tensor.name])
            tensor.CopyFrom(from_array(value, tensor.name))
    onnx.save(model, output)
    return output


def calibrated(digits: Digits, model: Path) -> Path:
    """Writes the table of a model of the digits."""
    table = model.with_suffix(".table.json")
    passed("calibrate", model, "--data", digits.train, "--samples", 64, "-o", table)
    return table


@pytest.mark.parametrize("factor", [1e-6, 3e5])
def test_labels_do_not_depend_on_the_activations_unit(
    factor: float, digits: Digits, tmp_path: Path
) -> None:
    """With FP16 floats a network whose activations are 1e-6 of another's is as often correct."""
    model = scaled_model(digits.model, tmp_path / "scaled.onnx", factor)
    table = calibrated(digits, model)
    verdict = json.loads(passed(*digits.words(SIMULATE, m=model, t=table)))
    accuracy = verdict["accuracy"]
    assert "fp16 floats" in verdict["environment"]["engine"]
    assert accuracy["engine"]["correct"] >= accuracy["reference"]["correct"] - 2


def test_logits_beyond_fp16_are_refused_or_kept_in_fp32(digits: Digits, tmp_path: Path) -> None:
    """Infinite logits are no verdict; the refusal names them and the option that keeps them."""
    model = loud_model(digits.model, tmp_path / "loud.onnx", 5e4)
    table = calibrated(digits, model)
    said = refusal(*digits.words(SIMULATE, m=model, t=table))
    assert "activation 'logits' reaches" in said
    assert said.endswith("Build with --float-layers fp32.")
    words = digits.words(SIMULATE + " --float-layers fp32", m=model, t=table)
    verdict = json.loads(passed(*words))
    assert "fp32 floats" in verdict["environment"]["engine"]
    assert verdict["accuracy"]["engine"]["correct"] > 250


def test_an_engine_has_its_own_types(digits: Digits) -> None:
    """The option is for a simulation alone, in Python and on the command line."""
    words = digits.words("bench {engine} --reference {model} --data {test} --float-layers fp16")
    assert refusal(*words, code=2).startswith("--float-layers fp16 is for --simulate")
    with pytest.raises(ConfigError, match="is for --simulate"):
        BenchInputs(
            engine=digits.engine,
            reference=digits.model,
            data=digits.test,
            float_layers=Precision.FP32,
        )


@pytest.mark.rtx
@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_plans_manifest_counts_what_fp16_changes(
    precision: str, digits: Digits, tmp_path: Path
) -> None:
    """By layer: moved exponents and levels; a network that FP16 holds has none."""
    line = (
        "build-engine {m} --calibration {t} --precision {precision} --target tensorrt-rtx "
        "--compute-capability 8.6 -o {plan}"
    )
    model = scaled_model(digits.model, tmp_path / "scaled.onnx", 1e-6)
    cases = ((digits.model, digits.table), (model, calibrated(digits, model)))
    found = []
    for m, table in cases:
        plan = tmp_path / "a.plan"
        passed(*digits.words(line, m=m, t=table, precision=precision, plan=plan))
        found.append(load_engine(plan).manifest.fp16)
    plain, scaled = found
    assert plain == ()
    assert {layer.levels for layer in scaled} == {127}
    assert all(layer.exponent > 0 for layer in scaled)

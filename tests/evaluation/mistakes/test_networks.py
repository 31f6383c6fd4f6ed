"""Weights that were exported as another architecture are named; the right ones are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import passed, run
from digits import Digits


@pytest.mark.parametrize("architecture", ["plain20", "resnet20"])
def test_weights_of_another_architecture_are_named(
    architecture: str, digits: Digits, tmp_path: Path
) -> None:
    """The digits' weights are those of resnet20; a plain net takes them without a word."""
    model, table = digits.model, digits.table
    if architecture == "plain20":
        model, table = tmp_path / "m.onnx", tmp_path / "t.json"
        words = ["--weights", digits.weights, "--preset", "digits", "-o", model]
        passed("export", architecture, *words)
        passed("calibrate", model, "--data", digits.train, "--samples", 64, "-o", table)
    line = f"bench {table} --simulate --reference {model} --data {digits.test} --samples 100"
    result = run(*line.split(), "--diagnose", "--json")
    diagnosis = json.loads(result.stdout)["diagnosis"]
    assert result.exit_code == (0 if architecture == "resnet20" else 6)
    if architecture == "resnet20":
        assert diagnosis["named"] is None
        return
    sentence = diagnosis["sentence"]
    assert "Likely mistake: the network was trained with shortcuts of option A" in sentence
    assert sentence.endswith("Export the checkpoint as resnet20, then calibrate and build again.")

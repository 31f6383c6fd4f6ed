"""`--scale`: a fraction or a number, and only what can scale."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import passed, refusal, run
from digits import Digits

from edgeres.onnx_file import load_onnx


@pytest.mark.parametrize(("text", "value"), [("1/255", 1 / 255), ("1", 1.0), ("0.5", 0.5)])
def test_the_scale_stands_in_the_contract(
    digits: Digits, tmp_path: Path, text: str, value: float
) -> None:
    """In place of the preset's, which has the rest."""
    model = tmp_path / "model.onnx"
    words = ("export", "resnet20", "--weights", digits.weights, "--preset", "digits")
    passed(*words, "--scale", text, "-o", model)
    contract = load_onnx(model).artifact.contract
    assert contract is not None
    assert (contract.scale, contract.mean) == (value, (0.5, 0.5, 0.5))


@pytest.mark.parametrize("text", ["half", "1/0", "nan", "1/255/2"])
def test_what_is_no_number_is_refused(text: str) -> None:
    """By the option's name, before anything is read."""
    told = run("export", "resnet20", "--weights", "w.pth", "--scale", text, "-o", "m.onnx")
    assert told.exit_code == 2
    assert f"'--scale': '{text}' is no number such as 1/255" in told.stderr


def test_a_scale_that_scales_to_nothing_is_refused(digits: Digits, tmp_path: Path) -> None:
    """Zero makes every image the same."""
    words = ("export", "resnet20", "--weights", digits.weights, "--preset", "digits")
    said = refusal(*words, "--scale", "0", "-o", tmp_path / "m.onnx", code=2)
    assert said.endswith("and scale 0.0 must be positive.")

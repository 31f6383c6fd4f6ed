"""`export --weights-key`, and the lines that export shows on weights that it chose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from commands import refusal, run
from digits import Digits
from onnx import numpy_helper


def constants(model: Path) -> list[np.ndarray]:
    """Returns the weights in an ONNX file."""
    return [numpy_helper.to_array(tensor) for tensor in onnx.load(model).graph.initializer]


def same_weights(one: Path, other: Path) -> bool:
    """Whether two ONNX files have the same weights."""
    pairs = zip(constants(one), constants(other), strict=True)
    return all(np.array_equal(left, right) for left, right in pairs)


@pytest.fixture
def two_sets(digits: Digits, tmp_path: Path) -> Path:
    """A file with the trained digits network as the averaged set, and noise as the other."""
    averaged = safetensors.torch.load_file(digits.weights)
    raw = {k: v + 0.1 if k.endswith("conv1.weight") else v for k, v in averaged.items()}
    path = tmp_path / "two.pth.tar"
    torch.save({"state_dict": raw, "state_dict_ema": averaged}, path)
    return path


def words(weights: Path, output: Path) -> tuple[object, ...]:
    """Returns the command line of an export."""
    return ("export", "resnet20", "--weights", weights, "--preset", "digits", "-o", output)


def test_the_averaged_set_is_exported_and_shown(
    digits: Digits, two_sets: Path, tmp_path: Path
) -> None:
    """The line stands on stderr without -v; the file is that of the averaged weights alone."""
    result = run(*words(two_sets, tmp_path / "m.onnx"))
    assert result.exit_code == 0
    assert "holds 2 sets of weights (state_dict_ema, state_dict)" in result.stderr
    assert "--weights-key NAME takes another." in result.stderr
    assert same_weights(tmp_path / "m.onnx", digits.model)


def test_the_option_takes_the_other_set(digits: Digits, two_sets: Path, tmp_path: Path) -> None:
    """Without a warning: it was requested."""
    result = run(*words(two_sets, tmp_path / "m.onnx"), "--weights-key", "state_dict")
    assert result.exit_code == 0
    assert "WARNING" not in result.stderr
    assert not same_weights(tmp_path / "m.onnx", digits.model)


def test_an_unknown_set_is_a_mistake_in_the_command(two_sets: Path, tmp_path: Path) -> None:
    """Exit code 2, with the nearest name."""
    output = tmp_path / "m.onnx"
    message = refusal(*words(two_sets, output), "--weights-key", "state_dict_emma", code=2)
    assert "Did you mean 'state_dict_ema'? Available: state_dict, state_dict_ema." in message
    assert not output.exists()


def test_architectures_of_equal_shapes_are_named(digits: Digits, tmp_path: Path) -> None:
    """Beside the result, not as a warning."""
    result = run(*words(digits.weights, tmp_path / "m.onnx"))
    assert "also of these shapes: plain20." in result.stderr
    assert "WARNING" not in result.stderr

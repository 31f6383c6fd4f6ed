"""Images prepared wrongly, labels off by one: bench names the mistake and ends with 6."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import refusal
from digits import Digits
from PIL import Image
from seeds import (
    alarms,
    arrays,
    bench,
    fp32_engine,
    reasons,
    red_digits,
    save_arrays,
    with_contract,
)

from edgeres.core.contract import Color
from edgeres.core.contract_options import ContractOptions
from edgeres.workflows import export_stage

MISMATCH = 6
PER_CHANNEL = (127.5, 127.5, 127.5)
ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def some(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 200 test images."""
    images, labels = arrays(digits.test)
    path = tmp_path_factory.mktemp("some") / "some.npz"
    return save_arrays(path, images[:200], labels[:200])


def diagnosed(model: Path, data: Path, *options: object) -> tuple[int, str]:
    """Returns bench's exit code and the mistake that the verdict fails for, if any."""
    result, verdict = bench(fp32_engine(model), model, data, *options)
    reasons_named = reasons(verdict, "likely_mistakes")
    assert verdict["passed"] is not bool(reasons_named)
    return result.exit_code, "".join(reasons_named)


def test_right_images_raise_no_alarm(digits: Digits, some: Path) -> None:
    """Asked to look for mistakes, bench finds none and passes."""
    result, verdict = bench(digits.engine, digits.model, some, "--diagnose")
    assert (result.exit_code, alarms(verdict)) == (0, [])
    assert verdict["diagnosis"]["named"] is None
    assert verdict["diagnosis"]["inferences"] < 8000


def test_nothing_is_tried_where_the_reference_is_right(digits: Digits, some: Path) -> None:
    """Unless it is asked for."""
    _, verdict = bench(digits.engine, digits.model, some)
    assert verdict["diagnosis"] is None


def test_red_and_blue_swapped(digits: Digits, some: Path, tmp_path: Path) -> None:
    """On images whose blue shows another digit than their red."""
    model, data = red_digits(digits, some, tmp_path)
    assert diagnosed(model, data, "--diagnose") == (0, "")
    wrong = with_contract(model, tmp_path / "bgr.onnx", color=Color.BGR)
    code, message = diagnosed(wrong, data)
    assert code == MISMATCH
    assert message.startswith(
        "Likely mistake: red and blue are swapped, the network takes RGB. With that corrected 1"
    )
    assert "Export the model again with --color rgb, then calibrate and build again" in message


def test_mean_and_std_missing(digits: Digits, some: Path, tmp_path: Path) -> None:
    """A contract that only scales to [0, 1]."""
    wrong = with_contract(digits.model, tmp_path / "bare.onnx", mean=ZERO, std=ONE)
    code, message = diagnosed(wrong, some)
    assert code == MISMATCH
    assert (
        "Likely mistake: mean and std are missing, the network takes values in [-1, 1]" in message
    )
    assert "Export the model again with --preset digits" in message


def test_scaling_twice(digits: Digits, some: Path, tmp_path: Path) -> None:
    """Once by the scale, once more by a mean and std of raw values."""
    wrong = with_contract(digits.model, tmp_path / "twice.onnx", mean=PER_CHANNEL, std=PER_CHANNEL)
    code, message = diagnosed(wrong, some)
    assert code == MISMATCH
    assert "Likely mistake: the values are scaled twice: by the scale, and by a mean" in message
    assert "Export the model again with --scale 1," in message


@pytest.mark.parametrize(("by", "word"), [(1, "high"), (-1, "low")])
def test_labels_off_by_one(digits: Digits, some: Path, tmp_path: Path, by: int, word: str) -> None:
    """Counted from 1, or with a class in front that the data does not have."""
    images, labels = arrays(some)
    keep = (labels + by >= 0) & (labels + by < 10)
    wrong = save_arrays(tmp_path / "labels.npz", images[keep], labels[keep] + by)
    code, message = diagnosed(digits.model, wrong)
    assert code == MISMATCH
    assert f"Likely mistake: the labels are one too {word}" in message
    assert f"with every class index {-by:+d}" in message


def test_labels_counted_from_one_to_the_last_class(
    digits: Digits, some: Path, tmp_path: Path
) -> None:
    """No network is needed to see it."""
    images, labels = arrays(some)
    wrong = save_arrays(tmp_path / "labels.npz", images, labels + 1)
    message = refusal("bench", digits.engine, "--reference", digits.model, "--data", wrong)
    assert message.endswith(
        "expected 0 to 9. They run from 1 to 10, as if counted from 1: take 1 off each."
    )


def test_class_folders_sorted_as_text(digits: Digits, some: Path, tmp_path: Path) -> None:
    """Folders 1 to 10 stand as 1, 10, 2, and the network counts."""
    for place, (pixels, label) in enumerate(zip(*arrays(some), strict=True)):
        folder = tmp_path / "folders" / str(label + 1)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{place}.png")
    code, message = diagnosed(digits.model, tmp_path / "folders")
    assert code == MISMATCH
    assert "Likely mistake: the class folders are sorted as text (1, 10, 2)" in message
    assert "Name the folders with leading zeros (01, 02, 10)" in message


def test_labels_that_prove_nothing_are_warned_of(
    digits: Digits, some: Path, tmp_path: Path
) -> None:
    """Labels at random are no usual mistake, but the verdict says that it says little."""
    images, labels = arrays(some)
    shuffled = np.random.default_rng(0).permutation(labels)
    wrong = save_arrays(tmp_path / "random.npz", images, shuffled)
    result, verdict = bench(digits.engine, digits.model, wrong)
    assert result.exit_code == 0
    assert verdict["diagnosis"]["named"] is None
    (warning,) = verdict["warnings"]
    assert warning.startswith("The reference itself is correct on only ")


def test_the_search_can_be_left_out(digits: Digits, some: Path, tmp_path: Path) -> None:
    """Then the warning alone remains."""
    wrong = with_contract(digits.model, tmp_path / "bare.onnx", mean=ZERO, std=ONE)
    result, verdict = bench(fp32_engine(wrong), wrong, some, "--no-diagnose")
    assert (result.exit_code, verdict["diagnosis"]) == (0, None)
    assert verdict["warnings"][0].startswith("The reference itself is correct on only ")


CIFAR = {
    "healthy": (ContractOptions(), "", 0),
    "swapped": (ContractOptions(color=Color.BGR), "red and blue are swapped", 6),
    "bare": (ContractOptions(mean=ZERO, std=ONE), "mean and std are missing", 6),
    "twice": (
        ContractOptions(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
        "the values are scaled twice",
        6,
    ),
}
"""What is said of a trained ResNet-20's preprocessing beside its preset."""


@pytest.mark.shared
@pytest.mark.parametrize("fault", CIFAR)
def test_a_trained_network_on_photographs(fault: str, shared: Path, tmp_path: Path) -> None:
    """CIFAR-10, where a swap of colours costs 13 points, not all of them."""
    message, expected, code = CIFAR[fault]
    stage = export_stage()
    request = stage.ExportRequest(
        architecture="resnet20",
        weights=shared / "data/cifar10-resnets/resnet20-12fca82f.th",
        contract=replace(message, preset="cifar-imagenet-norm"),
    )
    model = tmp_path / "resnet20.onnx"
    stage.export_model(request, output=model)
    outcome = diagnosed(model, shared / "data/cifar10/test.npz", "--samples", 640, "--diagnose")
    assert outcome[0] == code
    assert expected in outcome[1]

"""The preprocessing contract: its JSON of both versions, and what options make of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from networks import network

from edgeres.core.contract import PRESETS, Color, Contract, Crop, preset, with_resize
from edgeres.core.contract_options import ContractOptions
from edgeres.core.resize import (
    NO_RESIZE,
    Interpolation,
    ResizeLibrary,
    ResizeMode,
    letterbox,
    shortest,
    squash,
)
from edgeres.errors import ArtifactError, ConfigError
from edgeres.onnx_file import load_onnx
from edgeres.serialization import to_json

VERSION_1 = {
    "size": 224,
    "resize": 256,
    "interpolation": "bicubic",
    "color": "bgr",
    "scale": 1.0,
    "mean": [103.939, 116.779, 123.68],
    "std": [1.0, 1.0, 1.0],
}
"""As edgeres wrote it before there was a version in it."""


def test_the_json_has_the_keys_of_version_2() -> None:
    """In their order, with null for the lengths that a mode does not take."""
    assert to_json(preset("imagenet")) == {
        "version": 2,
        "height": 224,
        "width": 224,
        "channels": 3,
        "color": "rgb",
        "resize": {
            "mode": "shortest", "short": 256, "height": None, "width": None,
            "interpolation": "bilinear", "library": "pillow", "pad": 0,
        },
        "crop": "center",
        "scale": 1 / 255,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "input": "float32",
        "output": "logits",
    }  # fmt: skip


def with_metadata(contract: Any, path: Path) -> Path:
    """Writes a model that carries this JSON for its contract."""
    model = network("identity")
    onnx.helper.set_model_props(model, {"edgeres.contract": json.dumps(contract)})
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    "contract",
    [
        preset("imagenet-caffe"),
        replace(
            with_resize(replace(preset("cifar"), height=64, width=96), squash(64, 96)),
            channels=1,
            color=Color.GRAY,
            mean=(0.5,),
            std=(0.25,),
        ),
        with_resize(preset("imagenet"), letterbox(224, 224, pad=114, library=ResizeLibrary.OPENCV)),
    ],
    ids=str,
)
def test_a_contract_comes_back_from_a_file(contract: Contract, tmp_path: Path) -> None:
    """Of every mode, with one channel and with three."""
    path = with_metadata(to_json(contract), tmp_path / "a.onnx")
    assert load_onnx(path).artifact.contract == contract


@pytest.mark.parametrize("resize", [256, None])
def test_version_1_is_read(resize: int | None, tmp_path: Path) -> None:
    """A file that an earlier edgeres wrote means what it meant."""
    path = with_metadata({**VERSION_1, "resize": resize}, tmp_path / "a.onnx")
    found = load_onnx(path).artifact.contract
    assert found is not None
    assert (found.height, found.width, found.channels, found.color) == (224, 224, 3, "bgr")
    assert found.resize == (
        shortest(256, interpolation=Interpolation.BICUBIC) if resize else NO_RESIZE
    )
    assert (found.scale, found.mean) == (1.0, (103.939, 116.779, 123.68))
    assert (found.crop, found.input, found.output) == ("center", "float32", "logits")


@pytest.mark.parametrize("version", [0, 3, "2", None])
def test_another_version_is_refused_by_its_number(version: object, tmp_path: Path) -> None:
    """What a later edgeres means by it is not guessed."""
    contract = {**to_json(preset("cifar")), "version": version}
    path = with_metadata(contract, tmp_path / "a.onnx")
    with pytest.raises(ArtifactError) as refused:
        load_onnx(path)
    assert str(refused.value) == (
        f"{path} has a contract of version {version!r}, and this edgeres reads 1 and 2. Use the "
        "edgeres that wrote it. Otherwise: export the model again."
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": "224"}, r"has a damaged contract \(size: Expected int, got str\)"),
        ({"shape": 1}, r"has a damaged contract \(shape: unknown, or of a later edgeres\)"),
        ({"resize": 100}, "--resize 100 is smaller than the 224-pixel crop"),
    ],
)
def test_a_damaged_contract_of_version_1_is_named(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """As strictly as one of version 2."""
    path = with_metadata({**VERSION_1, **change}, tmp_path / "a.onnx")
    with pytest.raises(ArtifactError, match=said):
        load_onnx(path)


IMAGENET = preset("imagenet")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"input_size": 64}, replace(IMAGENET, height=64, width=64, resize=shortest(73))),
        ({"resize": (224, 224)}, with_resize(IMAGENET, squash(224, 224))),
        ({"resize_mode": ResizeMode.SQUASH}, with_resize(IMAGENET, squash(224, 224))),
        ({"resize_mode": ResizeMode.SQUASH, "resize": 256}, with_resize(IMAGENET, squash(256, 256))),
        (
            {"resize_mode": ResizeMode.LETTERBOX, "input_size": (64, 96), "pad_value": 114},
            with_resize(replace(IMAGENET, height=64, width=96, resize=NO_RESIZE), letterbox(64, 96, pad=114)),
        ),
        ({"resize": "none"}, with_resize(IMAGENET, NO_RESIZE)),
        ({"resize": 232, "resize_library": ResizeLibrary.OPENCV},
         with_resize(IMAGENET, shortest(232, library=ResizeLibrary.OPENCV))),
        ({"channels": 1, "mean": (0.5,), "std": (0.2,)},
         replace(IMAGENET, channels=1, color=Color.GRAY, mean=(0.5,), std=(0.2,))),
        ({"color": Color.GRAY, "channels": 3}, replace(IMAGENET, color=Color.GRAY)),
    ],
    ids=str,
)  # fmt: skip
def test_options_stand_in_the_place_of_the_presets(
    options: dict[str, Any], expected: Contract
) -> None:
    """What is not said stays, in proportion where the size of the input changes."""
    assert ContractOptions(preset="imagenet", **options).resolve() == expected


def test_a_preset_of_equal_channels_serves_gray() -> None:
    """Another one's three values are not averaged: which of them a network had is not known."""
    assert ContractOptions(preset="digits", channels=1).resolve().mean == (0.5,)
    with pytest.raises(
        ConfigError, match=r"--mean 0\.485,0\.456,0\.406 for 3 channels, and there is 1"
    ):
        ContractOptions(preset="imagenet", channels=1).resolve()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"resize": 256, "resize_mode": ResizeMode.NONE}, "256 contradicts --resize-mode none"),
        (
            {"resize": "none", "resize_mode": ResizeMode.SQUASH},
            "none contradicts --resize-mode squash",
        ),
        ({"resize": (64, 96), "resize_mode": ResizeMode.SHORTEST}, "the short side alone"),
        ({"pad_value": 0}, "--pad-value has no effect on --resize-mode shortest"),
        ({"pad_value": 300, "resize_mode": ResizeMode.LETTERBOX}, "--pad-value 300 .*0 to 255"),
        ({"interpolation": Interpolation.AREA}, "--interpolation area is OpenCV's"),
        ({"channels": 2}, "--channels 2: a network takes 1"),
        ({"channels": 1, "color": Color.BGR}, "--channels 1 --color bgr: a network"),
        ({"mean": (0.5,)}, "need three values"),
        ({"resize": (100, 300)}, "--resize 100x300 is smaller than the 224-pixel input"),
    ],
    ids=str,
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], said: str) -> None:
    """None of them is dropped, and none is put in the place of another."""
    with pytest.raises(ConfigError, match=said):
        ContractOptions(preset="imagenet", **options).resolve()


def test_without_a_preset_all_that_differs_between_networks_is_needed() -> None:
    """Mean, std, size and resize; what is missing is listed."""
    some = ContractOptions(mean=(0.5,) * 3, input_size=(64, 96))
    assert some.missing == ("--std", "--resize")
    with pytest.raises(ConfigError, match="--std, --resize must be given too"):
        some.resolve()
    whole = replace(some, std=(0.25,) * 3, resize=(64, 96)).resolve()
    assert whole == Contract(
        height=64, width=96, resize=squash(64, 96), crop=Crop.NONE, mean=(0.5,) * 3, std=(0.25,) * 3
    )
    assert all(not ContractOptions(preset=name).missing for name in PRESETS)


@pytest.mark.parametrize(
    ("contract", "text"),
    [
        (
            with_resize(replace(IMAGENET, height=64, width=96, resize=NO_RESIZE), squash(64, 96)),
            "squash to 64x96 bilinear, rgb, ",
        ),
        (
            with_resize(IMAGENET, letterbox(224, 224, pad=9, library=ResizeLibrary.OPENCV)),
            "letterbox to 224x224 bilinear of OpenCV on 9, rgb, ",
        ),
        (
            replace(IMAGENET, color=Color.GRAY),
            "resize 256 bilinear, crop 224, gray in 3 channels, ",
        ),
    ],
    ids=["squash", "letterbox", "gray"],
)
def test_a_contract_is_one_line_in_the_order_of_the_steps(contract: Contract, text: str) -> None:
    """What is said of it wherever it is shown."""
    assert str(contract).startswith(text)

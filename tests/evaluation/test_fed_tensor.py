"""What another program fed to its engine: each usual mistake is named from the tensor alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import passed, refusal
from digits import QUICK, Digits
from numpy.typing import NDArray
from PIL import Image

from edgeres.core.contract import PRESETS, Color, Contract
from edgeres.core.resize import NO_RESIZE, Interpolation, shortest
from edgeres.errors import DataError
from edgeres.evaluation.fed_tensor import compare_fed_tensor
from edgeres.images import load_tensor, normalise, prepare

CONTRACT = replace(PRESETS["imagenet"], height=32, width=32, resize=shortest(36))


def picture() -> NDArray[np.uint8]:
    """A picture with gradients, edges and other values in each channel."""
    y, x = np.mgrid[0:1:60j, 0:1:48j]
    edges = ((x * 7).astype(int) + (y * 5).astype(int)) % 2
    planes = [255 * x, 255 * (1 - y) * edges, 120 * edges + 60 * y]
    return np.stack(planes, axis=-1).astype(np.uint8)


def fed(contract: Contract) -> NDArray[np.float32]:
    """Returns what a program feeds that follows a contract."""
    return normalise(prepare(picture(), contract)[None], contract)


def said(tensor: NDArray[np.generic]) -> str:
    """Returns the sentence on a tensor."""
    return compare_fed_tensor(tensor, picture(), CONTRACT, name="TENSOR.npy")


def test_the_contract_s_own_tensor_is_accepted() -> None:
    """With a batch or without, in other floats, and with a level of a decoder's noise."""
    own = fed(CONTRACT)
    noise = np.random.default_rng(0).integers(-1, 2, own.shape) / 255
    for tensor in (own, own[0], own.astype(np.float16), own + noise):
        assert said(tensor).startswith("TENSOR.npy is what the engine's contract makes of")


@pytest.mark.parametrize(
    ("changed", "option"),
    [
        (replace(CONTRACT, color=Color.BGR), "--color bgr"),
        (replace(CONTRACT, scale=1.0), "--scale 1"),
        (replace(CONTRACT, mean=(0.0,) * 3, std=(1.0,) * 3), "--mean 0,0,0; --std 1,1,1"),
        (replace(CONTRACT, mean=(0.5,) * 3, std=(0.5,) * 3), "--mean 0.5,0.5,0.5"),
        (replace(CONTRACT, resize=shortest(32)), "--resize 32"),
        (replace(CONTRACT, resize=NO_RESIZE), "--resize none"),
        (
            replace(CONTRACT, resize=shortest(36, interpolation=Interpolation.NEAREST)),
            "--interpolation nearest",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_is_named_by_its_option(changed: Contract, option: str) -> None:
    """Colours, scale, mean and deviation, crop and filter."""
    sentence = said(fed(changed))
    assert sentence.startswith("TENSOR.npy is prepared otherwise than the engine's contract")
    assert option in sentence


def test_a_layout_is_named() -> None:
    """By itself, and together with colours."""
    own = fed(CONTRACT)
    assert "the channels come last (HWC)." in said(own.transpose(0, 2, 3, 1))
    assert "height and width are exchanged." in said(own.transpose(0, 1, 3, 2))
    both = said(fed(replace(CONTRACT, color=Color.BGR)).transpose(0, 2, 3, 1))
    assert "the channels come last (HWC); --color bgr" in both


def test_what_no_mistake_explains_is_not_guessed() -> None:
    """Another image, or noise."""
    sentence = said(np.random.default_rng(0).standard_normal((1, 3, 32, 32)))
    assert "no usual mistake explains it" in sentence


def test_another_shape_is_refused() -> None:
    """With the one that the network takes."""
    with pytest.raises(DataError, match=r"shape \(1, 3, 40, 40\); the network takes \(3, 32, 32\)"):
        said(np.zeros((1, 3, 40, 40)))


def test_bench_names_the_difference(digits: Digits, tmp_path: Path) -> None:
    """Beside the verdict; a tensor without its image is refused."""
    image, tensor = tmp_path / "a.png", tmp_path / "a.npy"
    Image.fromarray(picture()).save(image)
    contract = replace(PRESETS["digits"], color=Color.BGR)
    np.save(tensor, normalise(prepare(picture(), contract)[None], contract))
    line = digits.words(f"bench {{engine}} --reference {{model}} --data {{test}} {QUICK}")
    raw = json.loads(passed(*line, "--dump", tensor, "--image", image, "--json"))
    (warning,) = [each for each in raw["warnings"] if str(tensor) in each]
    assert "--color bgr" in warning
    assert "Pass both or neither" in refusal(*line, "--dump", tensor, code=2)


@pytest.mark.parametrize("damage", ["text", "cut", "objects"])
def test_a_file_that_is_no_tensor_is_refused(damage: str, tmp_path: Path) -> None:
    """Before memory is taken for what its header claims."""
    path = tmp_path / "a.npy"
    if damage == "objects":
        np.save(path, np.array([{}, []], object), allow_pickle=True)
    else:
        np.save(path, np.zeros((3, 9, 9)))
    if damage == "text":
        path.write_text("no array")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"Write it with numpy\.save"):
        load_tensor(path)

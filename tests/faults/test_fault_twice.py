"""Mistakes that another test seeds on one network, on a second one: named, and silent where sound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from commands import passed
from digits import QUICK, Digits
from numpy.typing import NDArray
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

from edgeres.core.contract import Color, Contract, with_resize
from edgeres.core.resize import Resize, ResizeLibrary, shortest, squash
from edgeres.images import embedded_digits
from edgeres.networks.specification import ModelSpec, Shortcut
from edgeres.onnx_file import load_onnx

pytest.importorskip("torch", reason="torch, which trains and exports, is not installed")

from trained_kinds import thin_bottlenecks, thin_spec, trained_weights

Images = NDArray[np.uint8]

IMAGES = 200
"""Enough to choose by and to test on."""

SIDE = 16
SMALL = with_resize(
    Contract(height=SIDE, width=SIDE, mean=(0.5,) * 3, std=(0.25,) * 3), shortest(SIDE)
)
OPTIONS = f"--mean 0.5,0.5,0.5 --std 0.25,0.25,0.25 --input-size {SIDE} --resize {SIDE}"


def stretched(images: Images) -> Images:
    """Returns digits twice as wide as they are high."""
    return images.repeat(4, axis=1).repeat(8, axis=2)


def flanked(images: Images) -> Images:
    """Returns digits as high as the image, between halves of other digits."""
    square = images.repeat(4, axis=1).repeat(4, axis=2)
    left, right = np.roll(square, 1, axis=0)[:, :, 16:], np.roll(square, 2, axis=0)[:, :, :16]
    return np.concatenate([left, square, right], axis=2)


def sampled(images: Images) -> Images:
    """Returns images of 128 of which OpenCV's resize to 32 reads four of sixteen pixels alone.

    Their mean is the digit's, at half the contrast; each by itself is far off, and the others are
    another digit's.
    """
    exact = 64 + images[..., 0].repeat(4, axis=1).repeat(4, axis=2) // 2
    canvas = np.roll(exact, 1, axis=0).repeat(4, axis=1).repeat(4, axis=2)
    noise = np.random.default_rng(0).choice([-64, 64], exact.shape)
    for row, column, sign in ((1, 1, 1), (1, 2, -1), (2, 1, -1), (2, 2, 1)):
        canvas[:, row::4, column::4] = exact + sign * noise
    return canvas[..., None].repeat(3, axis=3)


@dataclass(frozen=True)
class Mistake:
    """What the digits' network is given, and what is said of it."""

    draw: Callable[[Images], Images]
    sound: Callable[[Contract], Contract]
    wrong: Callable[[Contract], Contract]
    words: str


def resized(kind: Resize) -> Callable[[Contract], Contract]:
    """Returns what gives a contract that resize."""
    return lambda contract: with_resize(contract, kind)


def half_contrast(kind: Resize) -> Callable[[Contract], Contract]:
    """Returns what gives a contract that resize, for images of half the contrast."""
    return lambda contract: replace(with_resize(contract, kind), std=(0.25,) * 3)


MISTAKES = {
    "cropped": Mistake(
        stretched, resized(squash(32, 32)), resized(shortest(32)), "takes them squashed to 32"
    ),
    "squashed": Mistake(
        flanked, resized(shortest(32)), resized(squash(32, 32)), "takes them in their shape"
    ),
    "Pillow's": Mistake(
        sampled,
        half_contrast(squash(32, 32, library=ResizeLibrary.OPENCV)),
        half_contrast(squash(32, 32)),
        "the network takes OpenCV's",
    ),
}


def judged(model: Path, data: Path) -> tuple[int, list[str], str]:
    """Returns how a diagnosis ends, everything that it warns of, and the mistake that it names."""
    result, verdict = bench(fp32_engine(model), model, data, "--diagnose", brief=QUICK)
    return result.exit_code, alarms(verdict), "".join(reasons(verdict, "likely_mistakes"))


def changed(model: Path, path: Path, change: Callable[[Contract], Contract]) -> Path:
    """Writes the digits' network with another contract."""
    contract = load_onnx(model).artifact.contract
    assert contract is not None
    other = change(contract)
    kept = {name: getattr(other, name) for name in ("resize", "crop", "color", "std")}
    return with_contract(model, path, **kept)


@pytest.mark.parametrize("name", MISTAKES)
def test_the_digits_network_too(name: str, digits: Digits, tmp_path: Path) -> None:
    """Its images drawn for the contract that it is sound with."""
    if name == "Pillow's":
        pytest.importorskip("cv2", reason="OpenCV is not installed")
    mistake = MISTAKES[name]
    images, labels = arrays(digits.test)
    data = save_arrays(tmp_path / "d.npz", mistake.draw(images[:IMAGES]), labels[:IMAGES])
    sound = changed(digits.model, tmp_path / "sound.onnx", mistake.sound)
    assert judged(sound, data) == (0, [], "")
    wrong = changed(digits.model, tmp_path / "wrong.onnx", mistake.wrong)
    code, _, said = judged(wrong, data)
    assert (code, mistake.words in said) == (6, True), said


def test_a_network_of_one_colour_is_not_given_gray(digits: Digits, tmp_path: Path) -> None:
    """The digits' network on red alone, another digit in blue and green."""
    model, data = red_digits(digits, digits.test, tmp_path)
    images, labels = arrays(data)
    images[..., 1] = images[..., 2]
    data = save_arrays(tmp_path / "d.npz", images[:IMAGES], labels[:IMAGES])
    assert judged(model, data) == (0, [], "")
    gray = changed(model, tmp_path / "g.onnx", lambda c: replace(c, color=Color.GRAY))
    code, _, said = judged(gray, data)
    assert (code, "made gray, the network takes" in said) == (6, True), said


TWINS: dict[str, tuple[ModelSpec, str, str, str]] = {
    "v1": (
        thin_bottlenecks(True), "thin_v1", "thin_v15", "the stride in its 1x1 convolutions",
    ),
    "v1.5": (
        thin_bottlenecks(False), "thin_v15", "thin_v1", "the stride in its 3x3 convolutions",
    ),
    "plain": (
        replace(thin_spec(3), shortcut=Shortcut.NONE), "thin_plain", "thin_network", "no shortcuts",
    ),
}  # fmt: skip
"""How a network is trained, the factories of its own kind and of its twin, and what is said."""


@pytest.mark.parametrize("kind", TWINS)
def test_weights_of_a_twin_are_named(kind: str, digits: Digits, tmp_path: Path) -> None:
    """Trained as one, exported as the other."""
    spec, own, twin, words = TWINS[kind]
    train, _ = embedded_digits()
    assert train.labels is not None
    images = np.stack([train.image(index) for index in range(600)])
    weights = trained_weights(SMALL, images, train.labels[:600], tmp_path / "w.pth", spec)
    codes = []
    for factory in (own, twin):
        model = tmp_path / f"{factory}.onnx"
        line = ("export", f"trained_kinds:{factory}", "--weights", weights, *OPTIONS.split())
        passed(*line, "-o", model)
        codes.append(judged(model, digits.test))
    assert codes[0] == (0, [], "")
    code, _, said = codes[1]
    assert (code, words in said) == (6, True), said


def test_swapped_folders_of_a_second_network_with_softmax(digits: Digits, tmp_path: Path) -> None:
    """The thin network, trained on small digits, gives probabilities."""
    train, _ = embedded_digits()
    assert train.labels is not None
    images = np.stack([train.image(index) for index in range(600)])
    weights = trained_weights(SMALL, images, train.labels[:600], tmp_path / "w.pth")
    model = tmp_path / "m.onnx"
    line = ("export", "trained_kinds:thin_network", "--weights", weights, *OPTIONS.split())
    passed(*line, "--head", "softmax", "-o", model)
    assert judged(model, digits.test) == (0, [], "")
    images, labels = arrays(digits.test)
    other = labels.copy()
    other[labels == 3], other[labels == 5] = 5, 3
    code, _, said = judged(model, save_arrays(tmp_path / "s.npz", images, other))
    assert (code, "3 is 5, 5 is 3" in said) == (6, True), said

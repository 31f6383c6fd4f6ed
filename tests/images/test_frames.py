"""Frames of programs: colours stated and never guessed, everything else refused with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeres.core.contract import Color
from edgeres.errors import ConfigError, DataError
from edgeres.images import frame_pixels

RGB = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)


def test_arrays_pictures_and_paths_are_the_same_pixels(tmp_path: Path) -> None:
    """RGB, BGR, an image of Pillow and a lossless file of it."""
    Image.fromarray(RGB).save(tmp_path / "a.png")
    for frame, color in (
        (RGB, Color.RGB),
        (RGB[..., ::-1], Color.BGR),
        (np.asfortranarray(RGB), Color.RGB),
        (Image.fromarray(RGB), None),
        (tmp_path / "a.png", None),
        (str(tmp_path / "a.png"), None),
        ((tmp_path / "a.png").read_bytes(), None),
    ):
        assert np.array_equal(frame_pixels(frame, color, name="x"), RGB)


def test_gray_is_the_same_in_each_channel() -> None:
    """As a file in gray is read; an array of two axes has no order to state."""
    gray = RGB[..., 0]
    expected = np.asarray(Image.fromarray(gray).convert("RGB"))
    assert np.array_equal(frame_pixels(gray, None, name="x"), expected)


def test_a_picture_with_alpha_is_read_as_its_file_is() -> None:
    """Opaque: dropped. Transparent: refused, by the name that it was given."""
    alpha = np.concatenate([RGB, np.full((5, 4, 1), 255, np.uint8)], axis=-1)
    assert np.array_equal(frame_pixels(Image.fromarray(alpha), None, name="x"), RGB)
    alpha[0, 0, 3] = 0
    with pytest.raises(DataError, match="Frame 3 has 1 transparent pixels of 20"):
        frame_pixels(Image.fromarray(alpha), None, name="Frame 3")


def test_an_order_is_never_guessed() -> None:
    """Both answers would be a guess."""
    with pytest.raises(ConfigError, match="Pass color='bgr' for frames of OpenCV"):
        frame_pixels(RGB, None, name="The frame")


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (RGB / 255, "is an array of float64; expected uint8 from 0 to 255"),
        (RGB.astype(np.int16), "is an array of int16"),
        (RGB[None], r"shape \(1, 5, 4, 3\).* Pass a batch as a list of its images: list\(frames\)"),
        (RGB.transpose(2, 0, 1), r"frame.transpose\(1, 2, 0\)"),
        (np.zeros((5, 4, 4), np.uint8), r"Take the alpha channel off: frame\[..., :3\]"),
        (np.zeros((5, 4, 1), np.uint8), r"Pass frame\[..., 0\] for gray"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\); expected \(height, width, 3\)"),
        (np.zeros((5, 0), np.uint8), r"shape \(5, 0\)"),
        (b"\x89PNG", r"The frame is no image that can be decoded \(4 bytes\)"),
        ({}, "is a dict; expected a NumPy array, an image of Pillow, a path"),
        (None, "is a NoneType"),
    ],
)
def test_anything_else_is_refused(frame: Any, said: str) -> None:
    """With its type or shape, and what to do where that is known."""
    with pytest.raises(DataError, match=said):
        frame_pixels(frame, Color.RGB, name="The frame")

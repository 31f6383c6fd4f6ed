"""Small pictures: all of the image, in proportion, small in bytes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from edgeres.images import thumbnail
from edgeres.images.thumbnail import SIDE


def opened(jpeg: bytes) -> Image.Image:
    """Returns the picture in a JPEG."""
    image = Image.open(io.BytesIO(jpeg))
    assert image.format == "JPEG"
    return image


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(300, 500, (96, 58)), (500, 300, (58, 96)), (32, 32, (32, 32)), (1, 4000, (96, 1))],
)
def test_proportions_are_kept(height: int, width: int, size: tuple[int, int]) -> None:
    """The longer side becomes 96 pixels; what is smaller keeps its size."""
    assert opened(thumbnail(np.zeros((height, width, 3), np.uint8))).size == size


def test_it_is_the_same_picture() -> None:
    """Each half keeps its colour."""
    image = np.zeros((200, 200, 3), np.uint8)
    image[:, :100, 0] = 255
    image[:, 100:, 2] = 255
    small = np.asarray(opened(thumbnail(image))).astype(int)
    assert np.abs(small[:, :40].mean(axis=(0, 1)) - (255, 0, 0)).max() < 12
    assert np.abs(small[:, -40:].mean(axis=(0, 1)) - (0, 0, 255)).max() < 12


def test_even_noise_stays_small() -> None:
    """180 pictures of the worst kind leave room in a page of 2 MB."""
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    assert 180 * len(thumbnail(noise)) * 4 / 3 < 1_600_000

"""Small pictures of images, for people, and pixels to an image file without loss."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """Returns an image, (H, W, 3) uint8 RGB, as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


SIDE = 96
"""Longer side in pixels: sharp at a third of an inch, also on screens of two dots a pixel."""

QUALITY = 72
"""Of the JPEG: at this size about 3 KB for a photograph."""


def thumbnail(image: NDArray[np.uint8], side: int = SIDE) -> bytes:
    """Returns a JPEG of the whole image, its longer side at most `side` pixels.

    Args:
        image: (H, W, 3) uint8 RGB. A smaller one keeps its size.
        side: in pixels.
    """
    small = Image.fromarray(image)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()

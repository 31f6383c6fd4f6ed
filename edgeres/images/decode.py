"""An image file to (H, W, 3) uint8 RGB, as the network saw it in training, or an error.

The rules are those of the loaders that ResNets are trained with (torchvision, timm, Keras),
except where those lose what is in the file:

- Grayscale, palette, CMYK and YCCK become RGB as Pillow's `convert("RGB")` has it.
- 16-bit grayscale is scaled by 1/257, so that 65535 is 255; `convert` would clip it at 255.
  16-bit RGB arrives from Pillow's decoder as its high bytes, at most one level away.
- An alpha channel that is opaque everywhere is dropped. Any transparency is an error: what
  stands behind such pixels is not in the file.
- EXIF orientation is not applied: torchvision and Keras do not apply it either.
- Of an animation the first frame is taken.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edgeres.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
"""Pillow's decoders in use; none of them starts another program, as EPS would."""

MAX_PIXELS = 89_478_485
"""Larger images are refused unread. Source: Pillow's `Image.MAX_IMAGE_PIXELS`, 256 MiB of RGB."""

_FORMATS_OF_16_BIT = ("PNG", "PPM")
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error)
"""What Pillow's decoders raise at damaged files."""


def decode(path: Path) -> NDArray[np.uint8]:
    """Returns the image in a file, (H, W, 3) uint8 RGB; only to be read.

    Raises:
        DataError: the file is missing, empty, truncated, corrupt or no image, is larger than
            `MAX_PIXELS`, has transparent pixels, or holds numbers without a range.
    """
    with _explained_errors(str(path)):
        try:
            with Image.open(path, formats=FORMATS) as image:
                return rgb_pixels(image, str(path))
        except UnidentifiedImageError as error:
            raise DataError(
                f"{path} is no image that can be decoded ({path.stat().st_size} bytes); expected "
                f"{', '.join(FORMATS)}. Replace the file or take it out of the data."
            ) from error


def rgb_pixels(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """Returns the pixels of an opened image, (H, W, 3) uint8 RGB; only to be read.

    Args:
        image: of Pillow, in any mode.
        name: what a message calls it.

    Raises:
        DataError: it cannot be decoded, is larger than `MAX_PIXELS`, has transparent pixels, or
            holds numbers without a range.
    """
    with _explained_errors(name):
        # Opening reads the header alone: nothing large is allocated before this check.
        if image.width * image.height > MAX_PIXELS:
            raise _too_large(name, f"{image.width} x {image.height} pixels")
        # Pillow opens 16-bit PNG and PPM as 32-bit `I` in some versions, as `I;16` in others.
        if image.mode.startswith("I;16") or (
            image.mode == "I" and image.format in _FORMATS_OF_16_BIT
        ):
            wide = np.asarray(image).astype(np.uint32)
            if "transparency" in image.info:
                _check_opaque(name, wide != image.info["transparency"])
            # 65535 / 255 is 257, and adding 128 rounds to the nearest.
            grey = ((wide + 128) // 257).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=-1)
        if image.mode in ("I", "F"):
            raise DataError(
                f"{name} holds 32-bit numbers (mode {image.mode}), whose range is not known. "
                "Convert it to 8-bit RGB."
            )
        if image.has_transparency_data:
            # A palette's transparent entry counts only where a pixel has it.
            rgba = image.convert("RGBA")
            _check_opaque(name, np.asarray(rgba.getchannel("A")) == 255)
            return np.asarray(rgba.convert("RGB"))
        return np.asarray(image.convert("RGB"))


@contextmanager
def _explained_errors(name: str) -> Iterator[None]:
    """Turns what Pillow's decoders raise into a DataError."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name, str(error)) from error
    except _UNREADABLE as error:
        # An OSError's text repeats the path; a decoder's has no strerror.
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{name} cannot be decoded: {reason}. Replace the file or take it out of the data."
        ) from error


def _too_large(name: str, fact: str) -> DataError:
    return DataError(
        f"{name} is too large: {fact}; at most {MAX_PIXELS} pixels are decoded. Scale the image "
        "down or take it out of the data."
    )


def _check_opaque(name: str, opaque: NDArray[np.bool_]) -> None:
    if not opaque.all():
        raise DataError(
            f"{name} has {opaque.size - np.count_nonzero(opaque)} transparent pixels of "
            f"{opaque.size}; what the network should see there is not in the file. Lay the image "
            "on a background and save it without alpha."
        )

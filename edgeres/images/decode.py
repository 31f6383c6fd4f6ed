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

import os
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edgeres.errors import DataError
from edgeres.input_files import IMAGE, foreign_parser, open_input, reason_of

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
"""Pillow's decoders in use; none of them starts another program, as EPS would."""

MAX_PIXELS = 89_478_485
"""Larger images are refused unread. Source: Pillow's `Image.MAX_IMAGE_PIXELS`, 256 MiB of RGB."""

_FORMATS_OF_16_BIT = ("PNG", "PPM")


def decode(path: Path) -> NDArray[np.uint8]:
    """Returns the image in a file, (H, W, 3) uint8 RGB; only to be read.

    Raises:
        DataError: the file is missing, empty, truncated, corrupt or no image, is larger than
            `MAX_PIXELS`, has transparent pixels, or holds numbers without a range.
    """
    with (
        open_input(path, IMAGE) as file,
        foreign_parser(partial(_undecodable, f"{path}", os.fstat(file.fileno()).st_size)),
        Image.open(file, formats=FORMATS) as image,
    ):
        return rgb_pixels(image, str(path))


def rgb_pixels(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """Returns the pixels of an opened image, (H, W, 3) uint8 RGB; only to be read.

    Args:
        image: of Pillow, in any mode.
        name: what a message calls it.

    Raises:
        DataError: it cannot be decoded, is larger than `MAX_PIXELS`, has transparent pixels, or
            holds numbers without a range.
    """
    with foreign_parser(partial(_undecodable, name, None)):
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


def _undecodable(name: str, size: int | None, error: Exception) -> DataError:
    if isinstance(error, UnidentifiedImageError):
        return DataError(
            f"{name} is no image that can be decoded ({size} bytes); expected "
            f"{', '.join(FORMATS)}. Replace the file or take it out of the data."
        )
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return _too_large(name, str(error))
    return DataError(
        f"{name} cannot be decoded: {reason_of(error)}. Replace the file or take it out of the data."
    )


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

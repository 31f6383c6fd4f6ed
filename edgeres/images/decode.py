"""An image file to (H, W, 3) uint8 RGB, as the network saw it in training, or an error.

The rules are those of the loaders that ResNets are trained with (torchvision, timm, Keras),
except where those lose what is in the file:

- Grayscale, palette, CMYK and YCCK become RGB as Pillow's `convert("RGB")` has it.
- 16-bit grayscale is scaled by 1/257, so that 65535 is 255; `convert` would clip it at 255.
  16-bit RGB arrives from Pillow's decoder as its high bytes, at most one level away.
- An alpha channel that is opaque everywhere is dropped. Any transparency is an error: what
  stands behind such pixels is not in the file.
- EXIF orientation is returned beside the pixels and not applied: torchvision and Keras do not
  apply it, `cv2.imread` does.
- Of an animation the first frame is taken.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edgeres.core.resize import ResizeLibrary
from edgeres.errors import DataError
from edgeres.input_files import IMAGE, foreign_parser, open_input, reason_of

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
"""Pillow's decoders in use; none of them starts another program, as EPS would."""

MAX_PIXELS = 89_478_485
"""Larger images are refused unread. Source: Pillow's `Image.MAX_IMAGE_PIXELS`, 256 MiB of RGB."""

_FORMATS_OF_16_BIT = ("PNG", "PPM")


UPRIGHT = 1
"""EXIF's number for an image that is stored as it is to be seen."""

_ORIENTATION = 0x0112
"""EXIF's tag. Source: CIPA DC-008 (Exif 2.32), 4.6.4."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecodedImage:
    """What is in an image file."""

    pixels: NDArray[np.uint8] = field(repr=False)
    """(H, W, 3) RGB as stored; only to be read."""
    orientation: int = UPRIGHT
    """EXIF's, 1 to 8: how the stored image is turned or mirrored; 1 where it has none."""

    def as_read_by(self, library: ResizeLibrary) -> NDArray[np.uint8]:
        """Returns the pixels, (H, W, 3) RGB, as a library's reader hands them on: a view of them.

        `cv2.imread` turns an image as EXIF has it, torchvision's loader does not. Source: Pillow's
        `ImageOps.exif_transpose` for what each number means.
        """
        pixels = self.pixels
        if library is ResizeLibrary.PILLOW:
            return pixels
        # From 5 on, rows and columns are exchanged.
        if self.orientation > 4:
            pixels = pixels.swapaxes(0, 1)
        if self.orientation in {3, 4, 7, 8}:
            pixels = pixels[::-1]
        return pixels[:, ::-1] if self.orientation in {2, 3, 6, 7} else pixels


def decode(path: Path) -> DecodedImage:
    """Returns the image in a file.

    Raises:
        DataError: the file is missing, empty, truncated, corrupt or no image, is larger than
            `MAX_PIXELS`, has transparent pixels, or holds numbers without a range.
    """
    with open_input(path, IMAGE) as file:
        return _decoded(file, f"{path}", os.fstat(file.fileno()).st_size)


def decode_bytes(content: bytes, name: str) -> DecodedImage:
    """Returns the image of an encoded file in memory; see `decode`.

    Args:
        content: the file's bytes.
        name: what a message calls it.
    """
    return _decoded(io.BytesIO(content), name, len(content))


def _decoded(file: BinaryIO, name: str, size: int) -> DecodedImage:
    with (
        foreign_parser(partial(_undecodable, name, size)),
        Image.open(file, formats=FORMATS) as image,
    ):
        pixels = rgb_pixels(image, name)
        # After decoding: Pillow turns a TIFF itself and takes its tag away then.
        return DecodedImage(pixels=pixels, orientation=orientation_of(image))


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


def orientation_of(image: Image.Image) -> int:
    """Returns EXIF's orientation of an opened image, 1 to 8; 1 where it has none."""
    stored = image.getexif().get(_ORIENTATION, UPRIGHT)
    return stored if stored in range(1, 9) else UPRIGHT


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

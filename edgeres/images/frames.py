"""A frame of a program to (H, W, 3) uint8 RGB: what a data set's decoder makes of a file.

A NumPy array has no colour order of its own, so it is stated and never guessed; a Pillow image
and a file know theirs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeres.core.contract import Color
from edgeres.core.resize import ResizeLibrary
from edgeres.errors import ConfigError, DataError
from edgeres.images.decode import DecodedImage, decode, decode_bytes, orientation_of, rgb_pixels

Frame = NDArray[np.uint8] | Image.Image | str | Path | bytes
"""(H, W, 3) or gray (H, W) uint8, an image of Pillow, the path of an image file, or its bytes."""


def frame_pixels(
    frame: Frame,
    color: Color | None,
    *,
    name: str,
    library: ResizeLibrary = ResizeLibrary.PILLOW,
) -> NDArray[np.uint8]:
    """Returns the pixels of a frame, (H, W, 3) uint8 RGB; only to be read.

    Args:
        frame: an array, an image of Pillow, a path, or the bytes of an image file.
        color: order of the channels of an array; None where no frame is an array of three.
        name: what a message calls an array or an image of Pillow.
        library: of the contract; OpenCV turns an image as its EXIF has it.

    Raises:
        ConfigError: the order of an array's channels is not stated.
        DataError: the frame is of another type or shape, or cannot be decoded.
    """
    if isinstance(frame, str | Path):
        return decode(Path(frame)).as_read_by(library)
    if isinstance(frame, bytes):
        return decode_bytes(frame, name).as_read_by(library)
    if isinstance(frame, Image.Image):
        pixels = rgb_pixels(frame, name)
        decoded = DecodedImage(pixels=pixels, orientation=orientation_of(frame))
        return decoded.as_read_by(library)
    if not isinstance(frame, np.ndarray):
        raise DataError(
            f"{name} is a {type(frame).__name__}; expected a NumPy array, an image of Pillow, a "
            "path, the bytes of an image file, or a list of these."
        )
    if frame.dtype != np.uint8:
        raise DataError(
            f"{name} is an array of {frame.dtype}; expected uint8 from 0 to 255, as a camera or "
            "decoder returns it. It is scaled and normalised by the engine's contract: pass it "
            "before any arithmetic of your own."
        )
    if frame.ndim == 2 and frame.size:
        return np.repeat(frame[..., None], 3, axis=-1)
    if frame.ndim != 3 or frame.shape[-1] != 3 or not frame.size:
        raise DataError(
            f"{name} has the shape {frame.shape}; expected (height, width, 3) or, in gray, "
            f"(height, width).{_advice(frame)}"
        )
    if color is None:
        raise ConfigError(
            f"{name} is an array of three channels, whose order an array does not show. Pass "
            "color='bgr' for frames of OpenCV, color='rgb' for those of Pillow or imageio."
        )
    return frame[..., ::-1] if color is Color.BGR else frame


def states_color(frame: Frame) -> bool:
    """Returns whether the order of a frame's channels is known without being stated."""
    return not isinstance(frame, np.ndarray) or frame.ndim == 2


def _advice(frame: NDArray[np.uint8]) -> str:
    """Returns what to do about an array of the wrong shape."""
    shape = frame.shape
    if len(shape) == 4:
        return " Pass a batch as a list of its images: list(frames)."
    if len(shape) == 3 and shape[0] == 3:
        return " The channels come last: frame.transpose(1, 2, 0)."
    if len(shape) == 3 and shape[-1] == 4:
        return " Take the alpha channel off: frame[..., :3]."
    if len(shape) == 3 and shape[-1] == 1:
        return " Pass frame[..., 0] for gray."
    return ""

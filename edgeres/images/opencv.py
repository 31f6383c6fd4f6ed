"""OpenCV's resize, letterbox and gray, by its own functions: bit for bit what it makes of an image.

Its filters do not antialias, so a photograph that is shrunk has other pixels than with Pillow's.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeres.core.resize import Interpolation, Resize
from edgeres.errors import DependencyError
from edgeres.installation import install_hint

_FLAGS = {
    Interpolation.NEAREST: "INTER_NEAREST",
    Interpolation.BILINEAR: "INTER_LINEAR",
    Interpolation.BICUBIC: "INTER_CUBIC",
    Interpolation.LANCZOS: "INTER_LANCZOS4",
    Interpolation.AREA: "INTER_AREA",
}


@cache
def load_opencv() -> Any:
    """Returns the module.

    Raises:
        DependencyError: it is missing or cannot be loaded.
    """
    try:
        import cv2
    except ImportError as error:
        raise DependencyError(
            f"The preprocessing contract names OpenCV's resize, and cv2 cannot be imported "
            f"({error}). {install_hint('cv2')}"
        ) from error
    return cv2


def resize(image: NDArray[np.uint8], size: tuple[int, int], how: Resize) -> NDArray[np.uint8]:
    """Returns an image, (H, W, C) uint8, resized to a height and width as `cv2.resize` does it."""
    cv2 = load_opencv()
    flag = getattr(cv2, _FLAGS[how.interpolation])
    resized: NDArray[np.uint8] = cv2.resize(
        np.ascontiguousarray(image), size[::-1], None, 0, 0, flag
    )
    return resized.reshape(*size, image.shape[-1])


def letterbox(image: NDArray[np.uint8], size: tuple[int, int], how: Resize) -> NDArray[np.uint8]:
    """Returns an image resized into the middle of a frame of one value.

    Of an odd margin the smaller half comes first. Source: Ultralytics' `LetterBox`, without its
    stride, and DeepStream's `symmetric-padding`.
    """
    height, width = image.shape[:2]
    ratio = min(size[0] / height, size[1] / width)
    inner = round(height * ratio), round(width * ratio)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    frame = np.full((*size, image.shape[-1]), how.pad, np.uint8)
    resized = image if inner == (height, width) else resize(image, inner, how)
    frame[top : top + inner[0], left : left + inner[1]] = resized
    return frame


def gray(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns an RGB image, (H, W, 3) uint8, as `cv2.cvtColor` makes it gray, (H, W)."""
    cv2 = load_opencv()
    converted: NDArray[np.uint8] = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    return converted

"""Decoded images to what a network takes, by the preprocessing contract.

`prepare` works on uint8, as the training pipelines do: Pillow's resize, then the centre crop.
`normalise` looks values up: each channel has only 256, computed in float64 and rounded once.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeres.core.contract import Color, Contract
from edgeres.errors import DataError
from edgeres.images.decode import MAX_PIXELS


def prepare(
    image: NDArray[np.uint8], contract: Contract, *, name: str = "The image"
) -> NDArray[np.uint8]:
    """Returns the centre of an image after its short side is resized, (size, size, 3) uint8 RGB.

    Args:
        image: (H, W, 3) uint8 RGB.
        contract: gives `resize`, `interpolation` and `size`.
        name: what a message calls the image.

    Raises:
        DataError: the image is smaller than the crop and is not to be resized, or so long that
            its resized form would be larger than `decode.MAX_PIXELS`.

    Source: torchvision's `Resize(int)`, on PIL images, for the size of the long side.
    """
    return crop(resize(image, contract, name=name), contract.size, name=name)


def resize(image: NDArray[np.uint8], contract: Contract, *, name: str) -> NDArray[np.uint8]:
    """Returns an image, (H, W, 3) uint8, with its short side resized to the contract's."""
    height, width = image.shape[:2]
    short = contract.resize
    if short is None or short == min(height, width):
        return image
    # Truncated, as torchvision does, not rounded.
    longer = int(short * max(height, width) / min(height, width))
    if short * longer > MAX_PIXELS:
        raise DataError(
            f"{name} is {width} x {height}: with its short side resized to {short} it would have "
            f"{short * longer} pixels, more than {MAX_PIXELS}. Crop it or take it out of the data."
        )
    size = (short, longer) if width < height else (longer, short)
    # The contract names Pillow's filters, which antialias; OpenCV's of the same names do not.
    pillow_filter = Image.Resampling[contract.interpolation.name]
    return np.asarray(Image.fromarray(image).resize(size, pillow_filter))


def crop(images: NDArray[np.uint8], size: int, *, name: str) -> NDArray[np.uint8]:
    """Returns a view of the centre of (..., H, W, 3) images, `size` pixels high and wide.

    An odd margin leaves its extra pixel below and on the right-hand side, as Keras and Caffe have
    it: 224 of 227 begins at 1, where the ResNet-50 of He et al. has its published accuracy.
    torchvision's CenterCrop rounds half to even and would begin at 2.

    Raises:
        DataError: the image is smaller than the crop.
    """
    height, width = images.shape[-3:-1]
    if min(height, width) < size:
        raise DataError(
            f"{name} is {width} x {height}, smaller than the {size} x {size} crop. Give the model "
            "a contract that resizes (export with --resize), or take the image out of the data."
        )
    top, left = (height - size) // 2, (width - size) // 2
    return images[..., top : top + size, left : left + size, :]


def normalise(batch: NDArray[np.uint8], contract: Contract) -> NDArray[np.float32]:
    """Returns `(value * scale - mean) / std` in the contract's colour order, NCHW.

    Each result is the float32 nearest to the exact value.

    Args:
        batch: (N, H, W, 3) uint8 RGB.
        contract: gives `color`, `scale`, `mean` and `std`.

    Returns:
        (N, 3, H, W) float32, contiguous.
    """
    count, height, width, channels = batch.shape
    result = np.empty((count, channels, height, width), np.float32)
    normalise_into(result, batch, contract)
    return result


def normalise_into(
    result: NDArray[np.float32], batch: NDArray[np.uint8], contract: Contract
) -> None:
    """Writes what `normalise` returns into `result`, (N, 3, H, W) float32."""
    source = (0, 1, 2) if contract.color is Color.RGB else (2, 1, 0)
    for channel, table in enumerate(_tables(contract)):
        # A uint8 is always in range: "wrap" spares the copy that "raise" makes of `out`.
        np.take(table, batch[..., source[channel]], out=result[:, channel], mode="wrap")


@lru_cache(maxsize=8)
def _tables(contract: Contract) -> NDArray[np.float32]:
    """Returns (3, 256) float32: what each raw value of each channel becomes."""
    values = np.arange(256, dtype=np.float64) * contract.scale
    mean, std = np.array(contract.mean), np.array(contract.std)
    tables: NDArray[np.float32] = ((values - mean[:, None]) / std[:, None]).astype(np.float32)
    return tables

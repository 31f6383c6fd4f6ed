"""Decoded images to what a network takes, by the preprocessing contract.

`prepare` works on uint8, as the training pipelines do: gray where the network takes one channel,
the resize, then the crop, each by the library that the contract names. `normalise` looks values
up: each channel has only 256, computed in float64 and rounded once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from edgeres.core.contract import Color, Contract, Crop, InputType
from edgeres.core.resize import Resize, ResizeLibrary, ResizeMode
from edgeres.errors import DataError
from edgeres.images import opencv
from edgeres.images.decode import MAX_PIXELS

_SOURCES = {Color.RGB: (0, 1, 2), Color.BGR: (2, 1, 0), Color.GRAY: (0, 0, 0)}
"""For each channel of a network the channel of the decoded image."""


def prepare(
    image: NDArray[np.uint8], contract: Contract, *, name: str = "The image"
) -> NDArray[np.uint8]:
    """Returns an image resized and cropped, uint8: (H, W, 3) RGB, or (H, W, 1) gray.

    Args:
        image: (H, W, 3) uint8 RGB, upright where the contract has OpenCV read EXIF.
        contract: gives the resize, the crop, the size and whether it is gray.
        name: what a message calls the image.

    Raises:
        DataError: the image is smaller than the crop and is not to be resized, or so long that
            its resized form would be larger than `decode.MAX_PIXELS`.
        DependencyError: the contract names OpenCV, which is missing.

    Source: torchvision's `Grayscale`, `Resize` and `CenterCrop` on PIL images; Pillow's
    `ImageOps.pad`; OpenCV's `cvtColor` and `resize`.
    """
    pixels = gray(image, contract.resize.library) if contract.color is Color.GRAY else image
    return crop(resize(pixels, contract.resize, name=name), contract, name=name)


def gray(image: NDArray[np.uint8], library: ResizeLibrary) -> NDArray[np.uint8]:
    """Returns the luma of ITU-R BT.601, (H, W, 1) uint8, rounded as a library does it.

    An image whose three channels are equal keeps their value.
    """
    if library is ResizeLibrary.OPENCV:
        return opencv.gray(image)[..., None]
    return np.asarray(Image.fromarray(image).convert("L"))[..., None]


def resize(image: NDArray[np.uint8], how: Resize, *, name: str) -> NDArray[np.uint8]:
    """Returns an image, (H, W, C) uint8, resized."""
    height, width = image.shape[:2]
    if is_kept(how, height, width):
        return image
    if how.short is not None:
        # Truncated, as torchvision does, not rounded.
        longer = int(how.short * max(height, width) / min(height, width))
        if how.short * longer > MAX_PIXELS:
            raise DataError(
                f"{name} is {width} x {height}: with its short side resized to {how.short} it "
                f"would have {how.short * longer} pixels, more than {MAX_PIXELS}. Crop it or take "
                "it out of the data."
            )
        size = (longer, how.short) if width < height else (how.short, longer)
    else:
        size = (how.height or height, how.width or width)
    if how.mode is ResizeMode.LETTERBOX:
        ratio = min(size[0] / height, size[1] / width)
        if min(height, width) * ratio <= 0.5:
            raise DataError(
                f"{name} is {width} x {height}: made as small as the frame of {size[1]} x {size[0]} "
                "it has no pixel left across. Crop it or take it out of the data."
            )
    if how.library is ResizeLibrary.OPENCV:
        framed = opencv.letterbox if how.mode is ResizeMode.LETTERBOX else opencv.resize
        return framed(image, size, how)
    # The contract names Pillow's filters, which antialias; OpenCV's of the same names do not.
    pillow_filter = Image.Resampling[how.interpolation.name]
    # Pillow has one channel without an axis of its own.
    pillow_image = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    if how.mode is ResizeMode.LETTERBOX:
        color = how.pad if image.shape[-1] == 1 else (how.pad,) * 3
        resized = ImageOps.pad(pillow_image, size[::-1], pillow_filter, color)
    else:
        resized = pillow_image.resize(size[::-1], pillow_filter)
    return np.asarray(resized).reshape(*size, image.shape[-1])


def is_kept(how: Resize, height: int, width: int) -> bool:
    """Returns whether a resize leaves images of this size as they are."""
    if how.mode is ResizeMode.NONE:
        return True
    if how.mode is ResizeMode.SHORTEST:
        return how.short == min(height, width)
    return (how.height, how.width) == (height, width)


def crop(images: NDArray[np.uint8], contract: Contract, *, name: str) -> NDArray[np.uint8]:
    """Returns a view of (..., H, W, C) images as large as the network's input: their centre.

    An odd margin leaves its extra pixel below and on the right-hand side, as Keras and Caffe have
    it: 224 of 227 begins at 1, where the ResNet-50 of He et al. has its published accuracy.
    torchvision's CenterCrop rounds half to even and would begin at 2.

    Raises:
        DataError: the image is smaller than the crop, or larger and not to be cropped.
    """
    height, width = images.shape[-3:-1]
    own = f"{contract.width} x {contract.height}"
    if height < contract.height or width < contract.width:
        raise DataError(
            f"{name} is {width} x {height}, smaller than the {own} crop. Give the model "
            "a contract that resizes (export with --resize), or take the image out of the data."
        )
    if contract.crop is Crop.NONE and (height, width) != (contract.height, contract.width):
        raise DataError(
            f"{name} is {width} x {height}, and the contract takes images of {own} as they are. "
            "Export with --resize, or take the image out of the data."
        )
    top, left = (height - contract.height) // 2, (width - contract.width) // 2
    return images[..., top : top + contract.height, left : left + contract.width, :]


def normalise(batch: NDArray[np.uint8], contract: Contract) -> NDArray[np.float32]:
    """Returns `(value * scale - mean) / std` in the contract's colour order, NCHW.

    Each result is the float32 nearest to the exact value.

    Args:
        batch: (N, H, W, 3) uint8 RGB, or (N, H, W, 1) gray, which all channels get.
        contract: gives `color`, `channels`, `scale`, `mean` and `std`.

    Returns:
        (N, C, H, W) float32, contiguous.
    """
    count, height, width = batch.shape[:3]
    result = np.empty((count, contract.channels, height, width), np.float32)
    normalise_into(result, batch, contract)
    return result


def fed(batch: NDArray[np.uint8], contract: Contract) -> NDArray[Any]:
    """Returns what runners take for prepared images, contiguous.

    Args:
        batch: (N, H, W, 3) uint8 RGB, or (N, H, W, 1) gray, of `prepare`.
        contract: whether these are normalised floats, (N, C, H, W), or bytes, (N, H, W, C), in
            its order of channels.
    """
    result = empty_fed(len(batch), contract)
    feed_into(result, batch, contract)
    return result


def empty_fed(count: int, contract: Contract) -> NDArray[Any]:
    """Returns an array for as many images as runners take them, not yet filled."""
    return np.empty((count, *contract.fed_shape), contract.input.value)


def feed_into(result: NDArray[Any], batch: NDArray[np.uint8], contract: Contract) -> None:
    """Writes what `fed` returns into `result`."""
    if contract.input is InputType.FLOAT32:
        normalise_into(result, batch, contract)
        return
    order = _SOURCES[contract.color][: contract.channels]
    for channel, source in enumerate(order):
        result[..., channel] = batch[..., source]


def normalise_into(
    result: NDArray[np.float32], batch: NDArray[np.uint8], contract: Contract
) -> None:
    """Writes what `normalise` returns into `result`, (N, C, H, W) float32."""
    source = _SOURCES[contract.color]
    for channel, table in enumerate(_tables(contract)):
        # A uint8 is always in range: "wrap" spares the copy that "raise" makes of `out`.
        np.take(table, batch[..., source[channel]], out=result[:, channel], mode="wrap")


@lru_cache(maxsize=8)
def _tables(contract: Contract) -> NDArray[np.float32]:
    """Returns (C, 256) float32: what each raw value of each channel becomes."""
    values = np.arange(256, dtype=np.float64) * contract.scale
    mean, std = np.array(contract.mean), np.array(contract.std)
    tables: NDArray[np.float32] = ((values - mean[:, None]) / std[:, None]).astype(np.float32)
    return tables

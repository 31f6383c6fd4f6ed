"""The preprocessing contract: how images were prepared when a network was trained.

It travels inside the ONNX file; calibration, bench and every runner read it from there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from edgeres.core.resize import LONGEST_SIDE, NO_RESIZE, Interpolation, Resize, shortest
from edgeres.errors import ConfigError
from edgeres.names import Name, nearest
from edgeres.plurals import counted


class Color(Name):
    """Order of the colour channels that a network was trained on.

    `gray` is one channel, or the same in each of three.
    """

    RGB = "rgb"
    BGR = "bgr"
    GRAY = "gray"


class Crop(Name):
    """What is taken of the resized image."""

    CENTER = "center"
    NONE = "none"
    """All of it: it has the size of the network's input."""


class InputType(Name):
    """What the file takes."""

    FLOAT32 = "float32"
    """Normalised values, NCHW."""
    UINT8 = "uint8"
    """Pixels of 0 to 255; the file normalises them itself."""


class OutputType(Name):
    """What the file ends in."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractVersion1:
    """The first form of a contract in a file, which earlier versions of edgeres wrote."""

    size: int
    resize: int | None
    interpolation: Interpolation
    color: Color
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def current(self) -> Contract:
        """Returns the contract that it stands for."""
        return Contract(
            height=self.size,
            width=self.size,
            color=self.color,
            resize=NO_RESIZE
            if self.resize is None
            else shortest(self.resize, interpolation=self.interpolation),
            scale=self.scale,
            mean=self.mean,
            std=self.std,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """Preprocessing that a network was trained with; it travels inside the ONNX file.

    A uint8 image of one or three channels is resized, its centre of `height` x `width` pixels is
    taken, the channels are put in `color` order, and every value becomes
    `(value * scale - mean) / std`, float32, NCHW. A file whose `input` is uint8 takes the pixels
    and does the last step itself.
    """

    version: ClassVar[int] = 2
    older_versions: ClassVar[Mapping[int, type[ContractVersion1]]] = {1: ContractVersion1}
    json_keys: ClassVar[tuple[str, ...]] = ("version", "*")

    height: int
    """Height of the network's input in pixels."""
    width: int
    """Width of the network's input in pixels."""
    channels: int = 3
    """Of the network's input: 1, which is gray, or 3."""
    color: Color = Color.RGB
    resize: Resize = NO_RESIZE
    crop: Crop = Crop.CENTER
    scale: float = 1 / 255
    """Factor on the raw 0..255 values, before the mean is taken off."""
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Per channel, in `color` order, after `scale`."""
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Per channel, in `color` order, after `scale`."""
    input: InputType = InputType.FLOAT32
    output: OutputType = OutputType.LOGITS

    def __post_init__(self) -> None:
        if not 1 <= min(self.height, self.width) <= max(self.height, self.width) <= LONGEST_SIDE:
            raise ConfigError(
                f"Input size is {self.height}x{self.width}; expected 1 to {LONGEST_SIDE} pixels."
            )
        if self.channels != 3 and (self.channels, self.color) != (1, Color.GRAY):
            raise ConfigError(
                f"{counted(self.channels, 'channel')} of {self.color}: a network takes 3, or 1 of "
                "gray. Pass --channels 1 for gray, or --color for 3."
            )
        self._check_resize()
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ConfigError(
                f"mean {self.mean} and std {self.std} need "
                f"{'one value' if self.channels == 1 else 'three values'}, one per channel."
            )
        # Before the sign: NaN passes every comparison below.
        if not all(map(math.isfinite, (*self.mean, *self.std, self.scale))):
            raise ConfigError(
                f"mean {self.mean}, std {self.std} and scale {self.scale} must be finite numbers."
            )
        if min(self.std) <= 0 or self.scale <= 0:
            raise ConfigError(f"std {self.std} and scale {self.scale} must be positive.")

    def _check_resize(self) -> None:
        """Raises ConfigError where no image that is resized so has the pixels of the crop."""
        resize, size = self.resize, (self.height, self.width)
        # Pixels outside of the image have no value that training would have had there.
        if resize.short is not None and resize.short < min(size):
            raise ConfigError(
                f"--resize {resize.short} is smaller than the {self.size_words} crop. Pass "
                f"--resize {max(size)} or more, or --resize none to crop the image as it is."
            )
        if resize.height is not None and resize.width is not None:
            resized = (resize.height, resize.width)
            if resized[0] < size[0] or resized[1] < size[1]:
                raise ConfigError(
                    f"--resize {resize.lengths} is smaller than the {self.size_words} input. Pass "
                    f"--resize {self.height}x{self.width}, or more to crop a margin off."
                )
            if self.crop is Crop.NONE and resized != size:
                raise ConfigError(
                    f"--resize {resize.lengths} without a crop makes no input of "
                    f"{self.size_words}. Resize to {self.height}x{self.width}, or crop the centre."
                )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image behind the arithmetic."""
        return self.channels, self.height, self.width

    @property
    def fed_shape(self) -> tuple[int, int, int]:
        """Of one image as runners take it: (C, H, W) of floats, (H, W, C) of a camera's bytes."""
        floats = self.input is InputType.FLOAT32
        return self.shape if floats else (self.height, self.width, self.channels)

    @property
    def prepared(self) -> Contract:
        """That of the network behind the arithmetic, which takes normalised values."""
        return replace(self, input=InputType.FLOAT32)

    @property
    def size_words(self) -> str:
        """Height and width for a message, such as `224-pixel` or `64x96-pixel`."""
        square = self.height == self.width
        return f"{self.height}-pixel" if square else f"{self.height}x{self.width}-pixel"

    def __str__(self) -> str:
        resize = f"{self.resize}, " if str(self.resize) else ""
        repeated = self.color is Color.GRAY and self.channels == 3
        color = f"{self.color} in 3 channels" if repeated else self.color
        size = str(self.height) if self.height == self.width else f"{self.height}x{self.width}"
        crop = f"crop {size}, " if self.crop is Crop.CENTER else ""
        ends = [f"{self.input} in"] if self.input is not InputType.FLOAT32 else []
        ends += [f"{self.output} out"] if self.output is not OutputType.LOGITS else []
        return ", ".join(
            [
                f"{resize}{crop}{color}",
                f"(x * {self.scale:.6g} - {_numbers(self.mean)}) / {_numbers(self.std)}",
                *ends,
            ]
        )


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_HALVES = (0.5, 0.5, 0.5)

PRESETS: Mapping[str, Contract] = {
    "imagenet": Contract(
        height=224, width=224, resize=shortest(256), mean=_IMAGENET_MEAN, std=_IMAGENET_STD
    ),
    # Caffe's models take raw 0..255 values; their mean is in the order BGR, as the channels are.
    "imagenet-caffe": Contract(
        height=224,
        width=224,
        color=Color.BGR,
        resize=shortest(256),
        scale=1.0,
        mean=(103.939, 116.779, 123.68),
    ),
    "imagenet-inception": Contract(
        height=224, width=224, resize=shortest(256), mean=_HALVES, std=_HALVES
    ),
    "cifar": Contract(
        height=32, width=32, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)
    ),
    "cifar-imagenet-norm": Contract(height=32, width=32, mean=_IMAGENET_MEAN, std=_IMAGENET_STD),
    # The digits are 8 x 8 pixels: without the resize they would be smaller than the crop.
    "digits": Contract(height=32, width=32, resize=shortest(32), mean=_HALVES, std=_HALVES),
}
"""Named contracts. Source: torchvision's references (imagenet), Keras' `preprocess_input`
(caffe: BGR minus the mean of Simonyan and Zisserman; inception: [-1, 1]), the statistics of
CIFAR-10's training set (cifar), akamaster/pytorch_resnet_cifar10 (cifar-imagenet-norm)."""


def preset(name: str) -> Contract:
    """Returns the contract of that name.

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(
            f"No preset '{name}'.{nearest(name, PRESETS)} Available: {', '.join(PRESETS)}."
        )
    return PRESETS[name]


def with_resize(contract: Contract, resize: Resize) -> Contract:
    """Returns a contract with another resize, and a crop where that makes more than the input."""
    is_exact = (resize.height, resize.width) == (contract.height, contract.width)
    return replace(contract, resize=resize, crop=Crop.NONE if is_exact else Crop.CENTER)

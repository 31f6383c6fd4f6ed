"""The preprocessing contract: how images were prepared when a network was trained.

It travels inside the ONNX file; calibration, bench and every runner read it from there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from edgeres.errors import ConfigError
from edgeres.names import Name, nearest


class Color(Name):
    """Order of the colour channels that a network was trained on."""

    RGB = "rgb"
    BGR = "bgr"


class Interpolation(Name):
    """Filter of the resize; each is Pillow's filter of that name, with its antialiasing."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """Preprocessing that a network was trained with; it travels inside the ONNX file.

    An RGB uint8 image is resized so that its short side is `resize` (unless that is None),
    its centre of `size` x `size` pixels is taken, the channels are put in `color` order, and
    every value becomes `(value * scale - mean) / std`, float32, NCHW.
    """

    size: int
    """Height and width of the network's input in pixels."""
    resize: int | None = None
    """Length in pixels that the short side is resized to; None takes the image as it is."""
    interpolation: Interpolation = Interpolation.BILINEAR
    color: Color = Color.RGB
    scale: float = 1 / 255
    """Factor on the raw 0..255 values, before the mean is taken off."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Per channel, in `color` order, after `scale`."""
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Per channel, in `color` order, after `scale`."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"Input size is {self.size}; expected at least 1 pixel.")
        # Pixels outside of the image have no value that training would have had there.
        if self.resize is not None and self.resize < self.size:
            raise ConfigError(
                f"--resize {self.resize} is smaller than the {self.size}-pixel crop. "
                f"Pass --resize {self.size} or more, or --resize none to crop the image as it is."
            )
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ConfigError(
                f"mean {self.mean} and std {self.std} need three values, one per channel."
            )
        # Before the sign: NaN passes every comparison below.
        if not all(map(math.isfinite, (*self.mean, *self.std, self.scale))):
            raise ConfigError(
                f"mean {self.mean}, std {self.std} and scale {self.scale} must be finite numbers."
            )
        if min(self.std) <= 0 or self.scale <= 0:
            raise ConfigError(f"std {self.std} and scale {self.scale} must be positive.")

    def __str__(self) -> str:
        resize = f"resize {self.resize} {self.interpolation}, " if self.resize else ""
        return (
            f"{resize}crop {self.size}, {self.color}, (x * {self.scale:.6g} - "
            f"{_numbers(self.mean)}) / {_numbers(self.std)}"
        )


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

PRESETS: Mapping[str, Contract] = {
    "imagenet": Contract(size=224, resize=256, mean=_IMAGENET_MEAN, std=_IMAGENET_STD),
    # Caffe's models take raw 0..255 values; their mean is in the order BGR, as the channels are.
    "imagenet-caffe": Contract(
        size=224, resize=256, color=Color.BGR, scale=1.0, mean=(103.939, 116.779, 123.68)
    ),
    "imagenet-inception": Contract(size=224, resize=256, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    "cifar": Contract(size=32, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    "cifar-imagenet-norm": Contract(size=32, mean=_IMAGENET_MEAN, std=_IMAGENET_STD),
    # The digits are 8 x 8 pixels: without the resize they would be smaller than the crop.
    "digits": Contract(size=32, resize=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractOptions:
    """Options of the preprocessing; None means: as in the preset."""

    preset: str | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    color: Color | None = None
    input_size: int | None = None
    resize: int | str | None = None
    """Short side in pixels, or `none` to crop the image as it is."""
    interpolation: Interpolation | None = None
    scale: float | None = None
    """Factor on the raw 0..255 values."""

    @property
    def empty(self) -> bool:
        """Whether no option was passed."""
        return all(getattr(self, f.name) is None for f in fields(self))

    def resolve(self, default: str | Contract) -> Contract:
        """Returns the contract: the preset with the given values in place.

        Args:
            default: what stands where no preset was named, itself the name of one or a contract.
        """
        # A named preset replaces the model's contract as a whole; single values go on top of either.
        named = self.preset or default
        base = named if isinstance(named, Contract) else preset(named)
        size = base.size if self.input_size is None else self.input_size
        resize = base.resize
        if resize is not None and size != base.size:
            # The crop keeps its part of the image: 256 for 224 becomes 292 for 256.
            resize = round(resize * size / base.size)
        if self.resize is not None:
            resize = None if self.resize == "none" else int(self.resize)
        # A scale is compared with None, since `or` would take a wrong 0 for nothing passed; mean and
        # std are tuples, which are true even where all values are 0.
        return replace(
            base,
            size=size,
            resize=resize,
            mean=self.mean or base.mean,
            std=self.std or base.std,
            color=self.color or base.color,
            interpolation=self.interpolation or base.interpolation,
            scale=base.scale if self.scale is None else self.scale,
        )


NO_OPTIONS = ContractOptions()
"""No option: the contract in the model's metadata holds."""

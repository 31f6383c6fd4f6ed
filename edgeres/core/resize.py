"""How an image is resized before the crop: what it keeps of its shape, and by whose filter."""

from __future__ import annotations

from dataclasses import dataclass

from edgeres.errors import ConfigError
from edgeres.names import Name


class Interpolation(Name):
    """Filter of the resize, by its name in the library that resizes.

    Pillow's filters antialias where they shrink an image, OpenCV's do not, but for `area`, which
    Pillow does not have.
    """

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"
    AREA = "area"


class ResizeMode(Name):
    """What a resize keeps of an image: its shape and all of it, one of them, or its pixels."""

    NONE = "none"
    """The image stays as it is."""
    SHORTEST = "shortest"
    """The short side gets a length, and the shape is kept: torchvision's `Resize(256)`."""
    SQUASH = "squash"
    """Both sides get a length: torchvision's `Resize((224, 224))`, `cv2.resize`."""
    LETTERBOX = "letterbox"
    """The image keeps its shape inside a frame and is padded on two sides: YOLO, `ImageOps.pad`."""


class ResizeLibrary(Name):
    """Whose resize, conversion to gray and reading of EXIF a network was trained with."""

    PILLOW = "pillow"
    OPENCV = "opencv"


LONGEST_SIDE = 8192
"""Pixels; a square of it has 0.8 GB as an input of a network, and networks take a tenth of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """How an image is resized before the crop."""

    mode: ResizeMode = ResizeMode.NONE
    short: int | None = None
    """Length in pixels that the short side gets, of mode `shortest` alone."""
    height: int | None = None
    """Height in pixels of the result, of the modes `squash` and `letterbox` alone."""
    width: int | None = None
    """Width in pixels of the result, likewise."""
    interpolation: Interpolation = Interpolation.BILINEAR
    library: ResizeLibrary = ResizeLibrary.PILLOW
    pad: int = 0
    """Value of 0 to 255 of the pixels beside the image, of mode `letterbox` alone."""

    def __post_init__(self) -> None:
        short, size = self.mode is ResizeMode.SHORTEST, (self.height, self.width)
        framed = self.mode in {ResizeMode.SQUASH, ResizeMode.LETTERBOX}
        if (self.short is not None) is not short or any(
            (n is not None) is not framed for n in size
        ):
            wanted = {
                ResizeMode.NONE: "no length",
                ResizeMode.SHORTEST: "the length of the short side alone (--resize N)",
            }.get(self.mode, "a height and a width alone (--resize HxW)")
            raise ConfigError(
                f"A resize of mode {self.mode} with short side {self.short}, height {self.height} "
                f"and width {self.width}: it takes {wanted}."
            )
        lengths = [n for n in (self.short, *size) if n is not None]
        if not all(1 <= n <= LONGEST_SIDE for n in lengths):
            raise ConfigError(
                f"The resize is to {self.lengths}; expected 1 to {LONGEST_SIDE} pixels. Check "
                "--resize and --input-size."
            )
        if not 0 <= self.pad <= 255 or (self.pad and self.mode is not ResizeMode.LETTERBOX):
            raise ConfigError(
                f"--pad-value {self.pad} with --resize-mode {self.mode}: expected 0 to 255, the "
                "value of the pixels that a letterbox puts beside the image."
            )
        if self.interpolation is Interpolation.AREA and self.library is ResizeLibrary.PILLOW:
            raise ConfigError(
                "--interpolation area is OpenCV's. Pass --resize-library opencv with it, or one of "
                "Pillow's: nearest, bilinear, bicubic, lanczos."
            )

    @property
    def lengths(self) -> str:
        """The lengths as `--resize` takes them."""
        if self.mode is ResizeMode.NONE:
            return "none"
        return (
            str(self.short) if self.mode is ResizeMode.SHORTEST else f"{self.height}x{self.width}"
        )

    def __str__(self) -> str:
        whose = " of OpenCV" if self.library is ResizeLibrary.OPENCV else ""
        if self.mode is ResizeMode.NONE:
            # Nothing is resized, but OpenCV reads EXIF and makes gray in its own way.
            return f"read as{whose}" if whose else ""
        verb = "resize" if self.mode is ResizeMode.SHORTEST else f"{self.mode} to"
        pad = f" on {self.pad}" if self.mode is ResizeMode.LETTERBOX else ""
        return f"{verb} {self.lengths} {self.interpolation}{whose}{pad}"


def shortest(
    short: int,
    *,
    interpolation: Interpolation = Interpolation.BILINEAR,
    library: ResizeLibrary = ResizeLibrary.PILLOW,
) -> Resize:
    """Returns a resize of the short side to a number of pixels."""
    return Resize(
        mode=ResizeMode.SHORTEST, short=short, interpolation=interpolation, library=library
    )


def squash(
    height: int,
    width: int,
    *,
    interpolation: Interpolation = Interpolation.BILINEAR,
    library: ResizeLibrary = ResizeLibrary.PILLOW,
) -> Resize:
    """Returns a resize of both sides, whatever the image's shape."""
    return Resize(
        mode=ResizeMode.SQUASH,
        height=height,
        width=width,
        interpolation=interpolation,
        library=library,
    )


def letterbox(
    height: int,
    width: int,
    *,
    pad: int = 0,
    interpolation: Interpolation = Interpolation.BILINEAR,
    library: ResizeLibrary = ResizeLibrary.PILLOW,
) -> Resize:
    """Returns a resize into a frame, padded with `pad`."""
    return Resize(
        mode=ResizeMode.LETTERBOX,
        height=height,
        width=width,
        interpolation=interpolation,
        library=library,
        pad=pad,
    )


NO_RESIZE = Resize()
"""The image stays as it is."""

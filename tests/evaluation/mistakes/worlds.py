"""A world of plain colours: images of one colour each, and a network that knows their names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeres.core.contract import PRESETS, Color, Contract
from edgeres.images import Dataset, ImageArray
from edgeres.testing import FakeRunner

RIGHT = PRESETS["cifar-imagenet-norm"]
"""What the network was trained on."""

COLORS = np.array(
    [
        [250, 20, 30], [20, 40, 250], [20, 230, 40], [240, 220, 30], [40, 220, 250],
        [230, 30, 200], [250, 250, 250], [10, 10, 10], [250, 130, 20], [130, 250, 120],
    ]
)  # fmt: skip
"""One for each class; with red and blue swapped four of them are another's."""


@dataclass
class Painter:
    """A network that finds the nearest colour, and counts the images that it was shown."""

    trained_on: Contract = RIGHT
    sure: float = 1e-3
    """How much a squared distance of colours weighs in the logits."""
    shown: int = 0

    def runner(self) -> FakeRunner:
        """Returns a runner of this network."""
        return FakeRunner(logits=self.logits)

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """From images (N, 3, H, W), normalised, to (N, 10): minus the distance to each colour."""
        self.shown += len(images)
        contract = self.trained_on
        values = images.mean(axis=(2, 3)) * contract.std + np.array(contract.mean)
        raw = values / contract.scale
        rgb = raw if contract.color is Color.RGB else raw[:, ::-1]
        distances = ((rgb[:, None] - COLORS) ** 2).sum(axis=2)
        logits: NDArray[np.float32] = (-self.sure * distances).astype(np.float32)
        return logits


def plain_colors(count: int, *, noise: float = 10.0, seed: int = 0) -> Dataset:
    """Returns images of 32 x 32, each of its class's colour, give or take some noise."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % len(COLORS)
    colors = COLORS[labels] + generator.normal(0, noise, (count, 3))
    pixels = np.clip(colors, 0, 255).astype(np.uint8)
    return labelled(np.repeat(pixels, 32 * 32, axis=0).reshape(count, 32, 32, 3), labels)


def framed_colors(count: int, *, margin: int, classes: int = 9) -> Dataset:
    """Returns images of 74 x 74 of some classes, each in a frame of a colour of any class."""
    generator = np.random.default_rng(1)
    labels, frames = (generator.integers(0, most, count) for most in (classes, len(COLORS)))
    pixels = np.empty((count, 74, 74, 3), np.uint8)
    pixels[:] = COLORS[frames][:, None, None]
    inner = slice(margin, -margin)
    pixels[:, inner, inner] = COLORS[labels][:, None, None]
    # A number in a corner of the frame: copies of an image would count once.
    pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = np.arange(count) % 256, np.arange(count) // 256
    return labelled(pixels, labels)


def labelled(pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> Dataset:
    """Returns a data set of these images, (N, H, W, 3), in memory."""
    images = ImageArray(file="colors.npz", pixels=pixels, rows=np.arange(len(pixels)))
    return Dataset(name="colors", path=Path("colors.npz"), images=images, labels=labels)

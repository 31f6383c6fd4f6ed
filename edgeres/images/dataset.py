"""What a data set is: images read one by one, their labels, and subsets of both.

Decoded images are (H, W, 3) uint8 RGB. Nothing here knows what a network wants of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeres.errors import ConfigError, DataError
from edgeres.images.decode import decode


class Images(Protocol):
    """Source of the images of a data set."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Returns the name of the image in messages."""
        ...

    def read(self, index: int) -> NDArray[np.uint8]:
        """Returns one image, (H, W, 3) uint8 RGB.

        Raises:
            DataError: the image cannot be decoded.
        """
        ...

    def take(self, indices: NDArray[np.int64]) -> Images:
        """Returns the images at `indices`, in that order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFiles:
    """Image files below a folder, decoded when they are read."""

    root: Path
    files: tuple[str, ...]
    """Paths relative to `root`, with forward slashes."""

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """Returns the path of the file relative to the folder."""
        return self.files[index]

    def read(self, index: int) -> NDArray[np.uint8]:
        """Returns one image, (H, W, 3) uint8 RGB.

        Raises:
            DataError: the file cannot be decoded.
        """
        return decode(self.root / self.files[index])

    def take(self, indices: NDArray[np.int64]) -> ImageFiles:
        """Returns the files at `indices`, in that order."""
        return replace(self, files=tuple(self.files[i] for i in indices))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageArray:
    """Images of one size in a single array, in memory or mapped from a file."""

    file: str
    """Name of the file that holds the array."""
    pixels: NDArray[np.uint8] = field(repr=False)
    """All images of the file, (N, H, W, 3) RGB; only read."""
    rows: NDArray[np.int64] = field(repr=False)
    """(n,): the rows of `pixels` that the set consists of."""

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        """Returns the file and the row, such as `test.npz[17]`."""
        return f"{self.file}[{self.rows[index]}]"

    def read(self, index: int) -> NDArray[np.uint8]:
        """Returns one image, (H, W, 3) uint8 RGB; only to be read."""
        image: NDArray[np.uint8] = self.pixels[self.rows[index]]
        return image

    def take(self, indices: NDArray[np.int64]) -> ImageArray:
        """Returns the images at `indices`, in that order, without a copy."""
        return replace(self, rows=self.rows[indices])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Images with or without labels."""

    name: str
    path: Path
    images: Images = field(repr=False)
    classes: tuple[str, ...] = ()
    """Names of the classes in order of index; empty where the data does not name them."""
    labels: NDArray[np.int64] | None = field(default=None, repr=False)
    """(N,), index of each image's class, at least 0; None where the images are not labelled."""

    def __len__(self) -> int:
        return len(self.images)

    def image_name(self, index: int) -> str:
        """Returns the name of the image in messages: its file, or its array and row."""
        return self.images.name(index)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Returns one image, (H, W, 3) uint8 RGB; only to be read.

        Raises:
            DataError: the image cannot be decoded.
        """
        return self.images.read(index)


def take(dataset: Dataset, indices: NDArray[np.int64]) -> Dataset:
    """Returns the images and labels at `indices`, in that order."""
    labels = None if dataset.labels is None else dataset.labels[indices]
    return replace(dataset, images=dataset.images.take(indices), labels=labels)


def select(dataset: Dataset, samples: int | None, seed: int) -> Dataset:
    """Returns a seeded subset in ascending order of index.

    It is a systematic sample of the images put in a random order by class, so that each image has
    the same chance, and with labels each class gives its share of `samples`, rounded up or down.
    `samples` of None, or of as many as there are or more, gives all images; `len` of the result is
    the number in use. The subset is the same on every version of numpy.

    Raises:
        ConfigError: `samples` is below 1 or `seed` below 0.

    Source: Madow and Madow 1944, On the theory of systematic sampling.
    """
    if samples is not None and samples < 1:
        raise ConfigError(f"samples is {samples}; expected at least 1 image.")
    if seed < 0:
        raise ConfigError(f"seed is {seed}; expected 0 or a positive number.")
    count = len(dataset)
    if samples is None or samples >= count:
        return dataset
    labels = np.zeros(count, np.int64) if dataset.labels is None else dataset.labels
    names, classes = np.unique(labels, return_inverse=True)
    # numpy keeps the bits of PCG64, and so its doubles, but not what `shuffle` makes of them
    # (NEP 19).
    rng = np.random.Generator(np.random.PCG64(seed))
    class_order = rng.random(len(names))
    # lexsort's last key is the first to sort by: the classes come in random order, and the images
    # of each too.
    order = np.lexsort((rng.random(count), class_order[classes]))
    start = int(rng.random() * count)
    # From a random start every (count / samples)-th is taken, in integers, which round none twice.
    return take(dataset, np.sort(order[(np.arange(samples) * count + start) // samples]))


def check_labels(dataset: Dataset, num_classes: int) -> None:
    """Checks that the labels are indices of a network's `num_classes` classes.

    Raises:
        DataError: there are no labels, a label is outside the classes, or there are fewer or
            more class folders than classes, so that their order gives no index.
    """
    if dataset.labels is None:
        raise DataError(f"{dataset.path} has no labels; accuracy needs one for every image.")
    if dataset.classes and len(dataset.classes) != num_classes:
        background = (
            " Where the network's first class is a background, every index is one higher there."
            if len(dataset.classes) + 1 == num_classes
            else ""
        )
        raise DataError(
            f"{dataset.path} has {len(dataset.classes)} classes, the network {num_classes}. A "
            "class folder's place in sorted order is its index, so there must be one for each "
            f"class of the network. Use a labels.csv (file,class_index) instead.{background}"
        )
    outside = np.flatnonzero(dataset.labels >= num_classes)
    if outside.size:
        first = int(outside[0])
        advice = "Correct the labels or use the network that they belong to."
        if (dataset.labels.min(), dataset.labels.max()) == (1, num_classes):
            # As MATLAB and ILSVRC's own development kit count.
            advice = f"They run from 1 to {num_classes}, as if counted from 1: take 1 off each."
        raise DataError(
            f"{outside.size} of {len(dataset)} labels of {dataset.path} are outside the network's "
            f"{num_classes} classes (first: {dataset.image_name(first)} with "
            f"{dataset.labels[first]}); expected 0 to {num_classes - 1}. {advice}"
        )

"""What a data set is: images read one by one, their labels, and subsets of both.

Decoded images are (H, W, 3) uint8 RGB. Nothing here knows what a network wants of them.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeres.errors import ConfigError, DataError
from edgeres.images.decode import DecodedImage, decode
from edgeres.images.npz import StoredImages
from edgeres.plurals import counted

_LOG = logging.getLogger("edgeres.images")
_NAMES_SHOWN = 5


class Images(Protocol):
    """Source of the images of a data set."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Returns the name of the image in messages."""
        ...

    def read(self, index: int) -> DecodedImage:
        """Returns one image.

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

    def read(self, index: int) -> DecodedImage:
        """Returns one image.

        Raises:
            DataError: the file cannot be decoded.
        """
        return decode(self.root / self.files[index])

    def take(self, indices: NDArray[np.int64]) -> ImageFiles:
        """Returns the files at `indices`, in that order."""
        return replace(self, files=tuple(self.files[i] for i in indices))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageArray:
    """Images of one size in a single array, in memory or in a file."""

    file: str
    """Name of the file that holds the array."""
    pixels: NDArray[np.uint8] | StoredImages = field(repr=False)
    """All images of the file, (N, H, W, 3) RGB; only read."""
    rows: NDArray[np.int64] = field(repr=False)
    """(n,): the rows of `pixels` that the set consists of."""

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        """Returns the file and the row, such as `test.npz[17]`."""
        return f"{self.file}[{self.rows[index]}]"

    def read(self, index: int) -> DecodedImage:
        """Returns one image, which is upright: an array has no EXIF.

        Raises:
            DataError: the file that holds it was changed.
        """
        return DecodedImage(pixels=self.pixels[self.rows[index]])

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
        """Returns one image as stored, (H, W, 3) uint8 RGB; only to be read.

        Raises:
            DataError: the image cannot be decoded.
        """
        return self.images.read(index).pixels


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


def order_classes(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """Returns class folders in the order of a network's classes, where they are named so.

    Names are equal without regard to case, to `_`, `-` and spaces, and to how accents are composed.
    Folders in another order than the classes are matched by name, with a line in the log; with other
    names their place in sorted order stays their index.

    Args:
        dataset: the images; without class folders it is returned as it is.
        names: of the network's classes in order; empty where not known.

    Raises:
        DataError: some folders have names of the network's classes, but by their place they would
            be other ones.
    """
    own = [_comparable(name) for name in names]
    present = [_comparable(name) for name in dataset.classes]
    if len(own) != len(present) or own == present or dataset.labels is None:
        return dataset
    if len(set(own)) == len(own) and sorted(own) == sorted(present):
        index = np.array([own.index(name) for name in present], np.int64)
        _LOG.warning("%s", class_order_note(dataset))
        return replace(dataset, classes=tuple(names), labels=index[dataset.labels])
    # A class may have the name of another one, as ImageNet's two `crane`.
    for place, name in enumerate(present):
        if name in own and own[place] != name:
            unknown = [text for text in dataset.classes if _comparable(text) not in own]
            raise DataError(
                f"The class folder {dataset.classes[place]} of {dataset.path} is number {place} in "
                f"sorted order, and the network's class of that name is number {own.index(name)}; "
                f"no classes of the network have the names {_listed(unknown)}. Name every folder "
                f"as one of {_listed(names)}, or write a labels.csv (file,class_index)."
            )
    return dataset


def class_order_note(dataset: Dataset) -> str:
    """Returns what `order_classes` did, for a warning."""
    return (
        f"The class folders of {dataset.path} have the names of the network's classes, which are "
        "in another order: each was matched by its name, not by its place."
    )


def _comparable(name: str) -> str:
    # macOS decomposes the accents in the names of files.
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", name)).strip().casefold()


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def check_labels(dataset: Dataset, num_classes: int, names: Sequence[str] = ()) -> None:
    """Checks that the labels are indices of a network's `num_classes` classes.

    Args:
        dataset: labelled images.
        num_classes: of the network.
        names: of its classes; empty where not known.

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
        # Where no folder has a class's name, as with ImageNet's synsets, names tell nothing.
        present, own = set(map(_comparable, dataset.classes)), set(map(_comparable, names))
        lacking = [name for name in names if _comparable(name) not in present]
        unknown = [name for name in dataset.classes if _comparable(name) not in own]
        named = (
            f" Classes without a folder: {_listed(lacking)}." if present & own and lacking else ""
        )
        if present & own and unknown:
            named += f" Folders that are no class of the network: {_listed(unknown)}."
        raise DataError(
            f"{dataset.path} has {counted(len(dataset.classes), 'class')}, the network "
            f"{num_classes}. A class folder's place in sorted order is its index, so there must be "
            f"one for each class of the network.{named} Use a labels.csv (file,class_index) "
            f"instead.{background}"
        )
    outside = np.flatnonzero(dataset.labels >= num_classes)
    if outside.size:
        first = int(outside[0])
        advice = "Correct the labels or use the network that they belong to."
        if (dataset.labels.min(), dataset.labels.max()) == (1, num_classes):
            # As MATLAB and ILSVRC's own development kit count.
            advice = f"They run from 1 to {num_classes}, as if counted from 1: take 1 off each."
        raise DataError(
            f"{outside.size} of {counted(len(dataset), 'label')} of {dataset.path} are outside the "
            f"network's {counted(num_classes, 'class')} (first: {dataset.image_name(first)} with "
            f"{dataset.labels[first]}); expected 0 to {num_classes - 1}. {advice}"
        )

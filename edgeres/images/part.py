"""A part of a data set for another machine: which images, with what labels, at what place.

Whoever splits a set has listed it once; the parts carry that list, so that no machine lists again
and finds other images. A path in a part never leads out of the folder that it is read in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np

from edgeres.errors import DataError
from edgeres.files import atomic_write
from edgeres.images.dataset import Dataset, ImageArray, ImageFiles, take
from edgeres.images.npz import load_arrays
from edgeres.plurals import counted
from edgeres.serialization import SCHEMA_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Consecutive images of a data set."""

    kind: ClassVar[str] = "edgeres-part"
    schema_version: ClassVar[int] = SCHEMA_VERSION
    json_keys: ClassVar[tuple[str, ...]] = ("kind", "schema_version", "*")

    first: int
    """Position of the first one in the whole set."""
    files: tuple[str, ...]
    """Paths below the folder of the set; empty for an array."""
    rows: tuple[int, ...]
    """Of the array; empty for files."""
    classes: tuple[str, ...]
    """Of the whole set."""
    labels: tuple[int, ...] | None

    def __post_init__(self) -> None:
        for file in self.files:
            path = PurePosixPath(file)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{file!r:.80} leads out of the data set")
        count = len(self.files) or len(self.rows)
        if self.first < 0 or (self.labels is not None and len(self.labels) != count):
            raise ValueError(
                f"{counted(count, 'image')} from {self.first} do not have a label each"
            )

    def dataset(self, path: Path) -> Dataset:
        """Returns the images of the part.

        Args:
            path: the data set, or as much of it as the part needs.

        Raises:
            DataError: they are not there.
        """
        images: ImageFiles | ImageArray = ImageFiles(root=path, files=self.files)
        if self.rows:
            pixels, _ = load_arrays(path, labelled=False)
            rows = np.asarray(self.rows)
            if rows.min() < 0 or rows.max() >= len(pixels):
                raise DataError(
                    f"{path} has {counted(len(pixels), 'image')}, and a part names others."
                )
            images = ImageArray(file=path.name, pixels=pixels, rows=rows)
        labels = None if self.labels is None else np.asarray(self.labels, np.int64)
        return Dataset(
            name=path.name, path=path, images=images, classes=self.classes, labels=labels
        )


def split(dataset: Dataset, *, unit: int, parts: int) -> Iterator[Part]:
    """Yields a data set in at most so many parts of equal size, each a multiple of `unit` images.

    The last one may be smaller.
    """
    size = unit * -(-len(dataset) // (unit * parts))
    for first in range(0, len(dataset), size):
        some = take(dataset, np.arange(first, min(first + size, len(dataset))))
        images = some.images
        yield Part(
            first=first,
            files=images.files if isinstance(images, ImageFiles) else (),
            rows=tuple(images.rows.tolist()) if isinstance(images, ImageArray) else (),
            classes=dataset.classes,
            labels=None if some.labels is None else tuple(some.labels.tolist()),
        )


def save_rows(dataset: Dataset, path: Path) -> None:
    """Writes images of an array, without labels, as an `.npz` of their own."""
    assert isinstance(dataset.images, ImageArray)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, images=dataset.images.pixels[dataset.images.rows])

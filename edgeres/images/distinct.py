"""Which images of a data set are distinct: pictures that occur twice carry no further evidence.

Images are recognised by `image_hash`, so copies under another name, in another folder or behind
a link are found alike. Intervals and tests assume independent images: forty copies of each would
make an interval more than six times too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeres.errors import DataError
from edgeres.images.dataset import Dataset, take
from edgeres.images.stream import image_hash
from edgeres.plurals import counted


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DistinctImages:
    """The images of N that statistics may rest on."""

    total: int
    """N."""
    distinct: int
    """Different pictures among them, those with contradicting labels included."""
    rows: NDArray[np.int64] = field(repr=False)
    """Positions of the first of each, ascending; without pictures that have two labels."""
    contradicting: tuple[tuple[int, int], ...] = ()
    """For each picture with two labels its first position, and the first with another label."""

    @property
    def all_used(self) -> bool:
        """Whether no image is left out."""
        return len(self.rows) == self.total

    def sentence(self, name_of: Callable[[int], str]) -> str:
        """Returns what is left out and why, for a warning.

        Args:
            name_of: from a position to what the image is called.
        """
        text = (
            f"Of {counted(self.total, 'image')} {self.distinct} are distinct: pixels that occur "
            "again, in copies or behind links, count once, and the figures rest on "
            f"{counted(len(self.rows), 'image')}."
        )
        if self.contradicting:
            first, other = map(name_of, self.contradicting[0])
            text += (
                f" {len(self.contradicting)} of the distinct ones have two labels and are left out "
                f"(first: {first} and {other}): correct the labels."
            )
        return f"{text} Take the copies out of the data."


def distinct_images(
    hashes: Sequence[str], labels: NDArray[np.int64] | None = None
) -> DistinctImages:
    """Returns which of N images to use: the first of equal ones, none where their labels differ.

    Args:
        hashes: one of each image's decoded pixels.
        labels: (N,), class indices; None where there are none.

    Raises:
        DataError: every image occurs again with another label.
    """
    first: dict[str, int] = {}
    contradicting: dict[int, int] = {}
    for row, name in enumerate(hashes):
        original = first.setdefault(name, row)
        if labels is not None and labels[original] != labels[row]:
            # Neither label is known to be the correct one, whichever comes first.
            contradicting.setdefault(original, row)
    rows = [row for row in first.values() if row not in contradicting]
    if hashes and not rows:
        raise DataError(
            f"Each of the {counted(len(first), 'distinct image')} (of {len(hashes)}) occurs again "
            "with another label, so none has a correct answer. Do two class folders hold the same "
            "pictures? Correct the labels."
        )
    return DistinctImages(
        total=len(hashes),
        distinct=len(first),
        rows=np.array(rows, np.int64),
        contradicting=tuple(sorted(contradicting.items())),
    )


def without_copies(dataset: Dataset) -> Dataset:
    """Returns the images that statistics may rest on; every image is decoded once for it.

    Raises:
        DataError: an image cannot be decoded, or each occurs again with another label.
    """
    hashes = [image_hash(dataset.image(row)) for row in range(len(dataset))]
    usable = distinct_images(hashes, dataset.labels)
    return dataset if usable.all_used else take(dataset, usable.rows)

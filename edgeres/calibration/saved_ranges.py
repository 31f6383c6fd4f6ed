"""The distributions of activations on a part of the images, as a file.

Counts are integers, bins double in width and an extreme is one value: what is merged of parts is
what one pass over all images counts, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import ClassVar

import numpy as np

from edgeres.core.contract import Contract
from edgeres.errors import MismatchError
from edgeres.plurals import counted
from edgeres.quantization.thresholds import Distribution, merged
from edgeres.serialization import SCHEMA_VERSION, load_document, save_json


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedDistribution:
    """`Distribution`, its counts as little-endian bytes."""

    counts: bytes
    bin_width: float
    zeros: int
    amax: float

    @property
    def distribution(self) -> Distribution:
        """What was saved."""
        return Distribution(
            np.frombuffer(self.counts, "<i8"), self.bin_width, self.zeros, self.amax
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRanges:
    """What one part of the images came to."""

    kind: ClassVar[str] = "edgeres-ranges"
    schema_version: ClassVar[int] = SCHEMA_VERSION
    json_keys: ClassVar[tuple[str, ...]] = ("kind", "schema_version", "*")

    model_sha256: str
    contract: Contract
    first: int
    """Position of the first image in the whole set."""
    hashes: tuple[str, ...]
    """Of all images of the part, those that a search holds out too."""
    turned: tuple[int, ...]
    """Positions of images that EXIF turns, in the whole set."""
    machine: str
    tensors: Mapping[str, SavedDistribution]
    """Empty where all images are held out."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ObservedRanges:
    """What all images but those held out came to."""

    distributions: Mapping[str, Distribution]
    hashes: tuple[str, ...]
    turned: tuple[int, ...]
    machines: tuple[str, ...]
    """Kinds of machine that ran the network."""


def save_ranges(
    path: Path,
    distributions: Mapping[str, Distribution],
    *,
    model_sha256: str,
    contract: Contract,
    first: int,
    hashes: Sequence[str],
    turned: Sequence[int],
    machine: str,
) -> None:
    """Writes what the part from `first` on came to."""
    saved = SavedRanges(
        model_sha256=model_sha256,
        contract=contract,
        first=first,
        hashes=tuple(hashes),
        turned=tuple(first + index for index in turned),
        machine=machine,
        tensors={
            name: SavedDistribution(
                counts=each.counts.astype("<i8").tobytes(),
                bin_width=float(each.bin_width),
                zeros=each.zeros,
                amax=float(each.amax),
            )
            for name, each in distributions.items()
        },
    )
    save_json(path, saved)


def join_ranges(
    paths: Sequence[Path], *, model_sha256: str, contract: Contract, images: int
) -> ObservedRanges:
    """Returns what all parts together came to.

    Args:
        paths: files of `save_ranges`, in any order.
        model_sha256: of the model that they must be of.
        contract: that the images were prepared by.
        images: that they must cover.

    Raises:
        ArtifactError: a file is damaged.
        MismatchError: they are of another model or contract, or do not cover the images once each.
    """
    remedy = "Run the whole command again."
    parts = [load_document(path, SavedRanges, remedy=remedy) for path in paths]
    parts.sort(key=lambda part: part.first)
    covered = 0
    for part in parts:
        if (part.model_sha256, part.contract) != (model_sha256, contract):
            raise MismatchError(
                f"A part was observed on model {part.model_sha256:.12} with {part.contract}, and "
                f"this is {model_sha256:.12} with {contract}. {remedy}"
            )
        if part.first != covered:
            raise MismatchError(
                f"The parts cover {counted(covered, 'image')} up to one that begins at {part.first}. {remedy}"
            )
        covered += len(part.hashes)
    if covered != images:
        raise MismatchError(f"The parts cover {covered} of {counted(images, 'image')}. {remedy}")
    observed = [
        {name: each.distribution for name, each in part.tensors.items()}
        for part in parts
        if part.tensors
    ]
    return ObservedRanges(
        distributions=reduce(
            lambda first, second: {n: merged(d, second[n]) for n, d in first.items()},
            observed[1:],
            observed[0] if observed else {},
        ),
        hashes=tuple(text for part in parts for text in part.hashes),
        turned=tuple(index for part in parts for index in part.turned),
        machines=tuple(dict.fromkeys(part.machine for part in parts)),
    )

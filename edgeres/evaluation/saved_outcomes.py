"""What both networks predict for a part of the images, as a file; parts join to the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgeres.errors import MismatchError
from edgeres.evaluation.evaluate import Distances, Outcomes, Predictions, joined_outcomes
from edgeres.serialization import SCHEMA_VERSION, load_document, save_json


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedPredictions:
    """`Predictions`, its arrays as little-endian bytes."""

    classes: int
    top1: bytes
    rank: bytes
    confidence: bytes

    @classmethod
    def of(cls, predictions: Predictions) -> SavedPredictions:
        """Returns the form of a file."""
        return cls(
            classes=predictions.classes,
            top1=_bytes(predictions.top1, "<i8"),
            rank=_bytes(predictions.rank, "<i8"),
            confidence=_bytes(predictions.confidence, "<f4"),
        )

    @property
    def predictions(self) -> Predictions:
        """What was saved."""
        return Predictions(
            classes=self.classes,
            top1=np.frombuffer(self.top1, "<i8"),
            rank=np.frombuffer(self.rank, "<i8"),
            confidence=np.frombuffer(self.confidence, "<f4"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedOutcomes:
    """`Outcomes` of a part, and which files they are of."""

    kind: ClassVar[str] = "edgeres-outcomes"
    schema_version: ClassVar[int] = SCHEMA_VERSION
    json_keys: ClassVar[tuple[str, ...]] = ("kind", "schema_version", "*")

    engine_sha256: str
    reference_sha256: str
    first: int
    """Position of the first image in the whole set."""
    labels: bytes
    hashes: tuple[str, ...]
    reference: SavedPredictions
    engine: SavedPredictions
    cosine: bytes
    error: bytes
    signal: bytes
    turned: tuple[int, ...]
    """Positions of images that EXIF turns, in the whole set."""
    machine: str
    """Processor and runtime; results of another kind may differ in the last bits."""

    @property
    def outcomes(self) -> Outcomes:
        """What was saved."""
        labels = np.frombuffer(self.labels, "<i8")
        return Outcomes(
            indices=np.arange(self.first, self.first + len(labels)),
            labels=labels,
            hashes=self.hashes,
            reference=self.reference.predictions,
            engine=self.engine.predictions,
            distances=Distances(
                cosine=np.frombuffer(self.cosine, "<f8"),
                error=np.frombuffer(self.error, "<f8"),
                signal=np.frombuffer(self.signal, "<f8"),
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JoinedOutcomes:
    """The outcomes of all parts."""

    outcomes: Outcomes
    turned: tuple[int, ...]
    machines: tuple[str, ...]
    """Kinds of machine that evaluated them."""


def save_outcomes(
    path: Path,
    outcomes: Outcomes,
    *,
    engine_sha256: str,
    reference_sha256: str,
    first: int,
    turned: Sequence[int],
    machine: str,
) -> None:
    """Writes the outcomes of a part that begins at `first`."""
    distances = outcomes.distances
    saved = SavedOutcomes(
        engine_sha256=engine_sha256,
        reference_sha256=reference_sha256,
        first=first,
        labels=_bytes(outcomes.labels, "<i8"),
        hashes=outcomes.hashes,
        reference=SavedPredictions.of(outcomes.reference),
        engine=SavedPredictions.of(outcomes.engine),
        cosine=_bytes(distances.cosine, "<f8"),
        error=_bytes(distances.error, "<f8"),
        signal=_bytes(distances.signal, "<f8"),
        turned=tuple(first + index for index in turned),
        machine=machine,
    )
    save_json(path, saved)


def join_outcomes(
    paths: Sequence[Path], *, engine_sha256: str, reference_sha256: str, labels: NDArray[np.int64]
) -> JoinedOutcomes:
    """Returns the outcomes of all parts, in the order of the images.

    Args:
        paths: files of `save_outcomes`, in any order.
        engine_sha256: of the engine that they must be of.
        reference_sha256: of the reference.
        labels: (N,), of the images that they must cover.

    Raises:
        ArtifactError: a file is damaged.
        MismatchError: they are of other files, or do not cover the images once each.
    """
    remedy = "Run the whole command again."
    parts = [load_document(path, SavedOutcomes, remedy=remedy) for path in paths]
    parts.sort(key=lambda part: part.first)
    for part in parts:
        if (part.engine_sha256, part.reference_sha256) != (engine_sha256, reference_sha256):
            raise MismatchError(
                f"A part was evaluated with engine {part.engine_sha256:.12} and reference "
                f"{part.reference_sha256:.12}, and these are {engine_sha256:.12} and "
                f"{reference_sha256:.12}. {remedy}"
            )
    outcomes = joined_outcomes([part.outcomes for part in parts])
    if not np.array_equal(outcomes.indices, np.arange(len(labels))) or not np.array_equal(
        outcomes.labels, labels
    ):
        raise MismatchError(
            f"The parts have outcomes of {len(outcomes.indices)} images and do not cover these "
            f"{len(labels)} once each, with their labels. {remedy}"
        )
    return JoinedOutcomes(
        outcomes=outcomes,
        turned=tuple(index for part in parts for index in part.turned),
        machines=tuple(dict.fromkeys(part.machine for part in parts)),
    )


def _bytes(array: NDArray[Any], dtype: str) -> bytes:
    return array.astype(dtype).tobytes()

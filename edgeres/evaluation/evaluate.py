"""Whether a network is right, image by image, for one network or for two on the same images.

Knows runners and labelled batches by their shape alone, and no data set, clock or limit. The
logits of a batch are judged and dropped, so memory grows by a few bytes an image. Among equal
logits the lowest class index is placed first, here and for the top five.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeres.core.verdict import Accuracy
from edgeres.errors import DataError, MismatchError, RunnerError
from edgeres.targets.runner import Runner

TOP5_CLASSES = 6
"""Fewest classes at which the top-5 accuracy says anything: among five, every label is in it."""


class LabelledBatch(Protocol):
    """Images with their labels, as evaluation needs them; one without labels is refused."""

    @property
    def images(self) -> NDArray[np.float32]:
        """(N, 3, H, W), preprocessed as the networks expect."""
        ...

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """(N,), class indices from 0; None where the data has none."""
        ...

    @property
    def indices(self) -> NDArray[np.int64]:
        """(N,), position of each image in its data set."""
        ...

    @property
    def hashes(self) -> tuple[str, ...]:
        """One hash of the decoded pixels per image."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """What one network answered for N labelled images."""

    classes: int
    """Length of the logits."""
    top1: NDArray[np.int64]
    """(N,), class with the highest logit."""
    rank: NDArray[np.int64]
    """(N,), number of classes placed before the label: 0 where the network is right."""
    confidence: NDArray[np.float32]
    """(N,), softmax probability of `top1`, in (0, 1]."""

    @property
    def right(self) -> NDArray[np.bool_]:
        """(N,), whether the highest logit is the label's."""
        return np.equal(self.rank, 0)

    @property
    def in_top5(self) -> NDArray[np.bool_]:
        """(N,), whether the label is among the five highest logits."""
        return self.rank < 5

    @property
    def accuracy(self) -> Accuracy:
        """How often the network was right."""
        return Accuracy(
            samples=len(self.rank),
            correct=int(self.right.sum()),
            correct_top5=int(self.in_top5.sum()) if self.classes >= TOP5_CLASSES else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Distances:
    """How far the engine's logits of N images are from the reference's."""

    cosine: NDArray[np.float64]
    """(N,), cosine of the angle between the two logit vectors."""
    error: NDArray[np.float64]
    """(N,), sum of the squared differences."""
    signal: NDArray[np.float64]
    """(N,), sum of the squared logits of the reference."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcomes:
    """What reference and engine answered for the same N images, in the order they were seen."""

    indices: NDArray[np.int64]
    """(N,), position of each image in its data set."""
    labels: NDArray[np.int64]
    """(N,), class indices."""
    hashes: tuple[str, ...]
    """One hash of the decoded pixels per image."""
    reference: Predictions
    engine: Predictions
    distances: Distances

    @property
    def fingerprint(self) -> str:
        """Hash over the images' hashes and labels in the order seen."""
        told = "".join(self.hashes) + ",".join(map(str, self.labels.tolist()))
        return hashlib.sha256(told.encode("ascii")).hexdigest()

    @property
    def changed(self) -> NDArray[np.bool_]:
        """(N,), whether the two label the image differently."""
        return np.not_equal(self.reference.top1, self.engine.top1)

    @property
    def gained(self) -> NDArray[np.bool_]:
        """(N,), whether only the engine is right."""
        return self.engine.right & ~self.reference.right

    @property
    def lost(self) -> NDArray[np.bool_]:
        """(N,), whether only the reference is right."""
        return self.reference.right & ~self.engine.right


def evaluate(runner: Runner, batches: Iterable[LabelledBatch]) -> Predictions:
    """Returns what one network answers.

    Raises:
        DataError: there are no images, or they have no labels.
        MismatchError: a label lies outside the network's classes.
        RunnerError: inference failed, or a logit is NaN or infinite.
    """
    return _joined([_predictions(_logits(runner, batch), _labels(batch)) for batch in batches])


def evaluate_pair(reference: Runner, engine: Runner, batches: Iterable[LabelledBatch]) -> Outcomes:
    """Returns what both networks answer for the same decoded batches.

    The two alternate in going first, so that neither always finds the machine as the other
    left it.

    Raises:
        DataError: there are no images, or they have no labels.
        MismatchError: the networks differ in classes, or a label lies outside them.
        RunnerError: inference failed, or a logit is NaN or infinite.
    """
    return _joined_outcomes(
        [_outcomes(turn, reference, engine, batch) for turn, batch in enumerate(batches)]
    )


def calibration_overlap(hashes: Iterable[str], calibration_hashes: Iterable[str]) -> int:
    """Returns how many of the images hashed in `hashes` were also used for calibration."""
    known = frozenset(calibration_hashes)
    return sum(name in known for name in hashes)


def _outcomes(turn: int, reference: Runner, engine: Runner, batch: LabelledBatch) -> Outcomes:
    """Returns what both answer for one batch, the engine going first in every odd turn."""
    order = (engine, reference) if turn % 2 else (reference, engine)
    answers = [_logits(runner, batch) for runner in order]
    from_reference, from_engine = answers[::-1] if turn % 2 else answers
    if from_reference.shape != from_engine.shape:
        raise MismatchError(
            f"{reference.name} has {from_reference.shape[1]} classes, {engine.name} has "
            f"{from_engine.shape[1]}; both must tell the same classes apart. Pass as --reference "
            "the model that the engine was built from."
        )
    labels = _labels(batch)
    return Outcomes(
        indices=np.asarray(batch.indices),
        labels=labels,
        hashes=tuple(batch.hashes),
        reference=_predictions(from_reference, labels),
        engine=_predictions(from_engine, labels),
        distances=_distances(from_reference, from_engine),
    )


def _logits(runner: Runner, batch: LabelledBatch) -> NDArray[np.float32]:
    """Infers one batch and refuses logits that nothing can be judged by."""
    labels = _labels(batch)
    logits = runner.infer(batch.images)
    _check_logits(runner.name, logits, batch.indices)
    _check_labels(runner.name, logits.shape[1], labels)
    return logits


def _predictions(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Predictions:
    return Predictions(
        classes=logits.shape[1],
        top1=logits.argmax(axis=1),
        rank=_rank(logits, labels),
        confidence=_highest_softmax(logits),
    )


def _distances(reference: NDArray[np.float32], engine: NDArray[np.float32]) -> Distances:
    """Compares logits in float64; two vectors without length point the same way."""
    first, second = reference.astype(np.float64), engine.astype(np.float64)
    signal = (first**2).sum(axis=1)
    norms = np.sqrt(signal * (second**2).sum(axis=1))
    product = (first * second).sum(axis=1)
    same = np.where((first == second).all(axis=1), 1.0, 0.0)
    return Distances(
        cosine=np.divide(product, norms, out=same, where=norms > 0),
        error=((second - first) ** 2).sum(axis=1),
        signal=signal,
    )


def _labels(batch: LabelledBatch) -> NDArray[np.int64]:
    """Returns the labels of a batch, which must have some."""
    if batch.labels is None:
        raise DataError(
            "The images have no labels, and accuracy needs the class of each. Pass --data with a "
            "folder of class folders, a folder with labels.csv, or an .npz with labels."
        )
    return batch.labels


def _check_logits(name: str, logits: NDArray[np.float32], indices: NDArray[np.int64]) -> None:
    """Refuses logits of another shape than (N, classes), and logits that are no numbers."""
    count = len(indices)
    if logits.ndim != 2 or len(logits) != count:
        raise RunnerError(
            f"{name} returned logits of shape {logits.shape} for {count} images; expected "
            f"({count}, classes). Export the model as a classifier with a dynamic batch."
        )
    broken = ~np.isfinite(logits).all(axis=1)
    if broken.any():
        raise RunnerError(
            f"{name} returned NaN or infinite logits for {broken.sum()} of the {count} images of "
            f"a batch (first: image {indices[broken.argmax()]}). No accuracy can rest on "
            "them: check the weights, or build in a precision of wider range."
        )


def _check_labels(name: str, classes: int, labels: NDArray[np.int64]) -> None:
    """Refuses labels that the network has no logit for."""
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.size:
        raise MismatchError(
            f"{name} has {classes} classes (0 to {classes - 1}), but a label of the data is "
            f"{outside[0]}. Pass --data with the classes that the network was trained on."
        )


def _rank(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts, per image, the classes with a higher logit or an equal one and a lower index."""
    own = np.take_along_axis(logits, labels[:, np.newaxis], axis=1)
    earlier = np.arange(logits.shape[1]) < labels[:, np.newaxis]
    before: NDArray[np.int64] = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
    return before


def _highest_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the softmax probability of each image's highest logit."""
    below = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    highest: NDArray[np.float32] = (1 / np.exp(below).sum(axis=1)).astype(np.float32)
    return highest


def _joined_outcomes(parts: Sequence[Outcomes]) -> Outcomes:
    reference = _joined([part.reference for part in parts])
    return Outcomes(
        indices=_column([part.indices for part in parts]),
        labels=_column([part.labels for part in parts]),
        hashes=tuple(name for part in parts for name in part.hashes),
        reference=reference,
        engine=_joined([part.engine for part in parts]),
        distances=_joined_distances([part.distances for part in parts]),
    )


def _joined_distances(parts: Sequence[Distances]) -> Distances:
    return Distances(
        cosine=_column([part.cosine for part in parts]),
        error=_column([part.error for part in parts]),
        signal=_column([part.signal for part in parts]),
    )


def _joined(parts: Sequence[Predictions]) -> Predictions:
    if not sum(len(part.rank) for part in parts):
        raise DataError(
            "There is no image to judge the network on; at least 1 labelled image is needed. "
            "Check --data."
        )
    return Predictions(
        classes=parts[0].classes,
        top1=_column([part.top1 for part in parts]),
        rank=_column([part.rank for part in parts]),
        confidence=_column([part.confidence for part in parts]),
    )


def _column(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Joins the parts into one array that can no longer be changed."""
    column = np.concatenate(parts)
    column.flags.writeable = False
    return column

"""Predictions, image by image, of one network or of two on the same images.

Knows runners and labelled batches by their shape alone, and no data set, clock or limit. The
logits of a batch are evaluated and dropped, so memory grows by a few bytes an image. Among equal
logits the lowest class index is placed first, here and for the top five.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeres.core.batches import EvaluationBatch
from edgeres.core.verdict import Accuracy
from edgeres.errors import DataError, MismatchError, RunnerError
from edgeres.plurals import counted
from edgeres.targets.runner import Runner

TOP5_CLASSES = 6
"""Fewest classes at which the top-5 accuracy is meaningful: among five, every label is in it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """What one network predicts for N labelled images."""

    classes: int
    """Length of the logits."""
    top1: NDArray[np.int64]
    """(N,), class with the highest logit."""
    rank: NDArray[np.int64]
    """(N,), number of classes placed before the label: 0 where the network is correct."""
    confidence: NDArray[np.float32]
    """(N,), probability of `top1`, in (0, 1]."""

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(N,), whether the highest logit is the label's."""
        return np.equal(self.rank, 0)

    @property
    def in_top5(self) -> NDArray[np.bool_]:
        """(N,), whether the label is among the five highest logits."""
        return self.rank < 5

    @property
    def accuracy(self) -> Accuracy:
        """How often the network is correct."""
        return Accuracy(
            samples=len(self.rank),
            correct=int(self.correct.sum()),
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

    @classmethod
    def between(cls, reference: NDArray[np.float32], engine: NDArray[np.float32]) -> Distances:
        """Returns the distances of logits, (N, classes) each, in float64 against overflow."""
        first, second = reference.astype(np.float64), engine.astype(np.float64)
        signal = (first**2).sum(axis=1)
        norms = np.sqrt(signal * (second**2).sum(axis=1))
        # Two zero vectors have no angle; they are the same, so their cosine is set to 1.
        same = np.where((first == second).all(axis=1), 1.0, 0.0)
        return cls(
            cosine=np.divide((first * second).sum(axis=1), norms, out=same, where=norms > 0),
            error=((second - first) ** 2).sum(axis=1),
            signal=signal,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcomes:
    """Predictions of reference and engine for the same N images, in the order of the batches."""

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
        """Hash over the images' hashes and labels, in their order."""
        # The labels too: the same images with other labels are no basis for a comparison.
        text = "".join(self.hashes) + ",".join(map(str, self.labels.tolist()))
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    @property
    def changed(self) -> NDArray[np.bool_]:
        """(N,), whether the two label the image differently."""
        return np.not_equal(self.reference.top1, self.engine.top1)

    @property
    def newly_correct(self) -> NDArray[np.bool_]:
        """(N,), whether only the engine is correct."""
        return self.engine.correct & ~self.reference.correct

    @property
    def newly_wrong(self) -> NDArray[np.bool_]:
        """(N,), whether only the reference is correct."""
        return self.reference.correct & ~self.engine.correct


def evaluate(
    runner: Runner, batches: Iterable[EvaluationBatch], *, probabilities: bool = False
) -> Predictions:
    """Returns what one network predicts.

    Args:
        runner: the network, open.
        batches: labelled images.
        probabilities: whether the network ends in Softmax or Sigmoid.

    Raises:
        DataError: there are no images, or they have no labels.
        MismatchError: a label lies outside the network's classes.
        RunnerError: inference failed, or a logit is NaN or infinite.
    """
    predictions: Predictions = _joined(
        [_predictions(_logits(runner, batch), _labels(batch), probabilities) for batch in batches]
    )
    return predictions


def evaluate_pair(
    reference: Runner,
    engine: Runner,
    batches: Iterable[EvaluationBatch],
    *,
    engine_batches: Iterable[EvaluationBatch] | None = None,
    probabilities: bool = False,
) -> Outcomes:
    """Returns what both networks predict for the same decoded batches.

    Args:
        reference: the baseline, open.
        engine: what is compared with it, open.
        batches: labelled images.
        engine_batches: the same ones, prepared otherwise for the engine; None: the same batches.
        probabilities: whether both networks end in Softmax or Sigmoid.

    Raises:
        DataError: there are no images, or they have no labels.
        MismatchError: the networks differ in classes, or a label lies outside them.
        RunnerError: inference failed, or a logit is NaN or infinite.
    """
    parts = []
    pairs = (
        ((batch, batch) for batch in batches)
        if engine_batches is None
        else zip(batches, engine_batches, strict=True)
    )
    for number, (batch, own) in enumerate(pairs):
        labels = _labels(batch)
        # They alternate in going first, so that neither always finds the machine as the other
        # left it.
        if number % 2:
            from_engine, from_reference = _logits(engine, own), _logits(reference, batch)
        else:
            from_reference, from_engine = _logits(reference, batch), _logits(engine, own)
        if from_reference.shape != from_engine.shape:
            raise MismatchError(
                f"{reference.name} has {counted(from_reference.shape[1], 'class')}, {engine.name} "
                f"has {from_engine.shape[1]}; both must have the same classes. Pass as --reference "
                "the model that the engine was built from."
            )
        parts.append(
            Outcomes(
                indices=np.asarray(batch.indices),
                labels=labels,
                hashes=tuple(batch.hashes),
                reference=_predictions(from_reference, labels, probabilities),
                engine=_predictions(from_engine, labels, probabilities),
                distances=Distances.between(from_reference, from_engine),
            )
        )
    return joined_outcomes(parts)


def joined_outcomes(parts: Sequence[Outcomes]) -> Outcomes:
    """Returns the outcomes of several batches as one, in their order.

    Raises:
        DataError: there are none.
    """
    outcomes: Outcomes = _joined(parts)
    return outcomes


def take_outcomes(outcomes: Outcomes, rows: NDArray[np.int64]) -> Outcomes:
    """Returns what both networks predict for the images in these rows, in that order."""
    taken: Outcomes = _taken(outcomes, rows)
    return taken


def unseen_rows(hashes: Iterable[str], calibration_hashes: Iterable[str]) -> NDArray[np.int64]:
    """Returns the rows of the images in `hashes` that were not used for calibration."""
    known = frozenset(calibration_hashes)
    return np.array([row for row, name in enumerate(hashes) if name not in known], np.int64)


def _labels(batch: EvaluationBatch) -> NDArray[np.int64]:
    """Returns the labels of a batch, which must have some."""
    if batch.labels is None:
        raise DataError(
            "The images have no labels, and accuracy needs the class of each. Pass --data with a "
            "folder of class folders, a folder with labels.csv, or an .npz with labels."
        )
    return batch.labels


def _logits(runner: Runner, batch: EvaluationBatch) -> NDArray[np.float32]:
    """Infers one batch; refuses logits that are no numbers or that a label lies outside of."""
    # First of all: without labels nothing needs to be inferred.
    labels = _labels(batch)
    logits = runner.infer(batch.images)
    name, count = runner.name, len(batch.indices)
    if logits.ndim != 2 or len(logits) != count:
        raise RunnerError(
            f"{name} returned logits of shape {logits.shape} for {counted(count, 'image')}; "
            f"expected ({count}, classes). Export the model as a classifier with a dynamic batch."
        )
    broken = ~np.isfinite(logits).all(axis=1)
    if broken.any():
        raise RunnerError(
            f"{name} returned NaN or infinite logits for {broken.sum()} of the "
            f"{counted(count, 'image')} of a batch (first: image "
            f"{batch.indices[broken.argmax()]}). No accuracy can rest on them: check the weights, "
            "or build in a precision of wider range."
        )
    classes = logits.shape[1]
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.size:
        raise MismatchError(
            f"{name} has {counted(classes, 'class')} (0 to {classes - 1}), but a label of the data "
            f"is {outside[0]}. Pass --data with the classes that the network was trained on."
        )
    return logits


def _predictions(
    logits: NDArray[np.float32], labels: NDArray[np.int64], probabilities: bool
) -> Predictions:
    own = np.take_along_axis(logits, labels[:, np.newaxis], axis=1)
    # A stable descending sort: an equal logit counts as higher where its class has a lower index.
    earlier = np.arange(logits.shape[1]) < labels[:, np.newaxis]
    highest = logits.max(axis=1, keepdims=True)
    # softmax of the highest logit, 1 / sum(exp(x - max)): in float64, so that it never overflows.
    # Of log-probabilities that is the probability as well: the log-sum that they lack cancels.
    softmax = 1 / np.exp(logits.astype(np.float64) - highest).sum(axis=1)
    # Another softmax of probabilities would make every network look unsure.
    confidence = np.clip(highest[:, 0], 0, 1) if probabilities else softmax
    return Predictions(
        classes=logits.shape[1],
        top1=logits.argmax(axis=1),
        rank=((logits > own) | ((logits == own) & earlier)).sum(axis=1),
        confidence=confidence.astype(np.float32),
    )


def _joined(parts: Sequence[Any]) -> Any:
    """Returns the results of batches as one of the same type, its arrays read-only."""
    if not parts:
        raise DataError(
            "There is no image to evaluate the network on; at least 1 labelled image is needed. "
            "Check --data."
        )
    first: Any = parts[0]
    if is_dataclass(first):
        names = [field.name for field in fields(first)]
        columns = {name: _joined([getattr(part, name) for part in parts]) for name in names}
        kind: Any = type(first)
        return kind(**columns)
    if isinstance(first, np.ndarray):
        column = np.concatenate(parts)
        column.flags.writeable = False
        return column
    # What is no sequence, the number of classes, is the same in every batch.
    return tuple(chain.from_iterable(parts)) if isinstance(first, tuple) else first


def _taken(column: Any, rows: NDArray[np.int64]) -> Any:
    """Returns the rows of results, or of one column of them, its arrays read-only."""
    if is_dataclass(column):
        kind: Any = type(column)
        names = [field.name for field in fields(column)]
        return kind(**{name: _taken(getattr(column, name), rows) for name in names})
    if isinstance(column, np.ndarray):
        taken = column[rows]
        taken.flags.writeable = False
        return taken
    return tuple(column[row] for row in rows) if isinstance(column, tuple) else column

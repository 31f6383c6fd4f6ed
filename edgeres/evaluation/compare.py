"""Accuracy of two networks on the same images: which differ, by how much, and how surely.

Knows no runner, image, clock or limit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgeres.core.verdict import (
    Answer,
    ClassDifference,
    Confidence,
    Flip,
    ImageRecord,
    LogitError,
    PairedAccuracy,
)
from edgeres.evaluation.evaluate import Distances, Outcomes, Predictions
from edgeres.statistics import (
    class_q_values,
    drop_interval,
    expected_calibration_error,
    mcnemar_p,
)


def paired_accuracy(outcomes: Outcomes, name_of: Callable[[int], str] = str) -> PairedAccuracy:
    """Returns the accuracy of both networks, which images changed, and how sure that is.

    Args:
        outcomes: what both answered.
        name_of: from an image's position in the data set to what it is called.
    """
    gained, lost = int(outcomes.gained.sum()), int(outcomes.lost.sum())
    samples = len(outcomes.labels)
    low, high = drop_interval(gained, lost, samples)
    return PairedAccuracy(
        reference=outcomes.reference.accuracy,
        engine=outcomes.engine.accuracy,
        gained=gained,
        lost=lost,
        # One division: a drop of exactly 0.3 pp is then the same float as a limit of 0.3.
        drop_pp=100 * (lost - gained) / samples,
        ci95_pp=(100 * low, 100 * high),
        p_value=mcnemar_p(gained, lost),
        agreement=1 - int(outcomes.changed.sum()) / samples,
        logits=_logit_error(outcomes.distances),
        reference_confidence=_confidence(outcomes.reference),
        engine_confidence=_confidence(outcomes.engine),
        flips=_flips(outcomes, name_of),
        by_class=_by_class(outcomes),
        images=_image_record(outcomes),
    )


def _logit_error(distances: Distances) -> LogitError:
    error, signal = distances.error.sum(), distances.signal.sum()
    return LogitError(
        cosine=float(distances.cosine.mean()),
        lowest_cosine=float(distances.cosine.min()),
        relative_l2=float(np.sqrt(error / signal)) if signal else None,
    )


def _confidence(predictions: Predictions) -> Confidence:
    sure = predictions.confidence
    return Confidence(
        mean=float(sure.mean(dtype=np.float64)),
        ece=expected_calibration_error(sure, predictions.right),
    )


def _flips(outcomes: Outcomes, name_of: Callable[[int], str]) -> tuple[Flip, ...]:
    return tuple(
        Flip(
            index=int(outcomes.indices[row]),
            name=name_of(int(outcomes.indices[row])),
            label=int(outcomes.labels[row]),
            reference=_answer(outcomes.reference, row),
            engine=_answer(outcomes.engine, row),
        )
        for row in np.flatnonzero(outcomes.changed).tolist()
    )


def _answer(predictions: Predictions, row: int) -> Answer:
    return Answer(label=int(predictions.top1[row]), probability=float(predictions.confidence[row]))


def _by_class(outcomes: Outcomes) -> tuple[ClassDifference, ...]:
    """Tests every class that has images, and returns those that gained or lost any."""
    classes = np.unique(outcomes.labels)
    counts = zip(
        *(_count(outcomes.labels[rows], classes) for rows in (outcomes.gained, outcomes.lost)),
        strict=True,
    )
    flips = [(int(gained), int(lost)) for gained, lost in counts]
    samples = _count(outcomes.labels, classes)
    differences = (
        ClassDifference(
            label=int(label), samples=int(size), gained=gained, lost=lost, p_value=p, q_value=q
        )
        for label, size, (gained, lost), (p, q) in zip(
            classes, samples, flips, class_q_values(flips), strict=True
        )
        if gained or lost
    )
    return tuple(sorted(differences, key=lambda found: (found.q_value, found.p_value, found.label)))


def _count(labels: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns how many images of each class there are."""
    counts: NDArray[np.int64] = np.bincount(
        np.searchsorted(classes, labels), minlength=len(classes)
    )
    return counts


def _image_record(outcomes: Outcomes) -> ImageRecord:
    return ImageRecord(
        fingerprint=outcomes.fingerprint,
        reference=_as_digits(outcomes.reference.right),
        engine=_as_digits(outcomes.engine.right),
    )


def _as_digits(right: NDArray[np.bool_]) -> str:
    return "".join(map(str, right.astype(int).tolist()))

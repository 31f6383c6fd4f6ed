"""Accuracy of two networks on the same images: which differ, by how much, and how surely.

Knows no runner, image, clock or limit.
"""

from __future__ import annotations

from collections import Counter
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
from edgeres.evaluation.evaluate import Outcomes, Predictions
from edgeres.statistics import (
    class_q_values,
    drop_interval,
    expected_calibration_error,
    mcnemar_p,
)


def paired_accuracy(outcomes: Outcomes, name_of: Callable[[int], str] = str) -> PairedAccuracy:
    """Returns the accuracy of both networks, which images changed, and how sure that is.

    Args:
        outcomes: predictions of both.
        name_of: from an image's position in the data set to what it is called.
    """
    newly_correct, newly_wrong = (
        int(flips.sum()) for flips in (outcomes.newly_correct, outcomes.newly_wrong)
    )
    samples, distances = len(outcomes.labels), outcomes.distances
    low, high = drop_interval(newly_correct, newly_wrong, samples)
    error, signal = distances.error.sum(), distances.signal.sum()
    return PairedAccuracy(
        reference=outcomes.reference.accuracy,
        engine=outcomes.engine.accuracy,
        gained=newly_correct,
        lost=newly_wrong,
        # One division: a drop of exactly 0.3 pp is then the same float as a limit of 0.3.
        drop_pp=100 * (newly_wrong - newly_correct) / samples,
        ci95_pp=(100 * low, 100 * high),
        p_value=mcnemar_p(newly_correct, newly_wrong),
        agreement=1 - int(outcomes.changed.sum()) / samples,
        logits=LogitError(
            cosine=float(distances.cosine.mean()),
            lowest_cosine=float(distances.cosine.min()),
            relative_l2=float(np.sqrt(error / signal)) if signal else None,
        ),
        reference_confidence=_confidence(outcomes.reference),
        engine_confidence=_confidence(outcomes.engine),
        flips=tuple(
            Flip(
                index=int(outcomes.indices[row]),
                name=name_of(int(outcomes.indices[row])),
                label=int(outcomes.labels[row]),
                reference=_answer(outcomes.reference, row),
                engine=_answer(outcomes.engine, row),
            )
            for row in np.flatnonzero(outcomes.changed).tolist()
        ),
        by_class=_by_class(outcomes),
        images=ImageRecord(
            fingerprint=outcomes.fingerprint,
            reference=_as_digits(outcomes.reference.correct),
            engine=_as_digits(outcomes.engine.correct),
        ),
    )


def _confidence(predictions: Predictions) -> Confidence:
    confidence = predictions.confidence
    return Confidence(
        # float32 would round the sum of many images.
        mean=float(confidence.mean(dtype=np.float64)),
        ece=expected_calibration_error(confidence, predictions.correct),
    )


def _answer(predictions: Predictions, row: int) -> Answer:
    return Answer(label=int(predictions.top1[row]), probability=float(predictions.confidence[row]))


def _by_class(outcomes: Outcomes) -> tuple[ClassDifference, ...]:
    """Tests every class that has images, and returns those with a flip, the surest first."""
    classes, samples = np.unique(outcomes.labels, return_counts=True)
    newly_correct, newly_wrong = (
        Counter(outcomes.labels[rows].tolist())
        for rows in (outcomes.newly_correct, outcomes.newly_wrong)
    )
    flips = [(newly_correct[label], newly_wrong[label]) for label in classes.tolist()]
    # Classes without a flip are tested too: they count in the correction for many tests.
    differences = (
        ClassDifference(
            label=int(label), samples=int(size), gained=better, lost=worse, p_value=p, q_value=q
        )
        for label, size, (better, worse), (p, q) in zip(
            classes, samples, flips, class_q_values(flips), strict=True
        )
        if better or worse
    )
    return tuple(sorted(differences, key=lambda one: (one.q_value, one.p_value, one.label)))


def _as_digits(correct: NDArray[np.bool_]) -> str:
    return "".join(map(str, correct.astype(int).tolist()))

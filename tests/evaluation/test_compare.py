"""The statistics of a paired difference against independent references."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from outcomes import accuracy_of, outcomes, predictions

from edgeres.core.verdict import Accuracy, Answer, Confidence, FlipKind
from edgeres.evaluation.compare import paired_accuracy
from edgeres.evaluation.evaluate import Distances, Predictions
from edgeres.statistics import drop_interval, expected_calibration_error


def test_flips_and_drop_are_counted() -> None:
    """By hand: eight images, three newly wrong, one newly correct, two correct in both."""
    accuracy = paired_accuracy(outcomes([0, 0, 0, 0, 0, 1, 5, 4], [0, 0, 1, 5, 2, 0, 9, 4]))
    assert accuracy.reference == Accuracy(samples=8, correct=5, correct_top5=7)
    assert accuracy.engine == Accuracy(samples=8, correct=3, correct_top5=6)
    assert (accuracy.gained, accuracy.lost, accuracy.drop_pp) == (1, 3, 25.0)
    assert accuracy.p_value == pytest.approx(2 * (1 + 4) / 16)


def test_without_flips_nothing_speaks_against_equality() -> None:
    """The p value is 1 and the interval, in percentage points, is that of no event."""
    accuracy = accuracy_of(0, 0, 500)
    assert (accuracy.p_value, accuracy.drop_pp) == (1.0, 0.0)
    low, high = drop_interval(0, 0, 500)
    assert accuracy.ci95_pp == (100 * low, 100 * high)


def test_every_changed_label_is_kept() -> None:
    """With its name, what both said and how sure they were; a common answer is left out."""
    pair = replace(
        outcomes([0, 1, 1, 0], [1, 0, 1, 0]),
        labels=np.array([3, 4, 5, 6]),
        indices=np.array([10, 11, 12, 13]),
        reference=Predictions(
            classes=10,
            top1=np.array([3, 9, 8, 6]),
            rank=np.array([0, 1, 1, 0]),
            confidence=np.array([0.5, 0.25, 0.75, 1.0], np.float32),
        ),
        engine=Predictions(
            classes=10,
            top1=np.array([2, 4, 7, 6]),
            rank=np.array([1, 0, 1, 0]),
            confidence=np.array([0.125, 1.0, 0.5, 1.0], np.float32),
        ),
    )
    accuracy = paired_accuracy(pair, lambda index: f"{index}.png")
    assert [(f.index, f.name, f.label, f.kind) for f in accuracy.flips] == [
        (10, "10.png", 3, FlipKind.LOST),
        (11, "11.png", 4, FlipKind.GAINED),
        (12, "12.png", 5, FlipKind.OTHER),
    ]
    assert accuracy.flips[0].reference == Answer(label=3, probability=0.5)
    assert accuracy.flips[0].engine == Answer(label=2, probability=0.125)
    assert accuracy.agreement == 0.25
    assert accuracy.images is not None
    assert (accuracy.images.reference, accuracy.images.engine) == ("1001", "0101")


def test_logits_are_compared_over_all_images() -> None:
    """By hand: squared errors of 1 and 3 against squared logits of 16 and 84."""
    distances = Distances(
        cosine=np.array([1.0, 0.5]), error=np.array([1.0, 3.0]), signal=np.array([16.0, 84.0])
    )
    accuracy = paired_accuracy(replace(outcomes([0, 0], [0, 0]), distances=distances)).logits
    assert accuracy is not None
    assert (accuracy.cosine, accuracy.lowest_cosine, accuracy.relative_l2) == (0.75, 0.5, 0.2)
    assert accuracy.sqnr_db == pytest.approx(10 * np.log10(25))


def test_classes_that_changed_are_listed_by_how_sure_that_is() -> None:
    """Three classes: one with eight newly wrong, one untouched, one with one of each."""
    pair = outcomes([0] * 10 + [0] * 5 + [0, 1, 0], [1] * 8 + [0] * 2 + [0] * 5 + [1, 0, 0])
    labels = np.array([7] * 10 + [8] * 5 + [2] * 3)
    accuracy = paired_accuracy(replace(pair, labels=labels)).by_class
    assert [(c.label, c.samples, c.gained, c.lost, c.drop_pp) for c in accuracy] == [
        (7, 10, 0, 8, 80.0),
        (2, 3, 1, 1, 0.0),
    ]
    assert accuracy[0].p_value == pytest.approx(2 / 2**8)
    assert accuracy[0].q_value == pytest.approx(3 * 2 / 2**8)


def test_confidence_is_reported_of_both() -> None:
    """Its mean and how far it is from the accuracy."""
    pair = outcomes([0, 0, 1, 1], [0, 0, 0, 1])
    sure = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    accuracy = paired_accuracy(replace(pair, engine=replace(pair.engine, confidence=sure)))
    assert accuracy.engine_confidence.mean == pytest.approx(0.75)
    assert accuracy.engine_confidence.ece == expected_calibration_error(sure, pair.engine.correct)
    assert accuracy.reference_confidence == Confidence(mean=1.0, ece=0.5)


def test_the_same_images_have_the_same_fingerprint() -> None:
    """Another image, another label or another order gives another one."""
    pair = replace(outcomes([0, 0], [0, 0]), hashes=("aa", "bb"), labels=np.array([1, 2]))
    others = [
        replace(pair, hashes=("aa", "bc")),
        replace(pair, labels=np.array([1, 3])),
        replace(pair, hashes=("bb", "aa"), labels=np.array([2, 1])),
    ]
    prints = {p.fingerprint for p in (pair, *others)}
    assert len(prints) == 4
    assert replace(pair, engine=predictions([1, 1])).fingerprint == pair.fingerprint

"""Accuracy of engine and reference on the same images, the labels that changed, and significance.

Fractions here are in [0, 1] and differences in percentage points; a positive drop means that the
engine is correct less often than the reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log10

from edgeres.names import Name


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Top-1 and top-5 accuracy of one network."""

    # Both networks see the same images, whose number stands once, in PairedAccuracy.
    json_keys = ("top1", "top5", "correct")

    samples: int
    correct: int
    """Images whose highest logit is the label's."""
    correct_top5: int | None
    """Images whose label is among the five highest logits; None below six classes."""

    @property
    def top1(self) -> float:
        """Fraction of images whose highest logit is the label's."""
        return self.correct / self.samples

    @property
    def top5(self) -> float | None:
        """Fraction of images whose label is among the five highest; None below six classes."""
        return None if self.correct_top5 is None else self.correct_top5 / self.samples


class FlipKind(Name):
    """What a changed label did to an image."""

    GAINED = "gained"
    LOST = "lost"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Prediction of a network for one image."""

    label: int
    """Class with the highest logit."""
    probability: float
    """Softmax probability of that class, in (0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """An image that reference and engine label differently."""

    json_keys = ("*", "kind")

    index: int
    """Position in the data set, after sampling."""
    name: str
    """File or row of the image, as messages have it."""
    label: int
    """Class in the data set."""
    reference: Answer
    engine: Answer

    @property
    def kind(self) -> FlipKind:
        """Gained: only the engine is correct; lost: only the reference; other: neither is."""
        if self.engine.label == self.label:
            return FlipKind.GAINED
        return FlipKind.LOST if self.reference.label == self.label else FlipKind.OTHER


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipCounts:
    """How many labels changed, by kind, and which; `images` may be fewer where not all are kept."""

    gained: int
    lost: int
    other: int
    images: tuple[Flip, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitError:
    """Distance of the engine's logits from the reference's."""

    json_keys = ("*", "sqnr_db")

    cosine: float
    """Cosine of the angle between the two logit vectors, mean over the images."""
    lowest_cosine: float
    """That of the worst image."""
    relative_l2: float | None
    """Euclidean norm of all differences over that of all reference logits; None if that is 0."""

    @property
    def sqnr_db(self) -> float | None:
        """Signal to quantization noise ratio in decibels; None where there is no noise at all.

        Source: SQNR = 10 log10(sum r^2 / sum (e - r)^2) = -20 log10(relative_l2).
        """
        # relative_l2 is a ratio of amplitudes, so its decibels are 20 log10, not 10. 0 means no noise
        # and an infinite ratio, which JSON cannot hold.
        return -20 * log10(self.relative_l2) if self.relative_l2 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """How well a network is calibrated: whether its confidence is its accuracy."""

    mean: float
    """Mean softmax probability of the predicted class."""
    ece: float
    """Expected calibration error: gap between confidence and accuracy, in [0, 1].

    Source: Guo et al. 2017, On calibration of modern neural networks, 15 bins of equal width.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassDifference:
    """How the engine differs from the reference on the images of one class."""

    json_keys = ("*", "drop_pp")

    label: int
    samples: int
    gained: int
    lost: int
    p_value: float
    """Exact McNemar test on this class alone."""
    q_value: float
    """The same, corrected for multiple testing over all classes.

    Source: Benjamini and Hochberg 1995, the false discovery rate.
    """

    @property
    def drop_pp(self) -> float:
        """Drop of the accuracy on this class, in percentage points."""
        return 100 * (self.lost - self.gained) / self.samples


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """Which images were classified correctly, so that a later run can be compared image by image."""

    fingerprint: str
    """Hash over the images' hashes and labels in the order evaluated."""
    reference: str
    """One character an image: `1` where the reference is correct, `0` where it is not."""
    engine: str
    """The same of the engine."""

    def __post_init__(self) -> None:
        if len(self.reference) != len(self.engine) or set(self.reference + self.engine) - {*"01"}:
            raise ValueError("records of the images are of unequal length, or not of 0 and 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedAccuracy:
    """Reference and engine on the same images, with the significance of their difference."""

    json_keys = (
        "samples",
        "reference",
        "engine",
        "drop_pp",
        "ci95_pp",
        "flips=flip_counts",
        "p_value",
        "agreement",
        "logits",
        "confidence",
        "by_class",
        "images",
    )

    reference: Accuracy
    engine: Accuracy
    gained: int
    """Images that only the engine classifies correctly."""
    lost: int
    """Images that only the reference classifies correctly."""
    drop_pp: float
    """Top-1 of the reference minus top-1 of the engine, in percentage points."""
    ci95_pp: tuple[float, float]
    """95 % interval of `drop_pp`."""
    p_value: float
    """Exact McNemar test of equal accuracy."""
    agreement: float
    """Fraction of images that both label alike, correct or wrong."""
    logits: LogitError
    reference_confidence: Confidence
    engine_confidence: Confidence
    flips: tuple[Flip, ...] = ()
    """Every image that the two label differently, in the order evaluated."""
    by_class: tuple[ClassDifference, ...] = ()
    """Classes with a newly wrong or newly correct image, the smallest q value first."""
    images: ImageRecord

    @property
    def samples(self) -> int:
        """Images that both networks classified."""
        return self.engine.samples

    @property
    def flip_counts(self) -> FlipCounts:
        """The flips with how many there are of each kind."""
        # gained and lost are counted over all images, `other` over the recorded flips: neither network
        # is correct there, so the paired statistics do not know them.
        other = sum(flip.kind is FlipKind.OTHER for flip in self.flips)
        return FlipCounts(gained=self.gained, lost=self.lost, other=other, images=self.flips)

    @property
    def confidence(self) -> Mapping[str, Confidence]:
        """Confidence of both networks."""
        return {"reference": self.reference_confidence, "engine": self.engine_confidence}

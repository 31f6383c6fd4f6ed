"""How often networks were right, which images they changed their mind on, and how sure that is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import log10
from typing import Any

from edgeres.names import Name


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How often one network was right."""

    samples: int
    correct: int
    """Images whose highest logit is the label's."""
    correct_top5: int | None
    """Images whose label is among the five highest logits; None below six classes."""

    @property
    def top1(self) -> float:
        """Fraction of images that are right."""
        return self.correct / self.samples

    @property
    def top5(self) -> float | None:
        """Fraction of images whose label is among the five highest; None below six classes."""
        return None if self.correct_top5 is None else self.correct_top5 / self.samples

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {"top1": self.top1, "top5": self.top5, "correct": self.correct}


class FlipKind(Name):
    """What a changed label did to an image."""

    GAINED = "gained"
    LOST = "lost"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a network says of one image."""

    label: int
    """Class with the highest logit."""
    probability: float
    """Softmax probability of that class, in (0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """An image that reference and engine label differently."""

    index: int
    """Position in the data set that was judged, after the draw."""
    name: str
    """File or row, as messages call the image."""
    label: int
    """Class that is right."""
    reference: Answer
    engine: Answer

    @property
    def kind(self) -> FlipKind:
        """Gained: only the engine is right; lost: only the reference; other: neither is."""
        if self.engine.label == self.label:
            return FlipKind.GAINED
        return FlipKind.LOST if self.reference.label == self.label else FlipKind.OTHER

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {**asdict(self), "kind": self.kind.value}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitError:
    """How far the engine's logits are from the reference's."""

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
        return -20 * log10(self.relative_l2) if self.relative_l2 else None

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {**asdict(self), "sqnr_db": self.sqnr_db}


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """Whether a network is as often right as it is sure."""

    mean: float
    """Mean softmax probability of the class chosen."""
    ece: float
    """Expected calibration error: gap between confidence and accuracy, in [0, 1].

    Source: Guo et al. 2017, On calibration of modern neural networks, 15 bins of equal width.
    """

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassDifference:
    """How the engine differs from the reference on the images of one class."""

    label: int
    samples: int
    gained: int
    lost: int
    p_value: float
    """Exact McNemar test on this class alone."""
    q_value: float
    """The same after correction for looking at every class.

    Source: Benjamini and Hochberg 1995, the false discovery rate.
    """

    @property
    def drop_pp(self) -> float:
        """Drop of the accuracy on this class, in percentage points."""
        return 100 * (self.lost - self.gained) / self.samples

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {**asdict(self), "drop_pp": self.drop_pp}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """Which images were right, so that a later run can be compared image by image."""

    fingerprint: str
    """Hash over the images' hashes and labels in the order judged."""
    reference: str
    """One character an image: `1` where the reference is right, `0` where it is not."""
    engine: str
    """The same of the engine."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedAccuracy:
    """Reference and engine on the same images, and how sure their difference is."""

    reference: Accuracy
    engine: Accuracy
    gained: int
    """Images that only the engine has right."""
    lost: int
    """Images that only the reference has right."""
    drop_pp: float
    """Top-1 of the reference minus top-1 of the engine, in percentage points."""
    ci95_pp: tuple[float, float]
    """95 % interval of `drop_pp`."""
    p_value: float
    """Exact McNemar test of the two being right equally often."""
    agreement: float | None = None
    """Fraction of images that both label alike, right or wrong; None where it was not looked at."""
    logits: LogitError | None = None
    reference_confidence: Confidence | None = None
    engine_confidence: Confidence | None = None
    flips: tuple[Flip, ...] = ()
    """Every image that the two label differently, in the order judged."""
    by_class: tuple[ClassDifference, ...] = ()
    """Classes with a gained or lost image, the smallest q value first."""
    images: ImageRecord | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "samples": self.engine.samples,
            "reference": self.reference.to_dict(),
            "engine": self.engine.to_dict(),
            "drop_pp": self.drop_pp,
            "ci95_pp": list(self.ci95_pp),
            "flips": self._flips(),
            "p_value": self.p_value,
            "agreement": self.agreement,
            "logits": self.logits and self.logits.to_dict(),
            "confidence": {
                "reference": self.reference_confidence and self.reference_confidence.to_dict(),
                "engine": self.engine_confidence and self.engine_confidence.to_dict(),
            },
            "by_class": [difference.to_dict() for difference in self.by_class],
            "images": self.images and self.images.to_dict(),
        }

    def _flips(self) -> dict[str, Any]:
        other = sum(flip.kind is FlipKind.OTHER for flip in self.flips)
        return {
            "gained": self.gained,
            "lost": self.lost,
            "other": other,
            "images": [flip.to_dict() for flip in self.flips],
        }

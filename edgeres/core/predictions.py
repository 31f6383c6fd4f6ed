"""What an engine predicts for images that have no labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgeres.serialization import SCHEMA_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One class that an engine ranks among the highest for an image."""

    index: int
    """Of the class among the outputs."""
    name: str | None
    """Of the class; None where the engine carries no names."""
    probability: float
    """Softmax of the logits, or the output itself where the network ends in probabilities."""
    logit: float | None
    """The output itself; None where the network ends in probabilities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePrediction:
    """The classes that an engine ranks highest for an image, the highest first."""

    image: str
    top: tuple[Prediction, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedImage:
    """An image that nothing was predicted for."""

    image: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionRun:
    """What an engine predicts for the images of a command."""

    kind: ClassVar[str] = "edgeres-predictions"
    schema_version: ClassVar[int] = SCHEMA_VERSION
    json_keys = ("schema_version", "kind", "*")

    engine: str
    predictions: tuple[ImagePrediction, ...]
    failed: tuple[FailedImage, ...]

    @property
    def exit_code(self) -> int:
        """1 where an image failed, else 0."""
        return 1 if self.failed else 0

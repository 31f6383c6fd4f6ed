"""What an engine predicts for images that have no labels, and the files of such a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgeres.core.contract_options import NO_OPTIONS, ContractOptions
from edgeres.errors import ConfigError
from edgeres.serialization import SCHEMA_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictInputs:
    """An engine, the images to classify, and what describes an engine that carries nothing."""

    engine: Path
    images: tuple[str, ...]
    """Files, folders and patterns such as `photos/*.jpg`."""
    top: int = 5
    """Classes for each image."""
    reference: Path | None = None
    """ONNX model or engine that lends its preprocessing and class names."""
    contract: ContractOptions = NO_OPTIONS
    """Preprocessing of an engine that carries none."""
    trust: bool = False
    """Run a plan that has no manifest."""
    csv: Path | None = None
    """Where the predictions are written as CSV; None: nowhere."""

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ConfigError(f"--top is {self.top}; expected at least 1 class.")


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

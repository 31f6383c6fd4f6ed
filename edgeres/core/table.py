"""A calibration table: ranges and thresholds of a network's activations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgeres.core.contract import Contract
from edgeres.core.methods import Method, WeightMethod
from edgeres.core.recovery import Recovery
from edgeres.core.tuning import Choice, Sensitivity
from edgeres.errors import ArtifactError
from edgeres.plurals import counted
from edgeres.serialization import SCHEMA_VERSION, json_text, load_document, save_json

FEW_CALIBRATION_IMAGES = 64
"""A calibration on fewer distinct images has a warning."""

LARGEST_FLOAT32 = 2.0**128 - 2.0**104
"""Source: IEEE 754, binary32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Amax by number of levels, for one tensor and one method."""

    s8: float
    """For the signed grid of 127 steps on each side of zero; scale = s8 / 127."""
    u8: float | None = None
    """For the unsigned grid of 255 steps; scale = u8 / 255. None for a tensor with a sign."""
    e4m3: float | None = None
    """For FP8; scale = e4m3 / 448. None in a table of an earlier edgeres."""

    def scaled(self, factor: float) -> Threshold:
        """Returns the threshold of values that are `factor` times as large."""
        return Threshold(
            s8=self.s8 * factor,
            u8=None if self.u8 is None else self.u8 * factor,
            e4m3=None if self.e4m3 is None else self.e4m3 * factor,
        )

    def __post_init__(self) -> None:
        for amax in (self.s8, self.u8, self.e4m3):
            # The comparison is false for NaN. A scale beyond float32 would become infinite in ONNX.
            if amax is not None and not 0 <= amax <= LARGEST_FLOAT32:
                raise ValueError(f"threshold {amax}, expected 0 to {LARGEST_FLOAT32:.5g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRange:
    """Range of one activation over the calibration images."""

    amax: float
    """Largest absolute value over all images, exact; of an imported table the threshold."""
    signed: bool
    """Whether the network can make it negative: False behind a ReLU."""
    thresholds: Mapping[Method, Threshold]
    """Empty for a tensor that stays float on every target, and that FP16 has to hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataLineage:
    """The images that a table was calibrated on."""

    path: str
    fingerprint: str
    """Hash over the images' hashes in the order used."""
    image_hashes: tuple[str, ...]
    """64-bit hash of each image's decoded pixels, to recognise it among validation images."""

    @classmethod
    def of(cls, path: str, image_hashes: Iterable[str]) -> DataLineage:
        """Returns the lineage of images given by their hashes, in the order used."""
        hashes = tuple(image_hashes)
        fingerprint = hashlib.sha256("".join(hashes).encode("ascii")).hexdigest()
        return cls(path=path, fingerprint=fingerprint, image_hashes=hashes)


def few_images_note(distinct: int) -> str:
    """Returns what a calibration on so few distinct images risks, for a warning."""
    return (
        f"Calibration used {counted(distinct, 'distinct image')}, fewer than "
        f"{FEW_CALIBRATION_IMAGES}: the ranges of activations are those of these few, other images "
        "may lie outside and are clipped, and another choice of images would give another "
        f"accuracy. Calibrate on at least {FEW_CALIBRATION_IMAGES}, better some hundred, images of "
        "all classes."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationTable:
    """Thresholds of every activation by every method, and where they come from."""

    kind: ClassVar[str] = "edgeres-calibration-table"
    schema_version: ClassVar[int] = SCHEMA_VERSION
    # In the order of the fields: the file's hash stands in the manifests of engines.
    json_keys = ("schema_version", "kind", "*")

    model_sha256: str
    data: DataLineage
    contract: Contract
    method: Method
    percentile: float
    samples: int
    """Images; 0 where the thresholds come from TensorRT's calibration cache."""
    seed: int
    edgeres_version: str
    weight_method: WeightMethod = WeightMethod.MAX
    """How the scales of weights are chosen, whatever the method of the activations."""
    tensors: Mapping[str, TensorRange]
    choices: tuple[Choice, ...] = ()
    """How method auto came to its thresholds, for each lowering; empty without it."""
    sensitivity: Sensitivity | None = None
    """What each block and layer does to the logits; None unless it was requested."""
    recovery: Recovery | None = None
    """Weights and biases to quantize in the place of the model's; None: the model's own."""

    def threshold(self, tensor: str, method: Method | None = None) -> Threshold:
        """Returns the threshold of a tensor by the table's own method or another.

        Raises:
            ArtifactError: the table does not have that tensor, or not by that method.
        """
        if tensor not in self.tensors:
            raise ArtifactError(
                f"The calibration table has no tensor '{tensor}' among its {len(self.tensors)}. "
                "Another version of edgeres wrote it: run calibrate again."
            )
        thresholds, wanted = self.tensors[tensor].thresholds, method or self.method
        if wanted not in thresholds:
            raise ArtifactError(
                f"The calibration table has no {wanted} threshold of '{tensor}'; it has "
                f"{', '.join(thresholds)}. Build with one of these methods, or run calibrate again."
            )
        return thresholds[wanted]

    @property
    def is_imported(self) -> bool:
        """Whether its thresholds come from TensorRT's cache.

        They are then those of the signed grid alone, perhaps not of every tensor, and the largest
        values are not known.
        """
        return self.samples == 0

    @property
    def sha256(self) -> str:
        """Hash of the file that `save_table` writes of this table."""
        # Of the text, so that a table that was never saved has the hash of its file.
        return hashlib.sha256(json_text(self).encode()).hexdigest()


def save_table(path: Path, table: CalibrationTable) -> None:
    """Writes a calibration table."""
    save_json(path, table)


def load_table(path: Path) -> CalibrationTable:
    """Reads a calibration table.

    Raises:
        ArtifactError: the file is unreadable or no calibration table.
    """
    return load_document(path, CalibrationTable, remedy="Run calibrate again.")

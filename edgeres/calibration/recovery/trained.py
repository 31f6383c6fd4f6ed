"""What recovery starts from: the trained network, its images, and how good each lowering is without.

Some of the images are fitted, the others show what a fit is worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeres.calibration.calibrate import has_few_classes
from edgeres.calibration.quality import LogitEvaluator
from edgeres.calibration.recovery.gains import Qualities
from edgeres.core.table import CalibrationTable
from edgeres.onnx_file import LoadedModel
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.lowering import Lowering
from edgeres.quantization.placement import Placement
from edgeres.targets.base import simulated_target

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How many images recovery takes, and how many of them it does not fit but evaluates."""

    images: int
    every: int
    """One image in so many is held out, from the last on."""
    few: int
    """So many of the fitted images show whether equalization pays, and the means of the biases of
    the CPU and of FP8; a rounding needs all."""


_MANY_CLASSES = Split(images=320, every=5, few=64)
"""ResNet-50's are 184 MiB of memory."""

_FEW_CLASSES = Split(images=512, every=2, few=256)
"""As many are fitted. Of ten logits 64 images show no gain of less than 0.6 dB, 256 of 0.3."""

_BATCH = 8


def split_of(model: LoadedModel) -> Split:
    """Returns how many images recovery of a model takes."""
    return _FEW_CLASSES if has_few_classes(model) else _MANY_CLASSES


@dataclass(frozen=True, slots=True, eq=False)
class TrainedNetwork:
    """The trained network and the images, of which those at the end are held out."""

    graph: Graph
    placement: Placement
    """TensorRT's of INT8."""
    images: Array
    split: Split
    fitted: int
    """How many images to fit on, from the first."""
    evaluator: LogitEvaluator
    """Of the images behind them."""
    lowerings: tuple[Lowering, ...]
    """Those that are corrected."""

    @classmethod
    def of(
        cls, model: onnx.ModelProto, images: Array, split: Split, lowerings: tuple[Lowering, ...]
    ) -> TrainedNetwork:
        """Returns the trained network with its images.

        Args:
            model: the FP32 network.
            images: (N, 3, H, W), preprocessed.
            split: which of them are held out.
            lowerings: what is corrected.
        """
        graph, fitted = view(model), len(images) - len(images) // split.every
        evaluator = LogitEvaluator.of(model, graph, in_batches(images[fitted:]))
        placement = simulated_target().lowering().place(graph)
        return cls(graph, placement, images, split, fitted, evaluator, lowerings)

    @property
    def few(self) -> int:
        """How many of the fitted images show a mean or a peak."""
        return min(self.fitted, self.split.few)

    @property
    def replayed(self) -> Array:
        """The images that are fitted, and a quarter of the others to see each layer's error."""
        return self.images[: self.fitted + max(1, self.evaluator.images // 4)]

    @property
    def few_replayed(self) -> Array:
        """The last few of the images that are fitted, and the same others."""
        return self.replayed[self.fitted - self.few :]

    def qualities(
        self, table: CalibrationTable, graph: Graph | None = None
    ) -> dict[str, NDArray[np.float64]]:
        """Returns the quality of each image's logits by each lowering of a table.

        Args:
            table: thresholds, and a recovery if it has one.
            graph: what is lowered; None: the trained network.
        """
        lowered = graph or self.graph
        return {
            lowering.name: self.evaluator.qualities(lowering, lowered, table, table.method)
            for lowering in self.lowerings
        }


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """What weights are rounded and biases corrected of."""

    table: CalibrationTable
    equalization: Mapping[str, tuple[float, ...]]
    """Factors of activations, whose ranges the table has."""
    qualities: Qualities
    """Of each image's logits, (images,), by lowering."""


def in_batches(images: Array) -> list[Array]:
    """Returns the images, (N, 3, H, W), a few at a time."""
    return [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]

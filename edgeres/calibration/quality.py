"""The quality of lowered networks: the noise of their logits on images held out of the ranges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from scipy.special import stdtrit

from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.core.table import CalibrationTable
from edgeres.quantization.graph import Graph
from edgeres.quantization.lowering import Lowering
from edgeres.session import open_session, run_session
from edgeres.targets.base import cpu_target

NOISELESS_DB = 150.0
"""Quality of an image whose logits have no error, about the precision of float32; its negative
where they are NaN or infinite."""

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class LogitEvaluator:
    """Images, and the FP32 network's logits on them as the reference of every lowering."""

    batches: tuple[NDArray[np.float32], ...]
    """Each (N, 3, H, W)."""
    logits: NDArray[np.float32]
    """(images, classes), of the FP32 network."""

    @classmethod
    def of(
        cls, model: onnx.ModelProto, graph: Graph, batches: Sequence[NDArray[np.float32]]
    ) -> LogitEvaluator:
        """Returns the evaluator of an FP32 model's lowerings.

        Args:
            model: the FP32 network.
            graph: its structure.
            batches: images that its ranges do not come from, each batch (N, 3, H, W).
        """
        logits = _logits(model.SerializeToString(), graph, batches)
        return cls(tuple(batches), logits)

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.logits)

    def quality(
        self, lowering: Lowering, graph: Graph, table: CalibrationTable, method: Method
    ) -> float:
        """Returns the signal-to-noise ratio of the lowered network's logits in dB.

        Raises:
            ArtifactError: the table lacks a tensor.
            RunnerError: ONNX Runtime refused the network.
        """
        return float(self.qualities(lowering, graph, table, method).mean())

    def qualities(
        self, lowering: Lowering, graph: Graph, table: CalibrationTable, method: Method
    ) -> NDArray[np.float64]:
        """Returns the signal-to-noise ratio of each image's logits in dB, (images,)."""
        return sqnr_by_image(self.logits, self.lowered_logits(lowering, graph, table, method))

    def lowered_logits(
        self, lowering: Lowering, graph: Graph, table: CalibrationTable, method: Method
    ) -> NDArray[np.float32]:
        """Returns the lowered network's logits, (images, classes)."""
        model = computable(lowering, graph, table, method).SerializeToString()
        return _logits(model, graph, self.batches, integer=lowering.precision is not Precision.FP8)

    def qualities_in_float(self, model: onnx.ModelProto, graph: Graph) -> NDArray[np.float64]:
        """Returns the quality of each image, (images,), of a network that no kernel is to round."""
        logits = _logits(model.SerializeToString(), graph, self.batches, integer=False)
        return sqnr_by_image(self.logits, logits)


def computable(
    lowering: Lowering, graph: Graph, table: CalibrationTable, method: Method
) -> onnx.ModelProto:
    """Returns the lowered network on integer kernels of the CPU, whichever target it is for.

    FP8 has no kernels there, and stays in floats.

    Raises:
        ArtifactError: the table lacks a tensor.
    """
    model = lowering.lower(graph, table, method)
    if lowering.has_cpu_kernels or lowering.precision is Precision.FP8:
        return model
    return cpu_target().simulated(model)


def is_gain(before: NDArray[np.float64], after: NDArray[np.float64]) -> bool:
    """Whether the mean quality rises by more than chance, images being a sample of many.

    A one-sided paired t test at 95 %. With ten classes an image's quality is known to 3 dB only,
    whatever its error is like: 64 images do not show a gain of less than half a decibel.

    Args:
        before: (images,), from `sqnr_by_image`.
        after: the same images.
    """
    gains = after - before
    error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.inf
    return bool(gains.mean() > sure_sigmas(len(gains)) * error)


def sure_sigmas(images: int) -> float:
    """Returns how many standard errors a mean of so many images lies at most from the mean of all.

    On one side, at 95 %. Source: Student's t distribution.
    """
    return float(stdtrit(max(images - 1, 1), _CONFIDENCE))


def sqnr_db(reference: NDArray[np.float32], quantized: NDArray[np.float32]) -> float:
    """Returns the signal-to-quantization-noise ratio of logits in dB, the mean over images.

    The mean of decibels, not of powers: among real images one in a hundred has activations so
    large that its clipping alone would decide, and it is one image's label all the same.

    Args:
        reference: (N, classes).
        quantized: the same shape.
    """
    return float(sqnr_by_image(reference, quantized).mean())


def sqnr_by_image(
    reference: NDArray[np.float32], quantized: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Returns the signal-to-quantization-noise ratio of each image's logits in dB, (N,).

    Args:
        reference: (N, classes); each row is centred first.
        quantized: the same shape; a row with NaN or infinity counts as the worst.
    """
    signal = _centred(reference)
    with np.errstate(invalid="ignore", divide="ignore"):
        noise = np.square(signal - _centred(quantized)).sum(axis=1)
        ratios = 10 * np.log10(np.square(signal).sum(axis=1) / noise)
    # The division gave infinity where there is no noise, NaN where a logit is broken.
    ratios[noise == 0] = NOISELESS_DB
    ratios[~np.isfinite(noise)] = -NOISELESS_DB
    limited: NDArray[np.float64] = ratios.clip(-NOISELESS_DB, NOISELESS_DB)
    return limited


def _centred(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    # A constant added to all logits of an image changes no label and no probability.
    doubles = logits.astype(np.float64)
    centred: NDArray[np.float64] = doubles - doubles.mean(axis=1, keepdims=True)
    return centred


def _logits(
    model: bytes,
    graph: Graph,
    batches: Iterable[NDArray[np.float32]],
    *,
    integer: bool = True,
) -> NDArray[np.float32]:
    session = open_session(model, integer=integer)
    outputs = [graph.output]
    return np.concatenate([run_session(session, outputs, {graph.input: b})[0] for b in batches])

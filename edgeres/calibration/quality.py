"""Judges a lowering by its logits on images that were held out of the ranges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeres.core.methods import Method
from edgeres.core.table import CalibrationTable
from edgeres.quantization.graph import Graph
from edgeres.quantization.lowering import Lowering
from edgeres.session import open_session, run_session

NOISELESS_DB = 150.0
"""Quality of an image whose logits have no error, about the precision of float32; its negative
where they are NaN or infinite."""


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """Held-out images and what the FP32 network says of them."""

    batches: tuple[NDArray[np.float32], ...]
    """Each (N, 3, H, W)."""
    logits: NDArray[np.float32]
    """(images, classes), of the FP32 network."""

    @property
    def images(self) -> int:
        """Number of held-out images."""
        return len(self.logits)

    def quality(
        self, lowering: Lowering, graph: Graph, table: CalibrationTable, method: Method
    ) -> float:
        """Returns the signal-to-noise ratio of the lowered network's logits in dB.

        Raises:
            ArtifactError: the table lacks a tensor.
            RunnerError: ONNX Runtime refused the network.
        """
        return sqnr_db(self.logits, self.lowered_logits(lowering, graph, table, method))

    def lowered_logits(
        self, lowering: Lowering, graph: Graph, table: CalibrationTable, method: Method
    ) -> NDArray[np.float32]:
        """Returns the lowered network's logits, (images, classes)."""
        model = lowering.lower(graph, table, method).SerializeToString()
        return _logits(model, graph, self.batches, integer=lowering.has_cpu_kernels)


def judge(model: bytes, graph: Graph, batches: Sequence[NDArray[np.float32]]) -> Judge:
    """Returns the judge of lowerings of an FP32 model.

    Args:
        model: the serialised FP32 network.
        graph: its structure.
        batches: held-out images, each batch (N, 3, H, W).
    """
    return Judge(tuple(batches), _logits(model, graph, batches, integer=True))


def sqnr_db(reference: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Returns the signal-to-quantization-noise ratio of logits in dB, the mean over images.

    The mean of decibels, not of powers: among real images one in a hundred has activations so
    large that its clipping alone would decide, and it is one image's label all the same.

    Args:
        reference: (N, classes); each row is centred first.
        found: the same shape; a row with NaN or infinity counts as the worst.
    """
    signal = _centred(reference)
    with np.errstate(invalid="ignore", divide="ignore"):
        noise = np.square(signal - _centred(found)).sum(axis=1)
        ratios = 10 * np.log10(np.square(signal).sum(axis=1) / noise)
    ratios[noise == 0] = NOISELESS_DB
    ratios[~np.isfinite(noise)] = -NOISELESS_DB
    return float(ratios.clip(-NOISELESS_DB, NOISELESS_DB).mean())


def _centred(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    centred: NDArray[np.float64] = wide - wide.mean(axis=1, keepdims=True)
    return centred


def _logits(
    model: bytes, graph: Graph, batches: Iterable[NDArray[np.float32]], *, integer: bool
) -> NDArray[np.float32]:
    session = open_session(model, integer=integer)
    wanted = [graph.output]
    return np.concatenate([run_session(session, wanted, {graph.input: b})[0] for b in batches])

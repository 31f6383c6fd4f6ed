"""Calibration tables of tiny networks, made from a batch of images or by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from networks import images, network
from numpy.typing import NDArray

from edgeres.calibration.observe import calibrated_tensors, observe, open_observation
from edgeres.core.batches import ImageBatch
from edgeres.core.contract import preset
from edgeres.core.methods import Method, Recover
from edgeres.core.recovery import Recovery
from edgeres.core.table import CalibrationTable, DataLineage, TensorRange, Threshold
from edgeres.onnx_file import LoadedModel, load_onnx
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.thresholds import Distribution, thresholds

EMPTY = Recovery(
    kind=Recover.ADAROUND,
    method=Method.MAX,
    seed=0,
    samples=8,
    held_out=2,
    lowerings={},
    equalization={},
    rounding={},
)
"""A recovery that changes nothing, of the kind that may."""


@dataclass(frozen=True)
class Batch:
    """Images as calibration takes them."""

    images: NDArray[np.float32]


def observed(
    graph: Graph, tensors: Sequence[str], batches: Iterable[ImageBatch]
) -> dict[str, Distribution]:
    """Returns what calibration sees of these tensors of a model in memory."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    return observe(open_observation(model, graph, tensors), batches)


def table_from_images(graph: Graph, images: NDArray[np.float32]) -> CalibrationTable:
    """Returns the largest magnitudes on these images as thresholds, by method max alone."""
    seen = observed(graph, calibrated_tensors(graph), [Batch(images)])
    return table_from_amax(graph, {name: found.amax for name, found in seen.items()})


def table_by_every_method(graph: Graph, images: NDArray[np.float32]) -> CalibrationTable:
    """Returns the thresholds of all four methods on these images; the table's own is max."""
    ranges = {}
    for name, found in observed(graph, calibrated_tensors(graph), [Batch(images)]).items():
        signed = not graph.is_non_negative(name)
        chosen = thresholds(found, signed=signed, percentile=99.99)
        ranges[name] = TensorRange(amax=found.amax, signed=signed, thresholds=chosen)
    return table_of(ranges)


def table_from_amax(
    graph: Graph, amax: Mapping[str, float], bounded: Mapping[str, float] | None = None
) -> CalibrationTable:
    """Returns a table with these thresholds, and 1 for every tensor that is not named.

    What is `bounded` has a range and no threshold, as logits have.
    """
    ranges = {
        name: TensorRange(amax=value, signed=True, thresholds={})
        for name, value in (bounded or {}).items()
    }
    for name in calibrated_tensors(graph):
        signed = not graph.is_non_negative(name)
        value = amax.get(name, 1.0)
        chosen = {Method.MAX: Threshold(s8=value, u8=None if signed else value)}
        ranges[name] = TensorRange(amax=value, signed=signed, thresholds=chosen)
    return table_of(ranges)


def table_of(ranges: Mapping[str, TensorRange]) -> CalibrationTable:
    """Returns a table of no particular model whose method is max."""
    return CalibrationTable(
        model_sha256="0" * 64,
        data=DataLineage(path="images", fingerprint="0", image_hashes=()),
        contract=preset("cifar"),
        method=Method.MAX,
        percentile=99.99,
        samples=1,
        seed=0,
        edgeres_version="0",
        tensors=ranges,
    )


def saved_network(name: str, folder: Path) -> tuple[LoadedModel, CalibrationTable]:
    """Returns a tiny network and its table by every method."""
    onnx.save(network(name), folder / "m.onnx")
    model = load_onnx(folder / "m.onnx")
    table = table_by_every_method(view(model.proto), images(8))
    return model, replace(table, model_sha256=model.artifact.sha256)

"""What FP16 cannot hold of a network: every offender, by layer, before anything is typed FP16.

Weights, biases and scales are in the model; activations are known from a calibration table's
exact extremes, and from nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgeres.core.methods import Method
from edgeres.core.table import CalibrationTable
from edgeres.errors import QuantizationError
from edgeres.onnx_file import LoadedModel
from edgeres.quantization.fp16 import LARGEST_FP16
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.grids import INT8
from edgeres.quantization.qdq.placement import place_for_tensorrt
from edgeres.quantization.weights import weight_scales

_LOG = logging.getLogger("edgeres.targets.tensorrt")


@dataclass(frozen=True, slots=True)
class Overflow:
    """A value that FP16 may not hold."""

    layer: str
    kind: str
    """`weight or bias`, `weight scale`, `activation scale` or `activation`."""
    tensor: str
    largest: float
    """Largest magnitude in it."""

    def __str__(self) -> str:
        return f"{self.layer}: {self.kind} '{self.tensor}' reaches {self.largest:g}"


def check_fp16_range(
    model: LoadedModel,
    table: CalibrationTable | None,
    method: Method | None = None,
    *,
    int8: bool,
) -> None:
    """Checks that FP16 holds the float parts of a network for TensorRT.

    Args:
        model: the FP32 file.
        table: whose extremes bound the activations; None leaves them unchecked, and logs so.
        method: which of its thresholds the scales come from; None takes its own.
        int8: whether convolutions and shortcuts are INT8, so that their scales count and their
            weights do not.

    Raises:
        QuantizationError: something overflows; the message names all of it by layer.
        ArtifactError: the table lacks a tensor.
    """
    graph = view(model.proto)
    if table is None:
        _LOG.info(
            "%s: weights fit FP16 or are named; activations were not checked, for want of a "
            "calibration table. Pass --calibration to check them.",
            model.artifact.path,
        )
    overflowing = list(overflows(graph, table, method, int8=int8))
    if overflowing:
        option = "--float-layers fp32" if int8 else "--precision fp32"
        raise QuantizationError(
            f"{len(overflowing)} values of {model.artifact.path} overflow FP16, whose largest number is "
            f"{LARGEST_FP16:g}: {'; '.join(map(str, overflowing))}. Build with {option}."
        )


def overflows(
    graph: Graph, table: CalibrationTable | None, method: Method | None = None, *, int8: bool
) -> Iterator[Overflow]:
    """Yields every value that FP16 cannot hold: constants and scales, then activations."""
    # A NaN is beyond FP16 too, so the comparison is the negated one.
    return (
        each for each in _extremes(graph, table, method, int8) if not each.largest <= LARGEST_FP16
    )


def _extremes(
    graph: Graph, table: CalibrationTable | None, method: Method | None, int8: bool
) -> Iterator[Overflow]:
    """Yields the largest magnitude of everything that will be typed FP16."""
    placement = place_for_tensorrt(graph) if int8 and table is not None else None
    for node in graph.nodes:
        for index, name in enumerate(node.input):
            value = graph.constant(name)
            if value is None or value.dtype != np.float32:
                continue
            kind = "weight or bias"
            # A weight on INT8 is an integer in the file; its scales are what FP16 has to hold.
            if placement is not None and index == 1 and node.name in placement.weighted:
                kind, value = "weight scale", weight_scales(value, axis=0)
            yield Overflow(node.name, kind, name, float(np.abs(value).max(initial=0.0)))
    if table is None:
        return
    for edge in () if placement is None else placement.edges:
        threshold = table.threshold(graph.root(edge.tensor), method)
        scale = float(INT8.scale_from_amax(threshold.s8))
        yield Overflow(edge.node, "activation scale", edge.tensor, scale)
    for name, observed in table.tensors.items():
        producer = graph.producers.get(name)
        layer = graph.input if producer is None else producer.name
        yield Overflow(layer, "activation", name, observed.amax)

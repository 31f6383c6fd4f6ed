"""What FP16 cannot hold of a network: every offender, by layer, before anything is typed FP16.

Weights, biases and scales are in the model; activations are known from a calibration table's
exact extremes, and from nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgeres.core.artifacts import OnnxArtifact
from edgeres.core.methods import Method
from edgeres.core.table import CalibrationTable
from edgeres.errors import QuantizationError
from edgeres.onnx_file import load_model
from edgeres.quantization.fp16 import LARGEST_FP16
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.placement import Placement, place_for_tensorrt
from edgeres.quantization.thresholds import SIGNED_LEVELS, scale_of
from edgeres.quantization.weights import weight_scales

_LOG = logging.getLogger("edgeres.quantization")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overflow:
    """A value that FP16 cannot hold."""

    layer: str
    kind: str
    """`weight or bias`, `weight scale`, `activation scale` or `activation`."""
    tensor: str
    largest: float
    """Largest magnitude in it."""

    def __str__(self) -> str:
        return f"{self.layer}: {self.kind} '{self.tensor}' reaches {self.largest:g}"


def check_fp16_range(
    model: OnnxArtifact,
    table: CalibrationTable | None,
    method: Method | None = None,
    *,
    int8: bool,
) -> None:
    """Checks that FP16 holds the float parts of a network for TensorRT.

    Args:
        model: the FP32 file.
        table: whose extremes tell the activations; None leaves them unchecked, and says so.
        method: which of its thresholds the scales come from; None takes its own.
        int8: whether convolutions and shortcuts are INT8, so that their scales count and their
            weights do not.

    Raises:
        QuantizationError: something overflows; the message names all of it by layer.
        ArtifactError: the table lacks a tensor.
    """
    graph = view(load_model(model.path))
    if table is None:
        _LOG.info(
            "%s: weights fit FP16 or are named; activations were not checked, for want of a "
            "calibration table. Pass --calibration to check them.",
            model.path,
        )
    found = list(overflows(graph, table, method, int8=int8))
    if found:
        option = "--float-layers fp32" if int8 else "--precision fp32"
        raise QuantizationError(
            f"{len(found)} values of {model.path} overflow FP16, whose largest number is "
            f"{LARGEST_FP16:g}: {'; '.join(map(str, found))}. Build with {option}."
        )


def overflows(
    graph: Graph, table: CalibrationTable | None, method: Method | None = None, *, int8: bool
) -> Iterator[Overflow]:
    """Yields every value that FP16 cannot hold: constants and scales, then activations."""
    placement = place_for_tensorrt(graph) if int8 and table is not None else None
    weighted = frozenset() if placement is None else placement.weighted
    yield from _constants(graph, weighted)
    if placement is not None and table is not None:
        yield from _scales(graph, placement, table, method)
    if table is not None:
        yield from _activations(graph, table)


def _constants(graph: Graph, weighted: frozenset[str]) -> Iterator[Overflow]:
    """Yields what stays float among the constants, and the scales of what does not."""
    for node in graph.nodes:
        for index, name in enumerate(node.input):
            value = graph.constant(name)
            if value is None or value.dtype != np.float32:
                continue
            is_int8 = index == 1 and node.name in weighted
            kind = "weight scale" if is_int8 else "weight or bias"
            held = weight_scales(value, axis=0) if is_int8 else value
            yield from _beyond(node.name, kind, name, float(np.abs(held).max(initial=0.0)))


def _scales(
    graph: Graph, placement: Placement, table: CalibrationTable, method: Method | None
) -> Iterator[Overflow]:
    for edge in placement.edges:
        threshold = table.threshold(graph.root(edge.tensor), method)
        scale = float(scale_of(threshold.s8, SIGNED_LEVELS))
        yield from _beyond(edge.node, "activation scale", edge.tensor, scale)


def _activations(graph: Graph, table: CalibrationTable) -> Iterator[Overflow]:
    for name, seen in table.tensors.items():
        producer = graph.producers.get(name)
        layer = graph.input if producer is None else producer.name
        yield from _beyond(layer, "activation", name, seen.amax)


def _beyond(layer: str, kind: str, tensor: str, largest: float) -> Iterator[Overflow]:
    if not largest <= LARGEST_FP16:
        yield Overflow(layer=layer, kind=kind, tensor=tensor, largest=largest)

"""Two 1x1 convolutions and the Add of both as one convolution over both sources' channels.

The sum is made in the int32 accumulator and rounded once, where three roundings stood: those of
both branches, of which the projection's first has the largest of a whole network, and that of
the Add. Stored integers of both sources are put side by side as they are; the scale of each goes
into the weights that read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeres.quantization.graph import Graph
from edgeres.quantization.weights import quantize_weight, weight_scales

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """Weight and bias of a convolution in float."""

    weight: Array
    """(O, C / groups, kh, kw)."""
    bias: Array | None
    """(O,); None where it has none."""


def affine_of(graph: Graph, conv: onnx.NodeProto) -> Affine:
    """Returns the parameters of a convolution whose weight and bias are constant."""
    return Affine(weight_of(graph, conv), bias_of(graph, conv))


def weight_of(graph: Graph, conv: onnx.NodeProto) -> Array:
    """Returns the weight of a convolution, (O, C / groups, kh, kw)."""
    return np.asarray(graph.constant(conv.input[1]), np.float32)


def bias_of(graph: Graph, conv: onnx.NodeProto) -> Array | None:
    """Returns the bias of a convolution, (O,); None where it has none."""
    bias = graph.constant(conv.input[2]) if len(conv.input) > 2 and conv.input[2] else None
    return None if bias is None else np.asarray(bias, np.float32)


def joint_affine(parts: Sequence[Affine], scales: Sequence[np.float32]) -> Affine:
    """Returns the convolution of the stored integers of several sources, side by side.

    Args:
        parts: 1x1 convolutions whose results are added, (O, C, 1, 1) each.
        scales: of each one's source.
    """
    weights = [part.weight * scale for part, scale in zip(parts, scales, strict=True)]
    biases = [part.bias for part in parts if part.bias is not None]
    return Affine(
        np.concatenate(weights, axis=1),
        np.sum(biases, axis=0, dtype=np.float32) if biases else None,
    )


def rounded_parts(parts: Sequence[Affine], scales: Sequence[np.float32]) -> list[Array]:
    """Returns the weight of each part as the joint convolution has it, in the parts' own units.

    Args:
        parts: 1x1 convolutions whose results are added, (O, C, 1, 1) each.
        scales: of each one's source.
    """
    weight = joint_affine(parts, scales).weight
    stored = quantize_weight(weight, weight_scales(weight, axis=0), axis=0)
    restored = stored.values * stored.scales.reshape(-1, 1, 1, 1)
    ends = np.cumsum([part.weight.shape[1] for part in parts])[:-1]
    pieces = np.split(restored, ends, axis=1)
    return [piece / scale for piece, scale in zip(pieces, scales, strict=True)]

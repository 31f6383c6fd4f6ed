"""The convolutions that recovery works on, how their windows move, and how much an image counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeres.calibration.recovery.replay import Rounded
from edgeres.quantization.graph import Graph, attribute, integers
from edgeres.quantization.parameters import Parameters
from edgeres.quantization.placement import Placement
from edgeres.quantization.rounding import grid_scales, on_grid

Array = NDArray[np.float32]
Pair = tuple[int, int]
"""Rows and columns."""


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedConvolution:
    """One quantized convolution, with the Add and the ReLU that TensorRT fuses with it."""

    node: onnx.NodeProto
    source: str
    """What it reads in the quantized network."""
    target: str
    """What comes of it, with the Add and before the ReLU, in either network."""
    shortcut: str | None
    """What the quantized network adds to it."""
    relu: bool


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a convolution's window moves."""

    extent: Pair
    """Of the window in pixels, dilation included."""
    strides: Pair
    dilations: Pair
    pads: Pair
    """Zeros before the first pixel."""
    groups: int

    def receptive_field(self, image: Array | Rounded, start: Pair, window: Pair) -> Array:
        """Returns the pixels, (C, h', w'), that a window of outputs is computed from.

        Args:
            image: (C, H, W); beyond it are zeros.
            start: row and column of the first output.
            window: rows and columns of outputs.
        """
        sides, inside, read = [], [slice(None)], [slice(None)]
        for axis, size in enumerate(image.shape[1:]):
            first = start[axis] * self.strides[axis] - self.pads[axis]
            side = (window[axis] - 1) * self.strides[axis] + self.extent[axis]
            low, high = max(0, first), min(size, first + side)
            sides.append(side)
            inside.append(slice(low - first, high - first))
            read.append(slice(low, high))
        patch = np.zeros((len(image), *sides), np.float32)
        patch[tuple(inside)] = image[tuple(read)]
        return patch


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Windows of N images for one layer, (h, w) outputs each."""

    source: Array
    """(N, C, h', w'): what the quantized network's convolution reads for them, padding included."""
    target: Array
    """(N, O, h, w): what the FP32 network makes of the same images, before the ReLU."""
    shortcut: Array | None
    """(N, O, h, w): what the quantized network adds."""
    relu: bool

    def part(self, which: slice) -> Samples:
        """Returns the samples of some of the images."""
        shortcut = None if self.shortcut is None else self.shortcut[which]
        return Samples(self.source[which], self.target[which], shortcut, self.relu)


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """One layer as recovery leaves it."""

    weight: Array
    """On its grid."""
    shift: Array
    """(O,): what is added to the bias."""
    up: NDArray[np.bool_] | None
    """Which weights are rounded up; None where each is rounded to the nearest."""
    before: float
    """Mean squared error behind the ReLU on the held-out images, with the nearest rounding."""
    after: float


def layers_of(graph: Graph, placement: Placement) -> list[QuantizedConvolution]:
    """Returns the quantized convolutions in topological order."""
    quantized = {(edge.node, edge.index) for edge in placement.edges}
    layers = []
    for node in (n for n in graph.nodes if n.name in placement.weighted):
        target, shortcut = node.output[0], None
        add = graph.only_consumer(target)
        if add is not None and add.op_type == "Add":
            # TensorRT fuses the Add with the convolution whose partner is rounded; a projection,
            # whose own result is rounded, ends at itself.
            other = 1 - list(add.input).index(target)
            if (add.name, other) in quantized:
                target, shortcut = add.output[0], _dequantized(add.input[other])
        reader = graph.only_consumer(target)
        relu = reader is not None and reader.op_type == "Relu"
        # An image whose pixels are exact is not rounded.
        source = node.input[0]
        source = _dequantized(source) if (node.name, 0) in quantized else source
        layers.append(QuantizedConvolution(node, source, target, shortcut, relu))
    return layers


def geometry_of(graph: Graph, node: onnx.NodeProto) -> Geometry:
    """Returns a two-dimensional convolution's geometry."""
    taps, size = graph.constants[node.input[1]].dims[2:], graph.shapes[node.input[0]][1:]
    strides, dilations = _pair(node, "strides"), _pair(node, "dilations")
    rows, columns = ((k - 1) * d + 1 for k, d in zip(taps, dilations, strict=True))
    pads = list(integers(node, "pads", (0, 0, 0, 0))[:2])
    mode = attribute(node, "auto_pad") or b"NOTSET"
    if mode != b"NOTSET":
        for axis, extent in enumerate((rows, columns)):
            # Source: ONNX operator Conv, auto_pad; an odd one goes behind with SAME_UPPER.
            outputs = -(-size[axis] // strides[axis])
            total = max((outputs - 1) * strides[axis] + extent - size[axis], 0)
            before = total // 2 if mode == b"SAME_UPPER" else total - total // 2
            pads[axis] = 0 if mode == b"VALID" else before
    groups = cast("int", attribute(node, "group") or 1)
    return Geometry((rows, columns), strides, dilations, (pads[0], pads[1]), groups)


def nearest_rounding(trained: Parameters) -> Parameters:
    """Returns the parameters with each weight rounded to the nearest on its grid."""
    return Parameters(on_grid(trained.weight, grid_scales(trained.weight)), trained.bias)


def powers_of(outputs: Array) -> Array:
    """Returns the mean square of each image's output, (N,), of (N, O, h, w)."""
    powers: Array = np.square(outputs).mean(axis=(1, 2, 3))
    return powers


def image_weights(powers: Array) -> Array:
    """Returns how much the squared error of each image counts, (N,), 1 on average.

    In proportion to 1 / power above the median, equally below. One real image in some hundred
    has activations ten times those of the others; most of them are clipped, and in a plain mean
    that image's error alone would set every channel's bias and rounding.

    Args:
        powers: from `powers_of`, (N,).
    """
    # A network whose output is zero on half of the images has a median of zero.
    least = max(float(np.median(powers)), float(np.finfo(np.float32).tiny))
    weights: NDArray[np.float64] = 1 / np.maximum(powers, least).astype(np.float64)
    weights /= weights.mean()
    return weights.astype(np.float32)


def _dequantized(tensor: str) -> str:
    """Returns the name of an activation's rounded values in TensorRT's lowering."""
    return tensor + "/dq"


def _pair(node: onnx.NodeProto, name: str) -> Pair:
    rows, columns = integers(node, name, (1, 1))
    return rows, columns

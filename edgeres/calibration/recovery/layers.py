"""The convolutions that recovery works on, and samples of what each reads and should make.

A sample is a window of one image at a place drawn by seed: all positions where the feature map
is small, a patch of them where it is large.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeres.calibration.recovery.replay import Replay
from edgeres.quantization.graph import Graph, attribute, integers
from edgeres.quantization.placement import Placement

Array = NDArray[np.float32]
Pair = tuple[int, int]
"""Rows and columns."""

_SAMPLES_PER_INPUT = 32
"""Positions that a layer is fitted on, over all images, for each weight of an output channel:
far more equations than unknowns, so that little is left to overfit."""

_LEAST_SIDE = 7


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One quantized convolution, with the Add and the ReLU that TensorRT fuses with it."""

    node: onnx.NodeProto
    source: str
    """What it reads in the simulated network."""
    target: str
    """What comes of it, with the Add and before the ReLU, in either network."""
    shortcut: str | None
    """What the simulated network adds to it."""
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


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Windows of N images for one layer, (h, w) outputs each."""

    source: Array
    """(N, C, h', w'): what the simulated network's convolution reads for them, padding included."""
    target: Array
    """(N, O, h, w): what the FP32 network makes of the same images, before the ReLU."""
    shortcut: Array | None
    """(N, O, h, w): what the simulated network adds."""
    relu: bool

    def part(self, which: slice) -> Samples:
        """Returns the samples of some of the images."""
        shortcut = None if self.shortcut is None else self.shortcut[which]
        return Samples(self.source[which], self.target[which], shortcut, self.relu)


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What recovery made of one layer."""

    weight: Array
    """On its grid."""
    shift: Array
    """(O,): what is added to the bias."""
    up: NDArray[np.bool_] | None
    """Which weights are rounded up; None where each is rounded to the nearest."""
    before: float
    """Mean squared error behind the ReLU on the held-out images, with the nearest rounding."""
    after: float


def layers_of(graph: Graph, placement: Placement) -> list[Layer]:
    """Returns the quantized convolutions in topological order."""
    quantized = {(edge.node, edge.index) for edge in placement.edges}
    return [
        _layer(graph, node, quantized) for node in graph.nodes if node.name in placement.weighted
    ]


def geometry_of(graph: Graph, node: onnx.NodeProto) -> Geometry:
    """Returns a two-dimensional convolution's geometry."""
    taps, size = graph.constants[node.input[1]].dims[2:], graph.shapes[node.input[0]][1:]
    strides, dilations = _pair(node, "strides"), _pair(node, "dilations")
    rows, columns = ((k - 1) * d + 1 for k, d in zip(taps, dilations, strict=True))
    pads = [_padding(node, a, size[a], (rows, columns)[a], strides[a]) for a in (0, 1)]
    groups = cast("int", attribute(node, "group") or 1)
    return Geometry((rows, columns), strides, dilations, (pads[0], pads[1]), groups)


def window_of(graph: Graph, layer: Layer, images: int) -> Pair:
    """Returns how many positions of the output a layer's window has each way."""
    inputs = np.prod(graph.constants[layer.node.input[1]].dims[1:])
    side = max(_LEAST_SIDE, int(np.ceil(np.sqrt(_SAMPLES_PER_INPUT * inputs / images))))
    rows, columns = graph.shapes[layer.target][1:]
    return min(side, rows), min(side, columns)


def sample(
    layer: Layer, geometry: Geometry, window: Pair, replays: tuple[Replay, Replay], seed: int
) -> Samples:
    """Returns a window of each image, from the FP32 network and the simulated one."""
    exact, twin = replays
    read = [layer.source, *([] if layer.shortcut is None else [layer.shortcut])]
    generator = np.random.default_rng(seed)
    sources: list[Array] = []
    targets: list[Array] = []
    shortcuts: list[Array] = []
    for (made,), (source, *added) in zip(exact.read([layer.target]), twin.read(read), strict=True):
        for index, image in enumerate(made):
            start = _place(generator, image.shape[1:], window)
            targets.append(_patch(image, start, window))
            shortcuts.extend(_patch(shortcut[index], start, window) for shortcut in added)
            sources.append(_read_by(source[index], geometry, start, window))
    shortcut = np.stack(shortcuts) if shortcuts else None
    return Samples(np.stack(sources), np.stack(targets), shortcut, layer.relu)


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
    least = max(float(np.median(powers)), float(np.finfo(np.float32).tiny))
    weights: NDArray[np.float64] = 1 / np.maximum(powers, least).astype(np.float64)
    weights /= weights.mean()
    return weights.astype(np.float32)


def _layer(graph: Graph, node: onnx.NodeProto, quantized: set[tuple[str, int]]) -> Layer:
    made, shortcut = node.output[0], None
    add = graph.only_consumer(made)
    if add is not None and add.op_type == "Add":
        other = 1 - list(add.input).index(made)
        if (add.name, other) in quantized:
            made, shortcut = add.output[0], _dequantized(add.input[other])
    reader = graph.only_consumer(made)
    relu = reader is not None and reader.op_type == "Relu"
    return Layer(node, _dequantized(node.input[0]), made, shortcut, relu)


def _dequantized(tensor: str) -> str:
    """Returns the name of an activation's rounded values in TensorRT's lowering."""
    return tensor + "/dq"


def _place(generator: np.random.Generator, size: tuple[int, ...], window: Pair) -> Pair:
    rows, columns = (int(generator.integers(s - w + 1)) for s, w in zip(size, window, strict=True))
    return rows, columns


def _patch(image: Array, start: Pair, window: Pair) -> Array:
    (top, left), (rows, columns) = start, window
    return image[:, top : top + rows, left : left + columns]


def _read_by(image: Array, geometry: Geometry, start: Pair, window: Pair) -> Array:
    """Returns the pixels that a window of outputs is made of, zeros beyond the image."""
    first = [
        s * stride - pad
        for s, stride, pad in zip(start, geometry.strides, geometry.pads, strict=True)
    ]
    sides = [
        (n - 1) * stride + extent
        for n, stride, extent in zip(window, geometry.strides, geometry.extent, strict=True)
    ]
    low = [max(0, f) for f in first]
    high = [min(n, f + s) for n, f, s in zip(image.shape[1:], first, sides, strict=True)]
    inside = tuple(slice(a - f, b - f) for a, b, f in zip(low, high, first, strict=True))
    patch = np.zeros((len(image), *sides), np.float32)
    patch[(slice(None), *inside)] = image[:, low[0] : high[0], low[1] : high[1]]
    return patch


def _pair(node: onnx.NodeProto, name: str) -> Pair:
    rows, columns = integers(node, name, (1, 1))
    return rows, columns


def _padding(node: onnx.NodeProto, axis: int, size: int, extent: int, stride: int) -> int:
    """Returns the zeros before the first pixel of an axis. Source: ONNX operator Conv, auto_pad."""
    mode = attribute(node, "auto_pad") or b"NOTSET"
    if mode == b"NOTSET":
        return integers(node, "pads", (0, 0, 0, 0))[axis]
    if mode == b"VALID":
        return 0
    total = max((-(-size // stride) - 1) * stride + extent - size, 0)
    return total // 2 if mode == b"SAME_UPPER" else total - total // 2

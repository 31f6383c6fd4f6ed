"""Samples of what each convolution reads in the quantized network, and should make of it.

A sample is a window of one image at a place drawn by seed: all positions where the feature map
is small, a patch of them where it is large. What the FP32 network has there changes with no layer
that is settled, so that it is run once, for several layers at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeres.calibration.recovery.layers import (
    Array,
    Geometry,
    Pair,
    QuantizedConvolution,
    Samples,
    geometry_of,
)
from edgeres.calibration.recovery.replay import CACHE_BYTES, Replay
from edgeres.quantization.graph import Graph

_SAMPLES_PER_INPUT = 32
"""Positions that a layer is fitted on, over all images, for each weight of an output channel:
far more equations than unknowns, so that little is left to overfit."""

_LEAST_SIDE = 7

_MOST_BYTES = 2 * CACHE_BYTES
"""Memory for windows of the FP32 network, of as many layers as it has room for."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sampling:
    """Where one layer is sampled: the same windows of both networks."""

    layer: QuantizedConvolution
    geometry: Geometry
    channels: int
    """Of its output."""
    window: Pair
    every: int
    """One of so many images."""
    starts: NDArray[np.int64]
    """(images, 2): row and column of the first output of each one's window."""

    @classmethod
    def of(
        cls,
        graph: Graph,
        layer: QuantizedConvolution,
        *,
        images: int,
        fitted: int,
        every: int,
        seed: int,
    ) -> Sampling:
        """Returns how to sample a layer.

        Args:
            graph: the FP32 graph.
            layer: one of its convolutions.
            images: how many there are.
            fitted: how many of them, from the first, the layer is fitted on.
            every: which of the images are sampled.
            seed: draws the places.
        """
        window = window_of(graph, layer, len(range(0, fitted, every)))
        channels, *size = graph.shapes[layer.target]
        last = np.subtract(size, window)
        starts = np.random.default_rng(seed).integers(
            last, endpoint=True, size=(len(range(0, images, every)), 2)
        )
        return cls(
            layer=layer,
            geometry=geometry_of(graph, layer.node),
            channels=channels,
            window=window,
            every=every,
            starts=starts,
        )

    @property
    def bytes(self) -> int:
        """What the windows of its output take."""
        return 4 * len(self.starts) * self.channels * self.window[0] * self.window[1]

    def outputs(self) -> Array:
        """Returns where the windows of an output go, (images, channels, h, w)."""
        return np.empty((len(self.starts), self.channels, *self.window), np.float32)

    def inside(self, image: int) -> tuple[slice, ...]:
        """Returns where an image's window lies in what the layer makes of it, (O, H, W)."""
        top, left = self.starts[image]
        return slice(None), slice(top, top + self.window[0]), slice(left, left + self.window[1])


class ExactOutputs:
    """Windows of what the FP32 network makes of each layer, in the order of the layers."""

    def __init__(self, replay: Replay, samplings: Sequence[Sampling]) -> None:
        """Starts with none.

        Args:
            replay: the FP32 network.
            samplings: of all layers that will be read, in topological order.
        """
        self._replay = replay
        self._left = list(samplings)
        self._ready: dict[str, Array] = {}

    def take(self, layer: QuantizedConvolution) -> Array:
        """Returns a layer's windows, (images, O, h, w), and forgets them."""
        if layer.target not in self._ready:
            self._ready = self._next()
        return self._ready.pop(layer.target)

    def _next(self) -> dict[str, Array]:
        """Returns the windows of the next layers, as many as there is memory for."""
        group, taken = [self._left.pop(0)], 0
        taken = group[0].bytes
        every = group[0].every
        while self._left and self._left[0].every == every:
            taken += self._left[0].bytes
            if taken > _MOST_BYTES:
                break
            group.append(self._left.pop(0))
        # Where the last group ended what follows is cached, but for another choice of images.
        self._replay.advance(group[0].layer.node, every)
        ahead = self._replay.before(self._left[0].layer.node, every) if self._left else []
        windows = {sampling.layer.target: sampling.outputs() for sampling in group}
        first = 0
        for outputs in self._replay.read(list(windows), ahead=ahead):
            for sampling, images in zip(group, outputs, strict=True):
                for index, image in enumerate(images, first):
                    windows[sampling.layer.target][index] = image[sampling.inside(index)]
            first += len(outputs[0])
        return windows


def samplings_of(
    graph: Graph,
    layers: Sequence[QuantizedConvolution],
    quantized: Replay,
    fitted: int,
    seed: int,
) -> dict[str, Sampling]:
    """Returns where to sample each layer, by the name of its convolution.

    Args:
        graph: the FP32 graph.
        layers: in topological order.
        quantized: the network that they are read in, at the image.
        fitted: how many of its images, from the first, they are fitted on.
        seed: draws the places.
    """
    samplings: dict[str, Sampling] = {}
    every = 1
    for layer in layers:
        every = quantized.thinning(layer.node, every, output=False)
        samplings[layer.node.name] = Sampling.of(
            graph, layer, images=quantized.total, fitted=fitted, every=every, seed=seed
        )
    return samplings


def window_of(graph: Graph, layer: QuantizedConvolution, images: int) -> Pair:
    """Returns how many positions of the output a layer's window has each way."""
    inputs = np.prod(graph.constants[layer.node.input[1]].dims[1:])
    side = max(_LEAST_SIDE, int(np.ceil(np.sqrt(_SAMPLES_PER_INPUT * inputs / images))))
    rows, columns = graph.shapes[layer.target][1:]
    return min(side, rows), min(side, columns)


def sample(sampling: Sampling, quantized: Replay, exact: Array) -> Samples:
    """Returns a layer's window of each image.

    Args:
        sampling: where.
        quantized: the quantized network, at the layer.
        exact: (images, O, h, w), what the FP32 network has there.
    """
    layer, geometry = sampling.layer, sampling.geometry
    read = [layer.source, *([] if layer.shortcut is None else [layer.shortcut])]
    sources = np.empty(0, np.float32)
    shortcut = None if layer.shortcut is None else np.empty_like(exact)
    for index, (source, *added) in enumerate(quantized.images(read)):
        top, left = map(int, sampling.starts[index])
        patch = geometry.receptive_field(source, (top, left), sampling.window)
        if not index:
            sources = np.empty((len(exact), *patch.shape), np.float32)
        sources[index] = patch
        if shortcut is not None:
            shortcut[index] = added[0][sampling.inside(index)]
    return Samples(sources, exact, shortcut, layer.relu)

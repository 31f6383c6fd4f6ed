"""The image as the first layer reads it, behind what the file itself does to its channels.

A network may normalise inside: `Sub`, `Div`, `Mul` and `Add` of a constant for each channel. What
holds for a prepared image (its pixels are levels of a line, its layer is the first) holds behind
them as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeres.byte_input import levels_of
from edgeres.core.contract import Contract
from edgeres.quantization.graph import Graph

Channels = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """The tensor that the first layer reads: what the network is fed, times `gain`, plus `offset`."""

    tensor: str
    gain: Channels
    """(C,), above zero, and a finite number of float32 as `offset` is."""
    offset: Channels
    """(C,)"""
    arithmetic: frozenset[str] = frozenset()
    """Names of the operators before it."""

    def levels(self, contract: Contract) -> tuple[NDArray[np.float32], Channels]:
        """Returns what a pixel's level is worth here, and the level of zero, (C,) each."""
        steps, zeros = levels_of(contract)
        worth = steps.astype(np.float64) * self.gain
        return worth.astype(np.float32), zeros - self.offset / worth


def image_of(graph: Graph) -> Image:
    """Returns the tensor of a network's image, behind its arithmetic in each channel."""
    channels = (graph.shapes.get(graph.input) or (1,))[0]
    image = Image(graph.input, np.ones(channels), np.zeros(channels))
    while (node := graph.only_consumer(image.tensor)) is not None:
        changed = _after(graph, image, node)
        if changed is None:
            break
        image = changed
    return image


def _after(graph: Graph, image: Image, node: onnx.NodeProto) -> Image | None:
    """Returns the image behind one more operator; None where it is not arithmetic of a channel."""
    if node.op_type not in {"Add", "Sub", "Mul", "Div"} or len(node.input) != 2:
        return None
    first, second = node.input
    # A constant less the image, or divided by it, is another function.
    if second == image.tensor and node.op_type in {"Add", "Mul"}:
        first, second = second, first
    value = graph.constant(second)
    if first != image.tensor or value is None:
        return None
    planes = value.reshape((1,) * (4 - value.ndim) + value.shape) if value.ndim <= 4 else value
    if planes.shape not in {(1, 1, 1, 1), (1, len(image.gain), 1, 1)}:
        return None
    number = planes.astype(np.float64).reshape(-1)
    gain, offset = image.gain, image.offset
    # What is no number any more is found by its value.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if node.op_type in {"Mul", "Div"}:
            factor = number if node.op_type == "Mul" else 1 / number
            gain, offset = gain * factor, offset * factor
        else:
            offset = offset + (number if node.op_type == "Add" else -number)
    numbers = np.finfo(np.float32)
    is_line = (gain >= numbers.tiny).all() and (gain <= numbers.max).all()
    # Written so that a NaN is none either.
    if not (is_line and (np.abs(offset) <= numbers.max).all()):
        return None
    arithmetic = image.arithmetic | {str(node.name)}
    return Image(str(node.output[0]), gain, offset, arithmetic)

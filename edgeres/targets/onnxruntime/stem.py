"""The first convolution on the CPU: stride 2 on three channels becomes stride 1 on twelve.

ONNX Runtime gathers the patches of a 7x7 convolution three bytes at a time, which takes longer
than the multiplications. Put each 2x2 square of pixels into the channels (SpaceToDepth), and the
same sums are a 4x4 convolution of stride 1 over runs of 48 bytes. The weight is rearranged, with
zeros where the larger window has no tap, so every integer product stays what it was and the
result is equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeres.quantization.graph import Graph, attribute, integers
from edgeres.quantization.image import image_of
from edgeres.quantization.placement import refusal

FOLD = 2
"""Stride of the stem, and side of the square of pixels that goes into the channels."""

_MOST_CHANNELS = 4


@dataclass(frozen=True, slots=True)
class FoldedStem:
    """A convolution of stride 1 on the folded image, in the place of one of stride 2."""

    window: tuple[int, int]
    """Height and width of the window, in folded pixels."""
    pads: tuple[int, int, int, int]
    """Before rows and columns, then behind them, in folded pixels."""
    leading: tuple[int, int]
    """Rows and columns of zeros before the weight's first tap."""

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the folded convolution."""
        return {"kernel_shape": self.window, "strides": (1, 1), "pads": self.pads}

    def weight(self, weight: NDArray[np.int8]) -> NDArray[np.int8]:
        """Returns the folded weight, (O, 4 C, *window), of the original, (O, C, K, K').

        Channels in the order of ONNX's SpaceToDepth: row, column, then channel.
        """
        outputs, channels, *taps = weight.shape
        rows, columns = self.window
        # The folded window covers FOLD times as many pixels; what is not a tap is zero.
        trailing = (
            FOLD * w - k - d for w, k, d in zip(self.window, taps, self.leading, strict=True)
        )
        margins = [(0, 0), (0, 0), *zip(self.leading, trailing, strict=True)]
        split = np.pad(weight, margins).reshape(outputs, channels, rows, FOLD, columns, FOLD)
        folded: NDArray[np.int8] = split.transpose(0, 3, 5, 1, 2, 4).reshape(
            outputs, -1, rows, columns
        )
        return folded


def folded_stem(graph: Graph) -> FoldedStem | None:
    """Returns how to fold the operator that alone reads the image; None where it cannot be."""
    image = image_of(graph).tensor
    stem, shape = graph.only_consumer(image), graph.shapes.get(image)
    if stem is None or shape is None or stem.op_type != "Conv" or refusal(graph, stem) is not None:
        return None
    return fold_stem(stem, graph.constants[stem.input[1]].dims[2:], shape)


def fold_stem(conv: onnx.NodeProto, taps: Sequence[int], image: Sequence[int]) -> FoldedStem | None:
    """Returns how to fold a convolution on the image, None where it has another form.

    Args:
        conv: the first convolution.
        taps: height and width of its window.
        image: (C, H, W).
    """
    channels, *size = image
    if not (
        channels <= _MOST_CHANNELS
        and all(side % FOLD == 0 for side in size)
        and integers(conv, "strides", (1, 1)) == (FOLD, FOLD)
        and integers(conv, "dilations", (1, 1)) == (1, 1)
        and attribute(conv, "group") in (None, 1)
        and attribute(conv, "auto_pad") in (None, b"NOTSET")
    ):
        return None
    window, before, after, leading = [], [], [], []
    padding = integers(conv, "pads", (0, 0, 0, 0))
    for side, k, low, high in zip(size, taps, padding[:2], padding[2:], strict=True):
        outputs = (side + low + high - k) // FOLD + 1
        # Padding that is no multiple of the fold becomes zeros before the weight's first tap.
        leading.append(low % FOLD)
        window.append(-(-(k + leading[-1]) // FOLD))
        before.append((low + leading[-1]) // FOLD)
        after.append(outputs - 1 + window[-1] - side // FOLD - before[-1])
    if min(after) < 0:
        return None
    return FoldedStem(
        window=(window[0], window[1]),
        pads=(before[0], before[1], after[0], after[1]),
        leading=(leading[0], leading[1]),
    )

"""The image on the grid of its own pixels, for the CPU: its 256 levels are carried over exactly.

A contract makes each channel a line through the 256 values of a pixel, so one scale and zero point
a channel hold every image without error, whatever calibration saw; on one grid for all channels
it is rounded, which costs the logits of CIFAR-10's resnet20 and resnet32 1.3 and 1.6 dB. The
convolution that reads the image takes the pixels for its input: what a level is worth goes into
its weights, and where zero lies into its bias. The zeros that it pads with must then be in the
image, where they are another level in each channel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeres.core.table import CalibrationTable
from edgeres.quantization.graph import Graph, attribute, integers
from edgeres.quantization.image import image_of
from edgeres.quantization.placement import Placement, refusal
from edgeres.quantization.weights import QuantizedWeight, quantize_weight, weight_scales
from edgeres.targets.onnxruntime.joint import Affine
from edgeres.targets.onnxruntime.stem import FoldedStem, fold_stem

Array = NDArray[np.float32]

_LEVELS = 255

_NEAR_HALF = 0.05
"""How near to half a level a channel's zero may lie before rounding could go either way."""

_SHIFT = 0.25

_FOLDED_CHANNELS = 4
"""A channel of zeros beside the image's three where its squares of pixels are folded: ONNX Runtime
brings 16 bytes of a place together faster than 12, in 0.01 to 0.04 ms for 0.10 of ResNet-50's 5."""

_SLACK = 1.001
"""By how much calibration images may pass the ends of the contract's range: float32's rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class PixelGrid:
    """How the pixels stand in the image, and the one convolution that reads them."""

    stem: onnx.NodeProto
    pads: tuple[int, ...]
    """Zeros before and after the channels, rows and columns: C, H, W before, C, H, W after."""
    steps: Array
    """(C,): what one level of each channel is worth."""
    offsets: NDArray[np.float64]
    """(C,): the level, a fraction, at which each channel is zero."""
    shifts: Array
    """(C,): taken off the image so that no level is a tie, a quarter of a level or nothing."""
    folded: FoldedStem | None
    """How the convolution is folded on the padded image."""

    @property
    def zero_points(self) -> NDArray[np.uint8]:
        """(C,): the level that a zero is stored as."""
        return np.rint(self.offsets + self.shifts / self.steps).astype(np.uint8)

    @property
    def uniform(self) -> bool:
        """Whether a level is worth the same in all channels, so that weights keep their grid."""
        return bool((self.steps == self.steps[0]).all())

    def affine(self, trained: Affine) -> Affine:
        """Returns the convolution of levels that start where the image is zero."""
        weight = trained.weight
        spare = len(self.steps) - weight.shape[1]
        bias = np.zeros(len(weight), np.float32) if trained.bias is None else trained.bias
        padded = np.pad(weight, [(0, 0), (0, spare), (0, 0), (0, 0)])
        return Affine(padded * self.steps.reshape(1, -1, 1, 1), bias)

    def bias(self, bias: Array, weight: QuantizedWeight) -> Array:
        """Returns the bias of the convolution of the levels themselves, (O,), of `affine`'s."""
        sums = weight.values.sum(axis=(2, 3), dtype=np.int64) * weight.scales[:, None]
        shifted: Array = (bias - sums.astype(np.float64) @ self.offsets).astype(np.float32)
        return shifted

    def rounded(self, weight: Array) -> Array:
        """Returns a weight, (O, C, kh, kw), as the convolution of pixels has it."""
        levels = self.affine(Affine(weight, None)).weight
        stored = quantize_weight(levels, weight_scales(levels, axis=0), axis=0)
        restored = stored.values * stored.scales.reshape(-1, 1, 1, 1)
        return (restored / self.steps.reshape(1, -1, 1, 1))[:, : weight.shape[1]]


def pixel_grid(graph: Graph, table: CalibrationTable) -> PixelGrid | None:
    """Returns the grid of the image's pixels; None where the image has to be rounded.

    That is where anything but one integer convolution reads it, or where calibration saw values
    that no pixel has by the contract.

    Args:
        graph: the FP32 model.
        table: with the contract, and the range of the image.
    """
    image = image_of(graph)
    stem, shape = graph.only_consumer(image.tensor), graph.shapes.get(image.tensor)
    if stem is None or shape is None or len(shape) != 3 or shape[0] not in {1, 3}:
        return None
    if (
        stem.op_type != "Conv"
        or refusal(graph, stem) is not None
        or attribute(stem, "group") not in (None, 1)
        or attribute(stem, "auto_pad") not in (None, b"NOTSET")
    ):
        return None
    steps, offsets = image.levels(table.contract)
    largest = float((steps * np.maximum(np.abs(offsets), np.abs(_LEVELS - offsets))).max())
    observed = table.tensors.get(image.tensor)
    if observed is None or observed.amax > _SLACK * largest:
        return None
    # A zero half-way between two levels makes every pixel a tie, which float32 breaks either way.
    near = np.abs(offsets % 1 - 0.5) < _NEAR_HALF
    shifts = np.where(near, _SHIFT * steps, 0).astype(np.float32)
    # A zero that is no level of u8, as with a mean beyond the pixels, cannot be a zero point.
    if (np.rint(offsets) < 0).any() or (np.rint(offsets + shifts / steps) > _LEVELS).any():
        return None
    pads = integers(stem, "pads", (0, 0, 0, 0))
    taps = tuple(graph.constants[stem.input[1]].dims[2:])
    padded = (shape[0], shape[1] + pads[0] + pads[2], shape[2] + pads[1] + pads[3])
    # Padding moves into the image; where the stem folds without that and not with it, or the other
    # way round, the folded kernel is worth more than exact pixels.
    folded = fold_stem(without_pads(stem), taps, padded)
    if (folded is None) is not (fold_stem(stem, taps, shape) is None):
        return None
    # Squares of one channel are four values by themselves.
    spare = 0 if folded is None or shape[0] == 1 else _FOLDED_CHANNELS - shape[0]
    return PixelGrid(
        stem=stem,
        pads=(0, *pads[:2], spare, *pads[2:]),
        steps=np.append(steps, steps[:spare]),
        offsets=np.append(offsets, np.zeros(spare)),
        shifts=np.append(shifts, np.zeros(spare, np.float32)),
        folded=folded,
    )


def without_pads(conv: onnx.NodeProto) -> onnx.NodeProto:
    """Returns a convolution that pads with nothing, of whole windows alone."""
    copied = onnx.NodeProto()
    copied.CopyFrom(conv)
    kept = [a for a in conv.attribute if a.name not in {"pads", "auto_pad"}]
    del copied.attribute[:]
    copied.attribute.extend([*kept, onnx.helper.make_attribute("pads", [0, 0, 0, 0])])
    return copied


def with_pixel_grid(placement: Placement, pixels: PixelGrid | None) -> Placement:
    """Returns the CPU's placement, with a convolution of pixels among those without a grid of their own.

    Its weights take up what a level is worth. Where that is not the same in all channels, the
    grid is not the one that rounding was fitted to.
    """
    if pixels is None or pixels.uniform:
        return placement
    stem = frozenset({pixels.stem.name})
    return replace(placement, weighted=placement.weighted - stem, joint=placement.joint | stem)

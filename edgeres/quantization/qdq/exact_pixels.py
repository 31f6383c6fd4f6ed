"""The first convolution on the pixels themselves, for TensorRT: its image is not rounded at all.

With m = mean / scale and s = scale / std, a normalised value is (x - m) s. The convolution reads
z = x - 128, which INT8 holds exactly with a scale of 1, and has weights W s and the bias
b + sum(W s (128 - m)) over the weights as they are rounded. What it pads with has to be the zero
of the normalised image, which is m - 128 in each channel: x - m is padded with zeros before m - 128
is added, so the border alone is rounded, by half a level at most.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeres.byte_input import levels_of
from edgeres.core.contract import Contract, InputType
from edgeres.quantization.emit import Emitter
from edgeres.quantization.fp16.typed import half_scale
from edgeres.quantization.graph import Graph, attribute, integers
from edgeres.quantization.parameters import parameters_of
from edgeres.quantization.placement import Placement, refusal
from edgeres.quantization.weights import by_channel, quantize_weight, weight_scales

Array = NDArray[np.float32]

_MIDDLE = 128
"""What is taken off a pixel of 0 to 255 so that INT8 holds it."""

_HIGHEST_ZERO = 254.5
"""Level up to which a channel's zero is rounded to one that INT8 holds."""


@dataclass(frozen=True, slots=True, eq=False)
class ExactPixels:
    """The convolution that reads the image, and what the levels of its pixels are."""

    stem: onnx.NodeProto
    steps: Array
    """(C,): what a level of each channel is worth."""
    zeros: NDArray[np.float64]
    """(C,): the level, a fraction, at which each channel is zero."""

    @property
    def uniform(self) -> bool:
        """Whether a level is worth the same in all channels, so that weights keep their grid."""
        return bool((self.steps == self.steps[0]).all())

    def rounded(self, weight: Array) -> Array:
        """Returns a weight, (O, C, kh, kw), as the convolution of pixels has it."""
        levels = weight * self.steps.reshape(1, -1, 1, 1)
        stored = quantize_weight(levels, weight_scales(levels, axis=0), axis=0)
        restored: Array = stored.values * by_channel(stored.scales, 4)
        return restored / self.steps.reshape(1, -1, 1, 1)

    def emit(
        self, out: Emitter, graph: Graph, node: onnx.NodeProto, *, fp16_scales: bool, raw: bool
    ) -> list[str]:
        """Emits what the convolution reads, and returns the names: image, weight and bias.

        Args:
            out: receives the operators.
            graph: whose weights are taken, the stem's as recovery left it.
            node: the stem in that graph.
            fp16_scales: round scales to what FP16 holds.
            raw: whether the network is fed pixels, or normalised values.
        """
        image, pads = graph.input, integers(node, "pads", (0, 0, 0, 0))
        trained = parameters_of(graph, node)

        def by_plane(name: str, values: NDArray[np.float64] | Array) -> str:
            return out.constant(name, np.asarray(values, np.float32).reshape(-1, 1, 1))

        if raw:
            centred = out.node(
                "Sub", [image, by_plane(image + "/zeros", self.zeros)], image + "/unit"
            )
        else:
            steps = by_plane(image + "/steps", 1 / self.steps)
            centred = out.node("Mul", [image, steps], image + "/unit")
        if any(pads):
            around = np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64)
            amounts = out.constant(image + "/pads", around)
            centred = out.node("Pad", [centred, amounts], image + "/padded")
        offsets = by_plane(image + "/shift", self.zeros - _MIDDLE)
        levels = out.node("Add", [centred, offsets], image + "/shifted")
        one = [
            out.constant(image + "/scale", np.float32(1)),
            out.constant(image + "/zero_point", np.int8(0)),
        ]
        exact = out.node("QuantizeLinear", [levels, *one], image + "/q")
        activation = out.node("DequantizeLinear", [exact, *one], image + "/dq")
        weight = trained.weight * self.steps.reshape(1, -1, 1, 1)
        scales = weight_scales(weight, axis=0)
        scales = np.asarray(half_scale(scales)) if fp16_scales else scales
        stored = quantize_weight(weight, scales, axis=0)
        parameters = [
            out.constant(node.name + "/weight_s8", stored.values),
            out.constant(node.name + "/weight_scale", stored.scales),
            out.constant(node.name + "/weight_zero", np.zeros(len(stored.scales), np.int8)),
        ]
        restored = out.node("DequantizeLinear", parameters, parameters[0] + "/dq", axis=0)
        # Over the rounded weights: a plane of one colour then keeps its exact sum.
        sums = stored.values.sum(axis=(2, 3), dtype=np.int64) * stored.scales[:, None]
        bias = trained.bias + sums.astype(np.float64) @ (_MIDDLE - self.zeros)
        return [activation, restored, out.constant(node.name + "/bias", bias.astype(np.float32))]


def exact_pixels(graph: Graph, contract: Contract) -> ExactPixels | None:
    """Returns how the first convolution takes pixels; None where the image has to be rounded.

    That is where the file takes floats, where anything but one integer convolution reads the image,
    or where a channel's zero is no pixel.
    """
    stem = graph.only_consumer(graph.input)
    steps, zeros = levels_of(contract)
    if (
        contract.input is not InputType.UINT8
        or stem is None
        or stem.op_type != "Conv"
        or refusal(graph, stem) is not None
        or attribute(stem, "group") not in (None, 1)
        or attribute(stem, "auto_pad") not in (None, b"NOTSET")
        or zeros.min() < 0
        or zeros.max() > _HIGHEST_ZERO
    ):
        return None
    return ExactPixels(stem, steps, zeros)


def with_exact_pixels(placement: Placement, pixels: ExactPixels | None) -> Placement:
    """Returns a placement with a convolution of pixels among those without a grid of their own.

    Its weights take up what a level is worth. Where that is not the same in all channels, the
    grid is not the one that rounding was fitted to.
    """
    if pixels is None or pixels.uniform:
        return placement
    stem = frozenset({str(pixels.stem.name)})
    return replace(placement, weighted=placement.weighted - stem, joint=placement.joint | stem)

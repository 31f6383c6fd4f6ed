"""What an operator costs: multiply-accumulates, values held and moved, and their bytes.

Pure arithmetic on counts. The counts come from a specification (`edgeres.networks`) or from an ONNX
graph (`edgeres.quantization.cost`); neither a framework nor a file is known here. How long it takes
on a board is `edgeres.estimation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeres.core.precision import Precision

VALUE_BYTES: Mapping[Precision, int] = {
    Precision.FP32: 4,
    Precision.FP16: 2,
    Precision.INT8: 1,
    Precision.FP8: 1,
}
"""Bytes of one weight or activation, by each precision that a whole network can have."""

CHANNEL_BYTES: Mapping[Precision, int] = {
    Precision.FP32: 4,
    Precision.FP16: 2,
    Precision.INT8: 8,
    Precision.FP8: 8,
}
"""Bytes that an output channel adds to the weights once batch normalisation is folded: a bias,
and in INT8 an INT32 bias and an FP32 scale. Source: ONNX QLinearConv, inputs B and w_scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorCost:
    """What one operator, or several together, holds and does for one image."""

    macs: int = 0
    """Multiply-accumulates of convolutions and classifier."""
    weights: int = 0
    """Kernel values, without biases."""
    channels: int = 0
    """Output channels of convolutions and classifier, each with one bias once folded."""
    inputs: int = 0
    """Activations read."""
    outputs: int = 0
    """Activations written."""

    @property
    def moved(self) -> int:
        """Activations read and written."""
        return self.inputs + self.outputs

    def weight_bytes(self, precision: Precision) -> int:
        """Returns the bytes of the weights with batch normalisation folded."""
        return self.weights * VALUE_BYTES[precision] + self.channels * CHANNEL_BYTES[precision]

    def moved_bytes(self, precision: Precision) -> int:
        """Returns the bytes that one image moves: every weight once, and the activations."""
        return self.weight_bytes(precision) + self.moved * VALUE_BYTES[precision]

    def intensity(self, precision: Precision) -> float:
        """Returns the arithmetic intensity at batch 1, in MACs per byte moved.

        Source: Williams et al. 2009, "Roofline", in MACs instead of floating-point operations.
        """
        return self.macs / self.moved_bytes(precision)

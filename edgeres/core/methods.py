"""How scales of activations and weights are chosen, and how accuracy is recovered."""

from __future__ import annotations

from edgeres.names import Name


class Method(Name):
    """How the threshold (amax) of an activation is chosen from its observed distribution."""

    MAX = "max"
    ENTROPY = "entropy"
    PERCENTILE = "percentile"
    MSE = "mse"
    AUTO = "auto"
    """By the logits of held-out calibration images, rather than by each tensor's distribution."""


class WeightMethod(Name):
    """How the scale of a weight's channel is chosen; every weight has one for each output channel."""

    MAX = "max"
    """The largest magnitude: nothing is clipped."""
    MSE = "mse"
    """The least mean squared error of rounding and clipping."""


class Recover(Name):
    """How accuracy is recovered after calibration, without training."""

    NONE = "none"
    BIAS = "bias"
    ADAROUND = "adaround"

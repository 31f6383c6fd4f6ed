"""Bias correction: each channel's bias takes up the mean by which quantization moves its output.

The means are of what the layer makes in the FP32 and in the quantized network, layers before
it corrected already, so what earlier layers left behind is corrected too. They are taken where
the ReLU lets the output through. Over all of the output, as the source has it, they are mostly
of values that the ReLU cuts off, which clipping moves most: on ResNet-50, whose thresholds clip
rare activations, that correction lost 10 dB of the logits, and this one gains 1. How much an
image counts is `layers.image_weights`' to say.
Source: Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias
Correction, section 4.2 and appendix D (empirical form); Finkelstein et al. 2019.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from edgeres.calibration.recovery.layers import Fitted, Layer, image_weights, powers_of
from edgeres.calibration.recovery.replay import Replay
from edgeres.quantization.recovered import Parameters

Array = NDArray[np.float32]


def fit_bias(
    layer: Layer, nearest: Parameters, replays: tuple[Replay, Replay], fitted: int
) -> Fitted:
    """Returns the bias that takes the mean error of a layer to zero.

    Args:
        layer: the convolution, as `nearest` in the second replay.
        nearest: its weight rounded to the nearest, and its bias as trained.
        replays: the FP32 network and the simulated one.
        fitted: number of images to fit on, of all; the rest judge.
    """
    fitted = replays[0].of(fitted)
    least = 0.0 if layer.relu else -np.inf
    images = _images(layer, replays)
    powers, missing, active = [], [], []
    for wanted, made in islice(images, fitted):
        through = made > least
        short = (np.maximum(wanted, least) - made) * through
        powers.append(powers_of(wanted[None]))
        missing.append(short.sum(axis=(1, 2), dtype=np.float64))
        active.append(through.sum(axis=(1, 2)))
    weights = image_weights(np.concatenate(powers))
    shift = weights @ np.array(missing) / np.maximum(weights @ np.array(active), 1)
    shift = shift.astype(np.float32)
    powers, errors = [], []
    for wanted, made in images:
        powers.append(powers_of(wanted[None]))
        errors.append(_errors(wanted, made, shift, least))
    before, after = image_weights(np.concatenate(powers)) @ np.array(errors) / len(errors)
    return Fitted(
        weight=nearest.weight, shift=shift, up=None, before=float(before), after=float(after)
    )


def _images(layer: Layer, replays: tuple[Replay, Replay]) -> Iterator[tuple[Array, Array]]:
    """Yields what each network makes of the layer's target, (O, h, w), image by image."""
    exact, twin = (replay.read([layer.target]) for replay in replays)
    for (wanted,), (made,) in zip(exact, twin, strict=True):
        yield from zip(wanted, made, strict=True)


def _errors(wanted: Array, made: Array, shift: Array, least: float) -> tuple[float, float]:
    """Returns the mean squared error of one image behind the ReLU, without and with the shift."""
    right = np.maximum(wanted, least)
    without, shifted = (
        float(np.square(np.maximum(values, least) - right).mean(dtype=np.float64))
        for values in (made, made + shift[:, None, None])
    )
    return without, shifted

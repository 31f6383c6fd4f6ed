"""What is expected of a bias correction, channel by channel: written out, for every test of one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def sure_means(wanted: Array, made: Array, weights: Array, *, relu: bool) -> NDArray[np.float64]:
    """Returns by how much each channel falls short where the ReLU lets it through, (O,).

    A mean counts as far as the images are sure of it: by the variance that the channels' means have,
    over that and the variance of a channel's own.

    Args:
        wanted: (N, O, h, w), what the FP32 network makes, before the ReLU.
        made: the same of the quantized one.
        weights: how much each image counts, (N,).
        relu: whether there is one.
    """
    means, variances = [], []
    for channel in range(wanted.shape[1]):
        sums, counts = [], []
        for image in range(len(wanted)):
            exact, found = (each[image, channel].astype(np.float64) for each in (wanted, made))
            through = found > 0 if relu else np.full(found.shape, True)
            exact = np.maximum(exact, 0) if relu else exact
            sums.append(weights[image] * (exact - found)[through].sum())
            counts.append(weights[image] * through.sum())
        total = max(sum(counts), 1e-12)
        mean = sum(sums) / total
        squares = sum((s - mean * c) ** 2 for s, c in zip(sums, counts, strict=True))
        means.append(mean)
        variances.append(squares / total**2 * len(sums) / (len(sums) - 1))
    between = max(0.0, float(np.mean(np.square(means) - variances)))
    return np.array(
        [m * between / (between + v) if m else 0.0 for m, v in zip(means, variances, strict=True)]
    )

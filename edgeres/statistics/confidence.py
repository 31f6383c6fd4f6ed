"""Whether a network is as often right as it is sure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Bins of equal width in [0, 1]. Source: Guo et al. 2017, section 5."""


def expected_calibration_error(
    confidence: NDArray[np.float32], right: NDArray[np.bool_], bins: int = BINS
) -> float:
    """Returns the gap between confidence and accuracy, averaged over bins of confidence.

    Args:
        confidence: (N,), probability of the class chosen, in (0, 1].
        right: (N,), whether that class is the label.
        bins: bins of equal width, closed above.

    Source: Guo et al. 2017, On calibration of modern neural networks, equation 3.
    """
    place = np.clip(np.ceil(confidence.astype(np.float64) * bins).astype(np.int64) - 1, 0, bins - 1)
    sure = np.bincount(place, weights=confidence, minlength=bins)
    hits = np.bincount(place, weights=right, minlength=bins)
    return float(np.abs(sure - hits).sum() / len(right))

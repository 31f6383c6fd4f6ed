"""Whether a network's confidence is its accuracy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Bins of equal width in [0, 1]. Source: Guo et al. 2017, section 5."""


def expected_calibration_error(
    confidence: NDArray[np.float32], correct: NDArray[np.bool_], bins: int = BINS
) -> float:
    """Returns the gap between confidence and accuracy, averaged over bins of confidence.

    Args:
        confidence: (N,), probability of the class chosen, in (0, 1].
        correct: (N,), whether that class is the label.
        bins: bins of equal width, closed above.

    Source: Guo et al. 2017, On calibration of modern neural networks, equation 3.
    """
    # Bins are closed above: 1/15 is in the first, and 1.0 in the last.
    bin_of = np.clip(
        np.ceil(confidence.astype(np.float64) * bins).astype(np.int64) - 1, 0, bins - 1
    )
    # Sums, not means: a bin's share of the images is then in the difference already.
    confident = np.bincount(bin_of, weights=confidence, minlength=bins)
    hits = np.bincount(bin_of, weights=correct, minlength=bins)
    return float(np.abs(confident - hits).sum() / len(correct))

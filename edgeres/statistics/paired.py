"""The difference of two networks on the same images: tests, intervals, bounds and sample sizes.

Only the images on which one is correct and the other wrong (the flips) distinguish two networks.
A drop is the accuracy of the first minus that of the second, as a fraction. Beside them, whether a
network's confidence is its accuracy.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, sqrt

import numpy as np
import scipy
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


Z95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution, for a two-sided 95 % interval."""

GATE_CONFIDENCE = 0.95
"""Confidence of the one-sided bound that a gate holds against its limit.

Summed exactly over all outcomes for limits of 0 to 2 pp, 500 to 10000 images and 90 to 99.5 %
agreement, an engine whose true drop is 0.1 pp over the limit passes in at most 4.4 % of runs; one
at the limit in at most 5.5 %.
"""

_Z_GATE = 1.6448536269514722
"""95 % quantile of the standard normal distribution."""

_Z_POWER = 0.8416212335729143
"""80 % quantile of it: the chance that a test with the images named decides."""

_MOST_IMAGES = 10**9
"""More images than this are no advice: the drop is as good as at the limit."""


def mcnemar_p(newly_correct: int, newly_wrong: int) -> float:
    """Returns the two-sided exact McNemar p value that flips go either way equally often.

    Source: McNemar 1947 with the binomial distribution in place of chi squared. Without a flip
    there is no evidence against the two networks being equal: 1.
    """
    flips = newly_correct + newly_wrong
    return float(scipy.stats.binomtest(newly_wrong, flips, 0.5).pvalue) if flips else 1.0


def class_q_values(flips: Iterable[tuple[int, int]]) -> tuple[tuple[float, float], ...]:
    """Returns each class's p value, and that after correction for their number.

    Classes share no image, so their tests are independent, as the correction requires.

    Args:
        flips: newly correct and newly wrong images of each class.

    Source: Benjamini and Hochberg 1995, the false discovery rate.
    """
    p_values = [mcnemar_p(correct, wrong) for correct, wrong in flips]
    corrected = scipy.stats.false_discovery_control(p_values, method="bh") if p_values else ()
    return tuple((p, float(q)) for p, q in zip(p_values, corrected, strict=True))


def drop_interval(newly_correct: int, newly_wrong: int, samples: int) -> tuple[float, float]:
    """Returns the 95 % interval of the drop in accuracy, as fractions in [-1, 1].

    The interval holds every drop that the score test does not reject. Its exact coverage, summed
    over all outcomes for drops of 0, 0.3 and 1 pp, 500 to 10000 images and 90 to 99.5 %
    agreement, is 94.5 to 95.3 % where 20 flips or more are expected and up to 98.8 % where fewer
    are; Newcombe's method 10 reaches 96.7 and 99.9 %.

    Args:
        newly_correct: images that only the second network has correct.
        newly_wrong: images that only the first has correct.
        samples: all images.

    Source: Tango 1998, Statistics in Medicine 17, 891-908.
    """
    return (
        -_upper_limit(newly_correct, newly_wrong, samples, Z95),
        _upper_limit(newly_wrong, newly_correct, samples, Z95),
    )


def drop_bound(newly_correct: int, newly_wrong: int, samples: int) -> float:
    """Returns what the drop is below with `GATE_CONFIDENCE`, as a fraction in [-1, 1].

    Source: the one-sided score limit of Tango 1998; as a test of non-inferiority also Nam 1997.
    """
    return _upper_limit(newly_wrong, newly_correct, samples, _Z_GATE)


def images_needed(newly_correct: int, newly_wrong: int, samples: int, limit: float) -> int | None:
    """Returns how many images in all would decide which side of `limit` the drop is on.

    It takes the shares of flips to be those measured, and requires that the one-sided bound falls
    on their side of the limit in 80 % of runs. None where the drop is at the limit,
    so that no number would.

    Args:
        newly_correct: images that only the second network has correct.
        newly_wrong: images that only the first has correct.
        samples: all images.
        limit: a drop, as a fraction.

    Source: Nam 1997, Biometrics 53, 1422-1430, sample size of the score test of non-inferiority:
    (z_alpha sigma_0 + z_beta sigma_1)^2 over the squared distance, sigma_0 at the limit.
    """
    first, second = newly_wrong / samples, newly_correct / samples
    drop = first - second
    # Above the limit the lower bound decides: the same test with the networks exchanged.
    side, bound = (-1, -limit) if drop > limit else (1, limit)
    at_limit = _variance(bound, *((first, second) if side > 0 else (second, first)), 1)
    spread = _Z_GATE * sqrt(at_limit) + _Z_POWER * sqrt(first + second - drop * drop)
    distance = abs(limit - drop)
    return ceil((spread / distance) ** 2) if spread < distance * _MOST_IMAGES**0.5 else None


def _upper_limit(wrong: float, correct: float, samples: float, z: float) -> float:
    """Returns the largest drop that the score test at `z` does not reject."""

    def slack(drop: float) -> float:
        return wrong - correct - samples * drop + z * sqrt(_variance(drop, wrong, correct, samples))

    # Without a flip the slack is zero at the estimate too: the search starts just above it.
    estimate = min((wrong - correct) / samples + 1e-12, 1.0)
    return float(scipy.optimize.brentq(slack, estimate, 1.0, xtol=1e-12))


def _variance(drop: float, wrong: float, correct: float, samples: float) -> float:
    """Returns the variance of the difference `wrong - correct` of flips if `drop` were true.

    The share of newly correct images is the likeliest under that drop, the larger root of
    `a x^2 + b x + c = 0`. Source: Tango 1998, section 3.
    """
    a = 2 * samples
    b = -wrong - correct + (2 * samples - wrong + correct) * drop
    c = -correct * drop * (1 - drop)
    # Rounding may leave a double root with a discriminant just below zero.
    share = (sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    return max(samples * (2 * share + drop * (1 - drop)), 0.0)

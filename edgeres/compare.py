"""Two results and the limits on them: the statistics of a paired difference, and the verdict.

The same images went through both networks, so only the images on which one is right and the
other wrong (the flips) tell them apart. Knows no runner, image or clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import sqrt
from typing import Any

from scipy.optimize import brentq
from scipy.stats import binomtest

from edgeres.errors import ConfigError
from edgeres.evaluate import Outcomes
from edgeres.results import (
    EXIT_ACCURACY,
    EXIT_SPEED,
    Check,
    Comparison,
    PairedAccuracy,
    PairedLatency,
)
from edgeres.spec import BenchConfig

Z95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution, for a two-sided 95 % interval."""


def paired_accuracy(outcomes: Outcomes) -> PairedAccuracy:
    """Returns the accuracy of both networks and how sure their difference is."""
    gained, lost = int(outcomes.gained.sum()), int(outcomes.lost.sum())
    samples = len(outcomes.labels)
    low, high = drop_interval(gained, lost, samples)
    return PairedAccuracy(
        reference=outcomes.reference.accuracy,
        engine=outcomes.engine.accuracy,
        gained=gained,
        lost=lost,
        # One division: a drop of exactly 0.3 pp is then the same float as a limit of 0.3.
        drop_pp=100 * (lost - gained) / samples,
        ci95_pp=(100 * low, 100 * high),
        p_value=mcnemar_p(gained, lost),
    )


def mcnemar_p(gained: int, lost: int) -> float:
    """Returns the two-sided exact McNemar p value: flips are as likely gained as lost.

    Source: McNemar 1947 with the binomial distribution in place of chi squared. Without a flip
    nothing speaks against the two networks being equal: 1.
    """
    flips = gained + lost
    return float(binomtest(lost, flips, 0.5).pvalue) if flips else 1.0


def drop_interval(gained: int, lost: int, samples: int) -> tuple[float, float]:
    """Returns the 95 % interval of the drop in accuracy, as fractions in [-1, 1].

    The interval holds every drop that the score test does not reject. Its exact coverage, summed
    over all outcomes for drops of 0, 0.3 and 1 pp, 500 to 10000 images and 90 to 99.5 %
    agreement, is 94.5 to 95.3 % where 20 flips or more are expected and up to 98.8 % where fewer
    are; Newcombe's method 10 reaches 96.7 and 99.9 %.

    Args:
        gained: images that only the engine has right.
        lost: images that only the reference has right.
        samples: all images.

    Source: Tango 1998, Statistics in Medicine 17, 891-908.
    """
    return -_upper_limit(gained, lost, samples), _upper_limit(lost, gained, samples)


def compare(
    accuracy: PairedAccuracy,
    latency: PairedLatency | None,
    config: BenchConfig,
    environment: Mapping[str, Any],
    warnings: Iterable[str] = (),
) -> Comparison:
    """Returns the verdict: what was found, and whether it keeps the limits of `config`.

    Args:
        accuracy: of both networks.
        latency: of both networks; None where the engine was not run on its target.
        config: its limits; a limit that is None makes no check.
        environment: JSON object that describes the machine.
        warnings: sentences on what weakens the verdict.

    Raises:
        ConfigError: a limit on speed is set but no latency was measured.
    """
    return Comparison(
        accuracy=accuracy,
        latency=latency,
        environment=environment,
        checks=(*_accuracy_checks(accuracy, config), *_speed_checks(latency, config)),
        warnings=tuple(warnings),
    )


def _accuracy_checks(accuracy: PairedAccuracy, config: BenchConfig) -> tuple[Check, ...]:
    limit = config.max_drop_pp
    if limit is None:
        return ()
    return (
        Check(
            name="accuracy_drop",
            limit=limit,
            value=accuracy.drop_pp,
            passed=accuracy.drop_pp <= limit,
            exit_code=EXIT_ACCURACY,
        ),
    )


def _speed_checks(latency: PairedLatency | None, config: BenchConfig) -> tuple[Check, ...]:
    limit = config.min_speedup
    if limit is None:
        return ()
    if latency is None:
        raise ConfigError(
            f"--min-speedup {limit:g} cannot be checked: no latency was measured, because the "
            "engine was not run on its target. Run bench there, or leave --min-speedup out."
        )
    return (
        Check(
            name="speedup",
            limit=limit,
            value=latency.speedup,
            passed=latency.speedup >= limit,
            exit_code=EXIT_SPEED,
        ),
    )


def _upper_limit(lost: int, gained: int, samples: int) -> float:
    """Returns the largest drop that the score test does not reject."""

    def slack(drop: float) -> float:
        return lost - gained - samples * drop + Z95 * sqrt(_variance(drop, lost, gained, samples))

    # Without a flip the slack is zero at the estimate too: the search starts just above it.
    estimate = min((lost - gained) / samples + 1e-12, 1.0)
    return float(brentq(slack, estimate, 1.0, xtol=1e-12))


def _variance(drop: float, lost: int, gained: int, samples: int) -> float:
    """Returns the variance of `lost - gained` if `drop` were true.

    The share of gained images is the likeliest under that drop, the larger root of
    `a x^2 + b x + c = 0`. Source: Tango 1998, section 3.
    """
    a = 2 * samples
    b = -lost - gained + (2 * samples - lost + gained) * drop
    c = -gained * drop * (1 - drop)
    share = (sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    return max(samples * (2 * share + drop * (1 - drop)), 0.0)

"""Later runs against earlier ones, and engines against each other: by test, not by eye.

Knows verdicts and nothing else. Accuracy is compared image by image, latency relative to the
reference that each run timed in turns with its engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgeres.core.verdict import (
    EXIT_ACCURACY,
    EXIT_SPEED,
    AccuracyChange,
    Check,
    ImageRecord,
    Interval,
    LatencyChange,
    LatencyStats,
    PairedLatency,
    PastRun,
    Ranking,
    Regression,
    Standing,
)
from edgeres.errors import ConfigError
from edgeres.statistics import (
    FEWEST_BLOCKS,
    BlockBootstrap,
    draw_blocks,
    drop_interval,
    interval95,
    mcnemar_p,
)


def check_same_images(fingerprint: str, baseline: PastRun) -> None:
    """Checks that the baseline was judged on the same images in the same order.

    Raises:
        ConfigError: it was not.
    """
    if baseline.images.fingerprint != fingerprint:
        raise ConfigError(
            f"The baseline {baseline.name} was judged on {baseline.samples} other images, or on "
            "these in another order, so that it cannot be compared image by image. Pass the same "
            "--data, --samples and --seed, or make the baseline again."
        )


def against_baseline(
    baseline: PastRun,
    images: ImageRecord,
    latency: PairedLatency | None,
    *,
    machine: str,
    reference_sha256: str,
) -> Regression:
    """Returns how this run compares with an earlier one on the same images.

    Args:
        baseline: the earlier run.
        images: which images are correct in this run.
        latency: of this run; None where its engine was only simulated.
        machine: processor and GPUs of this run.
        reference_sha256: hash of the reference of this run.

    Raises:
        ConfigError: the images are not the same.
    """
    check_same_images(images.fingerprint, baseline)
    before, reason, change = baseline.latency, None, None
    if latency is None or before is None:
        without = "this run" if latency is None else baseline.name
        reason = f"{without} has no latency: its engine was only simulated."
    else:
        conditions = {
            "machines": (baseline.machine, machine),
            "latency batches": (before.batch_size, latency.batch_size),
            "references": (baseline.reference_sha256[:12], reference_sha256[:12]),
        }
        differing = [f"{name} ({a} and {b})" for name, (a, b) in conditions.items() if a != b]
        if differing:
            reason = f"The two runs have different {', '.join(differing)}."
        else:
            change = LatencyChange(
                ratio=before.speedup / latency.speedup,
                ci95=_ratio_interval(latency, before),
                raw_ratio=latency.engine.p50_ms / before.engine.p50_ms,
            )
    return Regression(
        baseline=baseline.name,
        accuracy=_accuracy_change(images, baseline.images),
        latency=change,
        latency_reason=reason,
    )


def baseline_checks(regression: Regression, max_slowdown: float) -> tuple[Check, ...]:
    """Returns the checks against the baseline: nothing significant may have become worse.

    Args:
        regression: this run against the baseline.
        max_slowdown: part by which the latency may grow, such as 0.05.
    """
    checks = [_accuracy_check(regression)]
    if regression.latency is not None:
        checks.append(_latency_check(regression.baseline, regression.latency, max_slowdown))
    return tuple(checks)


def rank(runs: Sequence[PastRun]) -> Ranking:
    """Returns how engines stand against each other in accuracy and latency.

    Raises:
        ConfigError: there are fewer than two, or two of one name.
    """
    names = [run.name for run in runs]
    if len(runs) < 2 or len(set(names)) < len(names):
        raise ConfigError(
            f"{len(runs)} verdicts were given ({', '.join(names)}); expected 2 or more, each with "
            "a file name of its own."
        )
    return Ranking(
        standings=tuple(_standing(run, runs) for run in runs), warnings=_ranking_warnings(runs)
    )


def _accuracy_change(now: ImageRecord, before: ImageRecord) -> AccuracyChange:
    pairs = list(zip(before.engine, now.engine, strict=True))
    gained, lost = pairs.count(("0", "1")), pairs.count(("1", "0"))
    low, high = drop_interval(gained, lost, len(pairs))
    return AccuracyChange(
        gained=gained,
        lost=lost,
        drop_pp=100 * (lost - gained) / len(pairs),
        ci95_pp=(100 * low, 100 * high),
        p_value=mcnemar_p(gained, lost),
    )


def _ratio_interval(now: PairedLatency, before: PairedLatency) -> Interval | None:
    """Returns the 95 % interval of the ratio; the turns of each run are drawn by themselves."""
    counts = [latency.engine.blocks[-1] + 1 for latency in (now, before)]
    if min(counts) < FEWEST_BLOCKS:
        return None
    draws = [draw_blocks(count, seed=seed) for seed, count in enumerate(counts)]
    relative = []
    for latency, choices in zip((now, before), draws, strict=True):
        engine, reference = (_medians(s, choices) for s in (latency.engine, latency.reference))
        relative.append(engine / reference)
    return interval95(relative[0] / relative[1])


def _medians(series: LatencyStats, choices: NDArray[np.int64]) -> NDArray[np.float64]:
    return BlockBootstrap(series.samples_ms, series.blocks, choices).percentile(50)


def _accuracy_check(regression: Regression) -> Check:
    change = regression.accuracy
    low, high = change.ci95_pp
    passed = low <= 0
    found = f"{change.lost} images lost and {change.gained} gained against {regression.baseline}"
    sure = "no significant drop" if passed else "a significant drop"
    return Check(
        name="baseline_accuracy",
        limit=0,
        value=change.drop_pp,
        passed=passed,
        exit_code=EXIT_ACCURACY,
        reason=f"{found}, {sure}: {change.drop_pp:.2f} pp, 95 % interval {low:.2f} to {high:.2f}",
    )


def _latency_check(baseline: str, change: LatencyChange, max_slowdown: float) -> Check:
    """Fails where the whole interval lies above the limit; without one, where the ratio does."""
    limit = 1 + max_slowdown
    surely = change.ratio if change.ci95 is None else change.ci95[0]
    passed = surely <= limit
    ends = "" if change.ci95 is None else f" ({change.ci95[0]:.3f} to {change.ci95[1]:.3f})"
    return Check(
        name="baseline_latency",
        limit=limit,
        value=change.ratio,
        passed=passed,
        exit_code=EXIT_SPEED,
        reason=f"latency {change.ratio:.3f} times that of {baseline}{ends}, "
        f"{'not shown to be over' if passed else 'over'} the limit of {limit:g}",
    )


def _standing(run: PastRun, runs: Sequence[PastRun]) -> Standing:
    better = [other.name for other in runs if _dominates(other, run)]
    same_images = run.images.fingerprint == runs[0].images.fingerprint
    compared = run is not runs[0] and same_images
    return Standing(
        run=run,
        dominated_by=better[0] if better else None,
        on_front=run.latency is not None and not better,
        against_first=_accuracy_change(run.images, runs[0].images) if compared else None,
    )


def _dominates(other: PastRun, run: PastRun) -> bool:
    """Whether `other` is at least as good in accuracy and latency, and better in one."""
    if other.latency is None or run.latency is None:
        return False
    theirs = (-other.top1, other.latency.engine.p50_ms)
    own = (-run.top1, run.latency.engine.p50_ms)
    return theirs != own and theirs[0] <= own[0] and theirs[1] <= own[1]


def _ranking_warnings(runs: Sequence[PastRun]) -> tuple[str, ...]:
    timed = [run for run in runs if run.latency is not None]
    told: Mapping[str, Sequence[object]] = {
        "judged on different images, so their accuracy": [r.images.fingerprint for r in runs],
        "timed on different machines, so their latency": [run.machine for run in timed],
        "timed with different batches, so their latency": [
            run.latency.batch_size for run in timed if run.latency is not None
        ],
    }
    return tuple(
        f"The engines were {fact} differs for that reason too."
        for fact, values in told.items()
        if len(set(values)) > 1
    )

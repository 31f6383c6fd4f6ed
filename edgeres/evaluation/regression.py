"""Later runs compared with earlier ones, and engines with each other: by test, not by eye.

Knows verdicts and the stability of a machine. Accuracy is compared image by image, latency relative to the
reference that each run timed interleaved with its engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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
    MeasuredThroughput,
    Outcome,
    PairedLatency,
    PastRun,
    Ranking,
    Regression,
    Standing,
)
from edgeres.errors import ConfigError
from edgeres.machine import Stability
from edgeres.plurals import counted
from edgeres.statistics import (
    FEWEST_BLOCKS,
    BlockBootstrap,
    draw_blocks,
    drop_interval,
    interval95,
    mcnemar_p,
)


def check_same_images(fingerprint: str, baseline: PastRun) -> None:
    """Checks that the baseline was evaluated on the same images in the same order.

    Raises:
        ConfigError: it was not.
    """
    if baseline.images.fingerprint != fingerprint:
        raise ConfigError(
            f"The baseline {baseline.name} was evaluated on "
            f"{counted(baseline.samples, 'other image')}, or on these in another order, so that it "
            "cannot be compared image by image. Pass the same --data, --samples and --seed, or "
            "make the baseline again."
        )


def against_baseline(
    baseline: PastRun,
    images: ImageRecord,
    latency: PairedLatency | None,
    throughput: MeasuredThroughput | None = None,
    *,
    machine: str,
    reference_sha256: str,
) -> Regression:
    """Returns how this run compares with an earlier one on the same images.

    Args:
        baseline: the earlier run.
        images: which images are correct in this run.
        latency: of this run; None where its engine was only simulated.
        throughput: of this run; None where it was not measured.
        machine: processor and GPUs of this run.
        reference_sha256: hash of the reference of this run.

    Raises:
        ConfigError: the images are not the same.
    """
    check_same_images(images.fingerprint, baseline)
    conditions: dict[str, tuple[object, object]] = {
        "machines": (baseline.machine, machine),
        "references": (baseline.reference_sha256[:12], reference_sha256[:12]),
    }
    before, reason, change = baseline.latency, None, None
    if latency is None or before is None:
        without = "this run" if latency is None else baseline.name
        reason = f"{without} has no latency: its engine was only simulated."
    else:
        batches = (before.batch_size, latency.batch_size)
        if not (reason := _difference({**conditions, "latency batches": batches})):
            # Relative to the reference of its own run, a machine that is slower altogether cancels.
            ratio = before.speedup / latency.speedup
            change = LatencyChange(
                ratio=ratio,
                ci95=_ratio_interval(latency, before, ratio, _medians),
                raw_ratio=latency.engine.p50_ms / before.engine.p50_ms,
            )
    earlier, streams_reason, streams_change = baseline.measured_throughput, None, None
    if throughput is not None and earlier is not None:
        conditions["latency batches"] = (earlier.batch_size, throughput.batch_size)
        conditions["streams"] = (earlier.streams, throughput.streams)
        if not (streams_reason := _difference(conditions)):
            ratio = earlier.ratio / throughput.ratio
            streams_change = LatencyChange(
                ratio=ratio,
                ci95=_ratio_interval(throughput, earlier, ratio, BlockBootstrap.mean),
                raw_ratio=throughput.engine.mean_ms / earlier.engine.mean_ms,
            )
    elif throughput is not None or earlier is not None:
        without = "this run" if throughput is None else baseline.name
        streams_reason = f"{without} did not measure it: pass --streams to both."
    return Regression(
        baseline=baseline.name,
        baseline_disturbances=baseline.disturbances,
        accuracy=_accuracy_change(images, baseline.images),
        latency=change,
        latency_reason=reason,
        throughput=streams_change,
        throughput_reason=streams_reason,
    )


def _difference(conditions: Mapping[str, tuple[object, object]]) -> str | None:
    """Returns in which conditions two runs differ, in a sentence; None where in none."""
    differing = [f"{name} ({a} and {b})" for name, (a, b) in conditions.items() if a != b]
    return f"The two runs have different {', '.join(differing)}." if differing else None


def baseline_checks(
    regression: Regression, max_slowdown: float, stability: Stability | None
) -> tuple[Check, ...]:
    """Returns the checks against the baseline: nothing significant may have become worse.

    Args:
        regression: this run against the baseline.
        max_slowdown: fraction by which the latency may grow, such as 0.05.
        stability: of the machine during this run; None where the engine was only simulated.
    """
    change = regression.accuracy
    low, high = change.ci95_pp
    # A drop is significant where its whole interval lies above zero.
    unchanged = low <= 0
    checks = [
        Check(
            name="baseline_accuracy",
            limit=0,
            value=change.drop_pp,
            outcome=Outcome.of(unchanged),
            exit_code=EXIT_ACCURACY,
            reason=f"{counted(change.lost, 'image')} newly wrong and {change.gained} newly "
            "correct compared "
            f"with {regression.baseline}, {'no' if unchanged else 'a'} significant drop: "
            f"{change.drop_pp:.2f} pp, 95 % interval {low:.2f} to {high:.2f}",
        )
    ]
    own = () if stability is None else stability.disturbances
    # Both networks slow down under load, and not alike; the wider interval of such a run, and the
    # slower engine of such a baseline, would let a slower engine pass.
    disturbed = [f"not to be trusted: {one.sentence.removesuffix('.')}" for one in own]
    disturbed += [
        f"{regression.baseline} is not to be trusted: {sentence.removesuffix('.')}; "
        "make the baseline again"
        for sentence in regression.baseline_disturbances
    ]
    limit = 1 + max_slowdown
    for name, what, times in (
        ("baseline_latency", "latency", regression.latency),
        ("baseline_throughput", "time of a batch with several streams", regression.throughput),
    ):
        if times is None:
            continue
        # The lower end: only a run that is significantly slower fails.
        kept = (times.ratio if times.ci95 is None else times.ci95[0]) <= limit
        undecided = kept and bool(disturbed)
        ends = "" if times.ci95 is None else f" ({times.ci95[0]:.3f} to {times.ci95[1]:.3f})"
        checks.append(
            Check(
                name=name,
                limit=limit,
                value=times.ratio,
                outcome=Outcome.INCONCLUSIVE if undecided else Outcome.of(kept),
                exit_code=EXIT_SPEED,
                reason=f"{what} {times.ratio:.3f} times that of {regression.baseline}{ends}, "
                f"{'not significantly above' if kept else 'above'} the limit of {limit:g}"
                + "".join(f"; {words}" for words in disturbed if kept),
            )
        )
    return tuple(checks)


def rank(runs: Sequence[PastRun]) -> Ranking:
    """Returns how engines compare with each other in accuracy and latency.

    Raises:
        ConfigError: there are fewer than two, or two of one name.
    """
    names = [run.name for run in runs]
    if len(runs) < 2 or len(set(names)) < len(names):
        raise ConfigError(
            f"{counted(len(runs), 'verdict')} to compare ({', '.join(names)}); expected 2 or more, "
            "each with a file name of its own."
        )
    first, standings = runs[0], []
    for run in runs:
        dominating = next((other.name for other in runs if _dominates(other, run)), None)
        comparable = run is not first and run.images.fingerprint == first.images.fingerprint
        standings.append(
            Standing(
                run=run,
                dominated_by=dominating,
                on_front=run.latency is not None and dominating is None,
                against_first=_accuracy_change(run.images, first.images) if comparable else None,
            )
        )
    differences: Mapping[str, set[object]] = {
        "evaluated on different images, so their accuracy": {r.images.fingerprint for r in runs},
        "timed on different machines, so their latency": {r.machine for r in runs if r.latency},
        "timed with different numbers of streams, so their throughput": {
            r.throughput.streams for r in runs if r.throughput
        },
    }
    return Ranking(
        standings=tuple(standings),
        warnings=tuple(
            f"The engines were {fact} differs for that reason too."
            for fact, values in differences.items()
            if len(values) > 1
        ),
    )


def _accuracy_change(now: ImageRecord, before: ImageRecord) -> AccuracyChange:
    pairs = list(zip(before.engine, now.engine, strict=True))
    newly_correct, newly_wrong = pairs.count(("0", "1")), pairs.count(("1", "0"))
    low, high = drop_interval(newly_correct, newly_wrong, len(pairs))
    return AccuracyChange(
        gained=newly_correct,
        lost=newly_wrong,
        drop_pp=100 * (newly_wrong - newly_correct) / len(pairs),
        ci95_pp=(100 * low, 100 * high),
        p_value=mcnemar_p(newly_correct, newly_wrong),
    )


def _medians(resampled: BlockBootstrap) -> NDArray[np.float64]:
    return resampled.percentile(50)


def _ratio_interval(
    now: PairedLatency | MeasuredThroughput,
    before: PairedLatency | MeasuredThroughput,
    ratio: float,
    figure: Callable[[BlockBootstrap], NDArray[np.float64]],
) -> Interval | None:
    """Returns the 95 % interval of the ratio of two runs' relative times; None for too few blocks.

    Args:
        now: the later run.
        before: the earlier one.
        ratio: of the samples themselves.
        figure: what each draw is summarized by.
    """
    counts = [run.engine.blocks[-1] + 1 for run in (now, before)]
    if min(counts) < FEWEST_BLOCKS:
        return None
    relative = []
    for seed, (run, count) in enumerate(zip((now, before), counts, strict=True)):
        # Within a run the same blocks of both networks are drawn, as they alternated; between
        # the runs the draws are independent.
        drawn = draw_blocks(count, seed=seed)
        engine, reference = (
            figure(BlockBootstrap(stats.samples_ms, stats.blocks, drawn))
            for stats in (run.engine, run.reference)
        )
        relative.append(engine / reference)
    return interval95(relative[0] / relative[1], ratio, min(counts))


def _dominates(other: PastRun, run: PastRun) -> bool:
    """Whether `other` is at least as good in accuracy and latency, and better in one."""
    if other.latency is None or run.latency is None:
        return False
    # A batch of eight takes longer than one image and is no slower for that.
    if other.latency.batch_size != run.latency.batch_size:
        return False
    # Lower is better in both; equal engines do not dominate each other.
    theirs = (-other.top1, other.latency.engine.p50_ms)
    own = (-run.top1, run.latency.engine.p50_ms)
    return theirs != own and theirs[0] <= own[0] and theirs[1] <= own[1]

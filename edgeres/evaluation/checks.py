"""Limits on accuracy, speed, stability and LoadGen: whether an engine keeps each, and why."""

from __future__ import annotations

import math
from dataclasses import replace

import scipy

from edgeres.core.bench_requests import Decision
from edgeres.core.verdict import (
    EXIT_ACCURACY,
    EXIT_MISMATCH,
    EXIT_SPEED,
    EXIT_UNSTABLE,
    Accuracy,
    Check,
    LoadGenResult,
    Outcome,
    PairedAccuracy,
    PairedLatency,
)
from edgeres.evaluation.benchmark import BLOCK
from edgeres.evaluation.mistakes import Diagnosis
from edgeres.evaluation.mistakes.values import LEVEL, LOW_ACCURACY
from edgeres.machine import Severity, Stability, StabilityFinding
from edgeres.plurals import counted, percent
from edgeres.statistics import FEWEST_BLOCKS, GATE_CONFIDENCE, drop_bound, images_needed

ACCURACY_DROP = "accuracy_drop"
"""Name of the check on top-1 accuracy."""

_BOUND = f"one-sided {100 * GATE_CONFIDENCE:g} % bound"


def accuracy_check(
    accuracy: PairedAccuracy,
    limit: float,
    decision: Decision,
    unseen: PairedAccuracy | None = None,
) -> Check:
    """Returns whether the drop in top-1 accuracy keeps its limit.

    Args:
        accuracy: of both networks.
        limit: largest accepted drop in percentage points.
        decision: as for `_drop_check`.
        unseen: on the images that the engine was not made with, where it was with others of them.
    """
    check = _drop_check(accuracy, limit, decision)
    if unseen is None or check.outcome is not Outcome.PASS:
        return check
    # The other images favour the engine: what fails on them fails, but what passes shows nothing.
    check = _drop_check(unseen, limit, decision)
    where = f"on the {counted(unseen.engine.samples, 'image')} that the engine was not made with"
    return replace(check, reason=f"{where}: {check.reason}")


def unseen_check(samples: int, used_for: str) -> Check:
    """Returns that nothing is known of images that the engine was not made with: it was with all.

    Args:
        samples: images that were evaluated.
        used_for: what they had been used for, such as calibration.
    """
    return Check(
        name="unseen_images",
        limit=1,
        value=0,
        outcome=Outcome.INCONCLUSIVE,
        exit_code=EXIT_ACCURACY,
        reason=f"{used_for} used all {samples} of these images: the engine fits them, "
        "and what it loses on others is not known",
        next_step=f"evaluate on images that were not used for {used_for}",
    )


def _drop_check(accuracy: PairedAccuracy, limit: float, decision: Decision) -> Check:
    """Returns whether the drop on these images keeps its limit.

    Args:
        accuracy: of both networks.
        limit: largest accepted drop in percentage points.
        decision: what is compared with it: `POINT`, the measured drop; `BOUND`, its one-sided
            upper confidence bound, so that too few images leave it undecided.
    """
    drop, samples = accuracy.drop_pp, accuracy.engine.samples
    value = format_against_limit(drop, limit)
    # A negative drop is reported as a gain, without its minus sign.
    measured = f"accuracy gain {value[1:]} pp" if drop < 0 else f"accuracy drop {value} pp"
    if decision is Decision.POINT:
        kept = drop <= limit
        return Check(
            name=ACCURACY_DROP,
            limit=limit,
            value=drop,
            outcome=Outcome.of(kept),
            exit_code=EXIT_ACCURACY,
            reason=f"{measured}, {'within' if kept else 'over'} the drop limit of {limit:g} pp",
            rule=decision.value,
        )
    upper = 100 * drop_bound(accuracy.gained, accuracy.lost, samples)
    # The upper bound of the gain, with its sign reversed, is the lower bound of the drop.
    lower = -100 * drop_bound(accuracy.lost, accuracy.gained, samples)
    needed, next_step = None, ""
    # Not at the limit: a bound there leaves a drop of just that possible.
    if upper < limit or lower > limit:
        outcome = Outcome.of(upper < limit)
        side, bound, relation = (
            ("at most", upper, "below") if upper < limit else ("at least", lower, "over")
        )
        reason = (
            f"{measured}, {'a drop of ' if drop < 0 else ''}{side} "
            f"{format_against_limit(bound, limit)} pp ({_BOUND}): {relation} the drop limit of "
            f"{limit:g} pp"
        )
    else:
        outcome = Outcome.INCONCLUSIVE
        needed = images_needed(accuracy.gained, accuracy.lost, samples, limit / 100)
        reason = (
            f"{counted(samples, 'image')} cannot decide: {measured}, {lower:.2f} to {upper:.2f} pp "
            f"({_BOUND}s), and the drop limit of {limit:g} pp is within"
        )
        next_step = (
            "the drop is too close to the limit for any number of images to decide"
            if needed is None
            else f"{needed - samples:,} more images, about {needed:,} in all, would show that the "
            f"drop is {'over' if drop > limit else 'below'} the limit"
        )
    return Check(
        name=ACCURACY_DROP,
        limit=limit,
        value=upper,
        outcome=outcome,
        exit_code=EXIT_ACCURACY,
        reason=reason,
        next_step=next_step,
        rule=decision.value,
        images_needed=needed,
    )


def speedup_check(
    latency: PairedLatency,
    limit: float,
    decision: Decision,
    stability: Stability | None = None,
) -> Check:
    """Returns whether the engine is faster than the reference by at least a factor of `limit`.

    Args:
        latency: of both networks.
        limit: smallest accepted ratio.
        decision: what is compared with it: `POINT`, the measured ratio; `BOUND`, its 95 % interval,
            so that too few inferences leave it undecided.
        stability: of the machine meanwhile; what disturbed it decides nothing in the engine's favour.
    """
    value, ends = latency.speedup, latency.speedup_ci95
    if decision is Decision.POINT:
        low = high = value
    else:
        # Without an interval a ratio of times is above zero, and no more is known.
        low, high = ends or (0.0, math.inf)
    shown = "" if ends is None else f" (95 % interval {ends[0]:.3g} to {ends[1]:.3g})"
    reason = f"{format_against_limit(value, limit)} times as fast{shown}"
    disturbed: tuple[StabilityFinding, ...] = ()
    next_step = ""
    if high < limit:
        outcome, reason = Outcome.FAIL, f"{reason}, short of the {limit:g} requested"
    elif low >= limit:
        # Other load slows the slower network more than the faster one, or the other way round.
        disturbed = () if stability is None else stability.disturbances
        outcome = Outcome.INCONCLUSIVE if disturbed else Outcome.PASS
        reason += f", at least the {limit:g} requested"
    else:
        outcome = Outcome.INCONCLUSIVE
        reason = f"the timing cannot decide: {reason}, and " + (
            f"the limit of {limit:g} is within"
            if ends
            else f"too few inferences for an interval to compare with the limit of {limit:g}"
        )
        next_step = (
            "time more inferences with --iterations, on a machine that does nothing else"
            if ends
            else f"time {FEWEST_BLOCKS * BLOCK} inferences or more with --iterations"
        )
    return Check(
        name="speedup",
        limit=limit,
        value=value,
        outcome=outcome,
        exit_code=EXIT_SPEED,
        reason=reason
        + "".join(f"; not to be trusted: {d.sentence.removesuffix('.')}" for d in disturbed),
        next_step=next_step,
    )


def stability_check(stability: Stability) -> Check:
    """Returns whether the machine was stable while it was measured on; if not, nothing is decided."""
    # A warning weakens the figures; only instability makes them those of another machine.
    unstable = [f.sentence for f in stability.findings if f.severity is Severity.UNSTABLE]
    return Check(
        name="stability",
        limit=0,
        value=len(unstable),
        outcome=Outcome.INCONCLUSIVE if unstable else Outcome.PASS,
        exit_code=EXIT_UNSTABLE,
        reason="the measurement cannot be trusted: " + " ".join(unstable).removesuffix(".")
        if unstable
        else "the machine was stable during the measurement",
    )


def loadgen_check(result: LoadGenResult) -> Check:
    """Returns whether LoadGen calls its run VALID, with its reasons where it does not."""
    reason = f"LoadGen calls its {result.scenario} run {result.result}"
    if result.reasons:
        reason += ": " + " ".join(result.reasons).removesuffix(".")
    return Check(
        name="loadgen",
        limit=1,
        value=int(result.valid),
        outcome=Outcome.PASS if result.valid else Outcome.INCONCLUSIVE,
        exit_code=EXIT_UNSTABLE,
        reason=reason,
    )


def diagnosis_check(diagnosis: Diagnosis) -> Check:
    """Returns whether no mistake in preprocessing or labels is proven."""
    mistakes = len(diagnosis.named.candidate.mistakes) if diagnosis.named else 0
    return Check(
        name="likely_mistakes",
        limit=0,
        value=mistakes,
        outcome=Outcome.of(not mistakes),
        exit_code=EXIT_MISMATCH,
        reason=diagnosis.sentence.removesuffix("."),
    )


def reference_check(top1: float, constant_top1: float) -> Check:
    """Returns that a reference is no measure: one answer to every image is as often correct.

    Args:
        top1: of the reference.
        constant_top1: of the most frequent label as the answer to every image.
    """
    return Check(
        name="reference_accuracy",
        limit=constant_top1,
        value=top1,
        outcome=Outcome.INCONCLUSIVE,
        exit_code=EXIT_ACCURACY,
        reason=f"the reference is correct on {percent(top1)} of the images, and would be on "
        f"{percent(constant_top1)} with the most frequent label as the answer to each: an engine that "
        "answers nothing else could keep its accuracy",
        next_step="evaluate images of several classes, and check that checkpoint, classes, labels "
        "and preprocessing belong together",
    )


def suspicion_check(top1: float, confidence: float | None) -> Check:
    """Returns that a reference may be fed what it was not trained on: it is suspiciously often wrong.

    Args:
        top1: of the reference.
        confidence: mean of the reference's own, where it is far above `top1`.
    """
    # A network whose logits are small is never too confident, whatever it is fed.
    known = f", and confident of {percent(confidence)}" if confidence is not None else " alone"
    return Check(
        name="reference_accuracy",
        limit=LOW_ACCURACY if confidence is None else confidence,
        value=top1,
        outcome=Outcome.INCONCLUSIVE,
        exit_code=EXIT_ACCURACY,
        reason=f"the reference is correct on {percent(top1)} of the images{known}: images, labels or "
        "preprocessing may not be those that it was trained with, although no usual mistake is "
        "proven",
        next_step="check that they belong together; where this is the network's own accuracy on "
        f"such images, state it with --reference-top1 {100 * top1:.1f}",
    )


def known_accuracy_check(reference: Accuracy, known_percent: float) -> Check:
    """Returns whether the reference is as often correct as it is known to be.

    Args:
        reference: what was measured of it.
        known_percent: its top-1 accuracy on such images in percent, from elsewhere.
    """
    known = known_percent / 100
    # One-sided and exact: images that are easier than those elsewhere are no mistake.
    test = scipy.stats.binomtest(reference.correct, reference.samples, known, alternative="less")
    kept = bool(test.pvalue >= LEVEL)
    return Check(
        name="reference_top1",
        limit=known_percent,
        value=100 * reference.top1,
        outcome=Outcome.of(kept),
        exit_code=EXIT_MISMATCH,
        reason=f"the reference is correct on {percent(reference.top1)} of "
        f"{counted(reference.samples, 'image')}, "
        f"{'not significantly' if kept else 'significantly'} below the {percent(known)} that it is "
        f"known for (exact binomial test, p {test.pvalue:.1g})"
        + ("" if kept else ": images, labels or preprocessing are not those that belong to it"),
    )


def format_against_limit(value: float, limit: float) -> str:
    """Returns the value with three digits, or as many as put it on its side of the limit."""

    def side(number: float) -> int:
        return (number > limit) - (number < limit)

    # 17 significant digits distinguish any two floats.
    texts = (f"{value:.{digits}g}" for digits in range(3, 18))
    return next(text for text in texts if side(float(text)) == side(value))

"""Limits on accuracy, speed, stability and LoadGen: whether an engine keeps each, and why."""

from __future__ import annotations

from edgeres.core.bench_requests import Decision
from edgeres.core.verdict import (
    EXIT_ACCURACY,
    EXIT_MISMATCH,
    EXIT_SPEED,
    EXIT_UNSTABLE,
    Check,
    LoadGenResult,
    PairedAccuracy,
    PairedLatency,
)
from edgeres.evaluation.mistakes import Diagnosis
from edgeres.machine import Severity, Stability
from edgeres.statistics import GATE_CONFIDENCE, drop_bound, images_needed

_CONFIDENCE = f"{100 * GATE_CONFIDENCE:g} % confidence"


def accuracy_check(accuracy: PairedAccuracy, limit: float, decision: Decision) -> Check:
    """Returns whether the drop in top-1 accuracy keeps its limit.

    Args:
        accuracy: of both networks.
        limit: largest accepted drop in percentage points.
        decision: what is compared with it: `POINT`, the measured drop; `BOUND`, its one-sided
            upper confidence bound, so that too few images fail.
    """
    drop, samples = accuracy.drop_pp, accuracy.engine.samples
    value = format_against_limit(drop, limit)
    # A negative drop is reported as a gain, without its minus sign.
    measured = f"accuracy gain {value[1:]} pp" if drop < 0 else f"accuracy drop {value} pp"
    compared, needed = drop, None
    if decision is Decision.POINT:
        passed = drop <= limit
        reason = f"{measured}, {'within' if passed else 'over'} the drop limit of {limit:g} pp"
    else:
        compared = upper = 100 * drop_bound(accuracy.gained, accuracy.lost, samples)
        # The upper bound of the gain, with its sign reversed, is the lower bound of the drop.
        lower = -100 * drop_bound(accuracy.lost, accuracy.gained, samples)
        # Not at the limit: a bound there leaves a drop of just that possible.
        passed = upper < limit
        if passed or lower > limit:
            side, bound, relation = "at most", upper, "below"
            if not passed:
                side, bound, relation = "at least", lower, "over"
            reason = (
                f"{measured}, {'a drop of ' if drop < 0 else ''}{side} "
                f"{format_against_limit(bound, limit)} pp with {_CONFIDENCE}: {relation} the drop "
                f"limit of {limit:g} pp"
            )
        else:
            needed = images_needed(accuracy.gained, accuracy.lost, samples, limit / 100)
            reason = (
                f"{samples} images cannot decide: {measured}, {lower:.2f} to {upper:.2f} pp with "
                f"{_CONFIDENCE} on each side, and the drop limit of {limit:g} pp is within"
            )
            reason += (
                "; the drop is too close to the limit for any number to decide"
                if needed is None
                else f"; about {needed} images in all, {needed - samples} more, would show that it "
                f"is {'over' if drop > limit else 'below'}"
            )
    return Check(
        name="accuracy_drop",
        limit=limit,
        value=compared,
        passed=passed,
        exit_code=EXIT_ACCURACY,
        reason=reason,
        rule=decision.value,
        images_needed=needed,
    )


def speedup_check(latency: PairedLatency, limit: float) -> Check:
    """Returns whether the engine is faster than the reference by at least a factor of `limit`."""
    value, passed = latency.speedup, latency.speedup >= limit
    return Check(
        name="speedup",
        limit=limit,
        value=value,
        passed=passed,
        exit_code=EXIT_SPEED,
        reason=f"{format_against_limit(value, limit)} times as fast, "
        f"{'at least' if passed else 'short of'} the {limit:g} requested",
    )


def stability_check(stability: Stability) -> Check:
    """Returns whether the machine was stable while it was measured on."""
    # A warning weakens the figures; only instability makes them those of another machine.
    unstable = [f.sentence for f in stability.findings if f.severity is Severity.UNSTABLE]
    return Check(
        name="stability",
        limit=0,
        value=len(unstable),
        passed=stability.stable,
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
        passed=result.valid,
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
        passed=not mistakes,
        exit_code=EXIT_MISMATCH,
        reason=diagnosis.sentence.removesuffix("."),
    )


def format_against_limit(value: float, limit: float) -> str:
    """Returns the value with three digits, or as many as put it on its side of the limit."""

    def side(number: float) -> int:
        return (number > limit) - (number < limit)

    # 17 significant digits distinguish any two floats.
    texts = (f"{value:.{digits}g}" for digits in range(3, 18))
    return next(text for text in texts if side(float(text)) == side(value))

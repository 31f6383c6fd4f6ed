"""Two results and the limits on them: from answers and times to a verdict with its reasons.

The same images went through both networks. Knows no runner, image or clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgeres.core.bench_requests import BenchConfig, Decision
from edgeres.core.verdict import (
    EXIT_ACCURACY,
    EXIT_SPEED,
    EXIT_UNSTABLE,
    Answer,
    Check,
    ClassDifference,
    Confidence,
    Environment,
    Flip,
    ImageRecord,
    LoadGenResult,
    LogitError,
    PairedAccuracy,
    PairedLatency,
    Provenance,
    Verdict,
)
from edgeres.errors import ConfigError
from edgeres.evaluation.evaluate import Distances, Outcomes, Predictions
from edgeres.machine import Severity, Stability
from edgeres.statistics import (
    GATE_CONFIDENCE,
    class_q_values,
    drop_bound,
    drop_interval,
    expected_calibration_error,
    images_needed,
    mcnemar_p,
)

CONFIDENCE_TOLD = f"{100 * GATE_CONFIDENCE:g} %"
"""The gate's confidence as sentences have it."""

OVERHEAD_NOTED = 0.01
"""Part of the engine's median latency that timing may take without a word."""


def paired_accuracy(outcomes: Outcomes, name_of: Callable[[int], str] = str) -> PairedAccuracy:
    """Returns the accuracy of both networks, which images changed, and how sure that is.

    Args:
        outcomes: what both answered.
        name_of: from an image's position in the data set to what it is called.
    """
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
        agreement=1 - int(outcomes.changed.sum()) / samples,
        logits=_logit_error(outcomes.distances),
        reference_confidence=_confidence(outcomes.reference),
        engine_confidence=_confidence(outcomes.engine),
        flips=_flips(outcomes, name_of),
        by_class=_by_class(outcomes),
        images=_image_record(outcomes),
    )


def _logit_error(distances: Distances) -> LogitError:
    error, signal = distances.error.sum(), distances.signal.sum()
    return LogitError(
        cosine=float(distances.cosine.mean()),
        lowest_cosine=float(distances.cosine.min()),
        relative_l2=float(np.sqrt(error / signal)) if signal else None,
    )


def _confidence(predictions: Predictions) -> Confidence:
    sure = predictions.confidence
    return Confidence(
        mean=float(sure.mean(dtype=np.float64)),
        ece=expected_calibration_error(sure, predictions.right),
    )


def _flips(outcomes: Outcomes, name_of: Callable[[int], str]) -> tuple[Flip, ...]:
    return tuple(
        Flip(
            index=int(outcomes.indices[row]),
            name=name_of(int(outcomes.indices[row])),
            label=int(outcomes.labels[row]),
            reference=_answer(outcomes.reference, row),
            engine=_answer(outcomes.engine, row),
        )
        for row in np.flatnonzero(outcomes.changed).tolist()
    )


def _answer(predictions: Predictions, row: int) -> Answer:
    return Answer(label=int(predictions.top1[row]), probability=float(predictions.confidence[row]))


def _by_class(outcomes: Outcomes) -> tuple[ClassDifference, ...]:
    """Tests every class that has images, and returns those that gained or lost any."""
    classes = np.unique(outcomes.labels)
    counts = zip(
        *(_count(outcomes.labels[rows], classes) for rows in (outcomes.gained, outcomes.lost)),
        strict=True,
    )
    flips = [(int(gained), int(lost)) for gained, lost in counts]
    samples = _count(outcomes.labels, classes)
    differences = (
        ClassDifference(
            label=int(label), samples=int(size), gained=gained, lost=lost, p_value=p, q_value=q
        )
        for label, size, (gained, lost), (p, q) in zip(
            classes, samples, flips, class_q_values(flips), strict=True
        )
        if gained or lost
    )
    return tuple(sorted(differences, key=lambda found: (found.q_value, found.p_value, found.label)))


def _count(labels: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns how many images of each class there are."""
    counts: NDArray[np.int64] = np.bincount(
        np.searchsorted(classes, labels), minlength=len(classes)
    )
    return counts


def _image_record(outcomes: Outcomes) -> ImageRecord:
    return ImageRecord(
        fingerprint=outcomes.fingerprint,
        reference=_as_digits(outcomes.reference.right),
        engine=_as_digits(outcomes.engine.right),
    )


def _as_digits(right: NDArray[np.bool_]) -> str:
    return "".join(map(str, right.astype(int).tolist()))


def compare(
    accuracy: PairedAccuracy,
    latency: PairedLatency | None,
    config: BenchConfig,
    environment: Environment,
    provenance: Provenance,
    warnings: Iterable[str] = (),
) -> Verdict:
    """Returns the verdict: what was found, and whether it keeps the limits of `config`.

    Args:
        accuracy: of both networks.
        latency: of both networks; None where the engine was not run on its target.
        config: its limits; a limit that is None makes no check.
        environment: the machine, and what ran both networks on it.
        provenance: of the engine and everything else that took part.
        warnings: sentences on what weakens the verdict.

    Raises:
        ConfigError: a limit on speed is set but no latency was measured.
    """
    return Verdict(
        accuracy=accuracy,
        latency=latency,
        environment=environment,
        provenance=provenance,
        checks=(*_accuracy_checks(accuracy, config), *_speed_checks(latency, config)),
        warnings=(*warnings, *_overhead_warnings(latency)),
    )


def _overhead_warnings(latency: PairedLatency | None) -> Iterator[str]:
    """Says where timing itself takes too much of what is timed."""
    if latency is None or latency.overhead_ms is None:
        return
    part = latency.overhead_ms / latency.engine.p50_ms
    if part > OVERHEAD_NOTED:
        yield (
            f"The clock and the loop take {latency.overhead_ms:.3g} ms, {part:.1%} of the engine's "
            "median latency, and are in it. Take a larger --latency-batch."
        )


def with_stability(verdict: Verdict, stability: Stability, config: BenchConfig) -> Verdict:
    """Returns the verdict with how still the machine held, which `config.strict` makes a check."""
    checks = (_stability_check(stability),) if config.strict else ()
    return replace(verdict, stability=stability, checks=(*verdict.checks, *checks))


def with_loadgen(verdict: Verdict, found: LoadGenResult, config: BenchConfig) -> Verdict:
    """Returns the verdict with LoadGen's, which `config.strict` makes a check."""
    reason = f"LoadGen calls its {found.scenario} run {found.result}"
    if found.reasons:
        reason += ": " + " ".join(found.reasons).removesuffix(".")
    check = Check(
        name="loadgen",
        limit=1,
        value=int(found.valid),
        passed=found.valid,
        exit_code=EXIT_UNSTABLE,
        reason=reason,
    )
    warnings = () if found.valid else (f"{reason}.",)
    return replace(
        verdict,
        loadgen=found,
        warnings=(*verdict.warnings, *warnings),
        checks=(*verdict.checks, *((check,) if config.strict else ())),
    )


def _stability_check(stability: Stability) -> Check:
    unstable = [f.sentence for f in stability.findings if f.severity is Severity.UNSTABLE]
    return Check(
        name="stability",
        limit=0,
        value=len(unstable),
        passed=stability.stable,
        exit_code=EXIT_UNSTABLE,
        reason="the measurement cannot be trusted: " + " ".join(unstable).removesuffix(".")
        if unstable
        else "the machine held still while it was measured on",
    )


def told_apart(value: float, limit: float) -> str:
    """Returns the value with three digits, or as many as put it on its side of the limit."""
    texts = (f"{value:.{digits}g}" for digits in range(3, 18))
    return next(text for text in texts if _side(float(text), limit) == _side(value, limit))


def _side(value: float, limit: float) -> int:
    return (value > limit) - (value < limit)


def _accuracy_checks(accuracy: PairedAccuracy, config: BenchConfig) -> tuple[Check, ...]:
    limit = config.max_drop_pp
    if limit is None:
        return ()
    by_point = config.decide is Decision.POINT
    return ((_point_check if by_point else _bound_check)(accuracy, limit),)


def _point_check(accuracy: PairedAccuracy, limit: float) -> Check:
    """Holds the measured drop itself against the limit."""
    drop = accuracy.drop_pp
    passed = drop <= limit
    return Check(
        name="accuracy_drop",
        limit=limit,
        value=drop,
        passed=passed,
        exit_code=EXIT_ACCURACY,
        reason=f"{_measured(drop, limit)}, {'within' if passed else 'over'} the drop limit of "
        f"{limit:g} pp",
        rule=Decision.POINT.value,
    )


def _bound_check(accuracy: PairedAccuracy, limit: float) -> Check:
    """Asks whether the images show that the drop is below the limit."""
    counts = accuracy.gained, accuracy.lost, accuracy.engine.samples
    bound = 100 * drop_bound(*counts)
    passed = bound < limit
    decided = passed or _lower_bound(accuracy) > limit
    needed = None if decided else images_needed(*counts, limit / 100)
    check = Check(
        name="accuracy_drop",
        limit=limit,
        value=bound,
        passed=passed,
        exit_code=EXIT_ACCURACY,
        rule=Decision.BOUND.value,
        images_needed=needed,
    )
    if decided:
        return replace(check, reason=_decided(accuracy, check))
    return replace(check, reason=_undecided(accuracy, check))


def _decided(accuracy: PairedAccuracy, check: Check) -> str:
    relation = "below" if check.passed else "over"
    bound = check.value if check.passed else _lower_bound(accuracy)
    most = "at most" if check.passed else "at least"
    of_what = "a drop of " if accuracy.drop_pp < 0 else ""
    return (
        f"{_measured(accuracy.drop_pp, check.limit)}, {of_what}{most} "
        f"{told_apart(bound, check.limit)} pp with {CONFIDENCE_TOLD} confidence: {relation} the "
        f"drop limit of {check.limit:g} pp"
    )


def _lower_bound(accuracy: PairedAccuracy) -> float:
    return -100 * drop_bound(accuracy.lost, accuracy.gained, accuracy.engine.samples)


def _undecided(accuracy: PairedAccuracy, check: Check) -> str:
    """Says that the images are too few, and how many would do."""
    samples = accuracy.engine.samples
    over = accuracy.drop_pp > check.limit
    fact = (
        f"{samples} images cannot decide: {_measured(accuracy.drop_pp, check.limit)}, "
        f"{_lower_bound(accuracy):.2f} to {check.value:.2f} pp with {CONFIDENCE_TOLD} "
        f"confidence on each side, and the drop limit of {check.limit:g} pp is within"
    )
    if check.images_needed is None:
        return f"{fact}; the drop is too close to the limit for any number to decide"
    which = "show that it is over" if over else "show that it is below"
    return (
        f"{fact}; about {check.images_needed} images in all, {check.images_needed - samples} more, "
        f"would {which}"
    )


def _measured(drop: float, limit: float) -> str:
    value = told_apart(drop, limit)
    return f"accuracy gain {value[1:]} pp" if drop < 0 else f"accuracy drop {value} pp"


def _speed_checks(latency: PairedLatency | None, config: BenchConfig) -> tuple[Check, ...]:
    limit = config.min_speedup
    if limit is None:
        return ()
    if latency is None:
        raise ConfigError(
            f"--min-speedup {limit:g} cannot be checked: no latency was measured, because the "
            "engine was not run on its target. Run bench there, or leave --min-speedup out."
        )
    value, passed = latency.speedup, latency.speedup >= limit
    relation = "at least" if passed else "short of"
    return (
        Check(
            name="speedup",
            limit=limit,
            value=value,
            passed=passed,
            exit_code=EXIT_SPEED,
            reason=f"{told_apart(value, limit)} times as fast, {relation} the {limit:g} asked for",
        ),
    )

"""The verdict on an engine, built once from everything that was measured of it.

Knows measured values and limits, and no runner, image or clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgeres.core.bench_requests import BenchRequest
from edgeres.core.table import FEW_CALIBRATION_IMAGES, few_images_note
from edgeres.core.verdict import (
    Check,
    Outcome,
    PairedAccuracy,
    PastRun,
    Verdict,
    processors_of,
)
from edgeres.errors import ConfigError
from edgeres.evaluation.checks import (
    accuracy_check,
    diagnosis_check,
    known_accuracy_check,
    loadgen_check,
    reference_check,
    speedup_check,
    stability_check,
    suspicion_check,
    unseen_check,
)
from edgeres.evaluation.mistakes import Diagnosis, RangeShift
from edgeres.evaluation.regression import against_baseline, baseline_checks
from edgeres.plurals import counted, percent

OVERHEAD_NOTED = 0.01
"""Fraction of the engine's median latency that timing may take without a warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """What weakens a verdict, or invalidates it: wrong images, wrong preprocessing, wrong model."""

    data_notes: tuple[str, ...] = ()
    """How the data was corrected before it was used, in sentences."""
    calibrated_on: int | None = None
    """Distinct images that the engine was calibrated on; None where not known, and without INT8."""
    reused_images: int = 0
    """Evaluated images that the engine was made with too."""
    reused_for: str = "calibration"
    """What they were used for."""
    unseen: PairedAccuracy | None = None
    """Accuracy on the other images; None where none was used, or all were."""
    suspicious: bool = False
    """Whether the reference is so rarely correct that it may have been fed something else."""
    confidence: float | None = None
    """Mean confidence of the reference, where it is far above its accuracy; None where it is not."""
    constant_top1: float | None = None
    """Top-1 accuracy of the most frequent label as the answer to every image, where the reference is
    not significantly better than that; None where it is."""
    diagnosis: Diagnosis | None = None
    """None where none was requested and the reference is correct often enough."""
    range_shift: RangeShift | None = None
    """None without INT8, or where the reference is no ONNX model."""
    reference_model_sha256: str | None = None
    """Model that the reference was built from; None where it is an ONNX model itself."""


VALID = Validity()
"""Of a verdict that nothing weakens."""


def concluded(
    measured: Verdict,
    config: BenchRequest,
    *,
    coverage: tuple[Check, ...] = (),
    validity: Validity = VALID,
    baseline: PastRun | None = None,
) -> Verdict:
    """Returns what was measured with the checks of all limits, and what weakens it.

    Args:
        measured: without checks.
        config: the limits; one that is None makes no check.
        coverage: checks of the layers that run in INT8.
        validity: what weakens the verdict.
        baseline: earlier run that this one must not be worse than.

    Raises:
        ConfigError: a limit on speed without a latency, or a baseline on other images.
    """
    verdict = replace(measured, diagnosis=validity.diagnosis)
    if baseline is not None:
        machine = verdict.environment.machine
        regression = against_baseline(
            baseline,
            verdict.accuracy.images,
            verdict.latency,
            verdict.measured_throughput,
            machine=processors_of(machine.cpu, machine.gpus),
            reference_sha256=verdict.provenance.reference.sha256,
        )
        verdict = replace(verdict, regression=regression)
    verdict = replace(verdict, checks=tuple(_checks(verdict, config, coverage, validity)))
    return replace(verdict, warnings=tuple(_warnings(verdict, config, validity)))


def _checks(
    verdict: Verdict, config: BenchRequest, coverage: tuple[Check, ...], validity: Validity
) -> Iterator[Check]:
    """Yields a check for every limit, and for what makes the figures worthless."""
    accuracy, stability, regression = verdict.accuracy, verdict.stability, verdict.regression
    # Diagnosis and coverage come first: where one fails, the figures after it mean little.
    if validity.diagnosis is not None:
        yield diagnosis_check(validity.diagnosis)
    yield from coverage
    if config.max_drop_pp is not None:
        yield accuracy_check(accuracy, config.max_drop_pp, config.decide, validity.unseen)
    if validity.reused_images == accuracy.engine.samples and any(
        limit is not None for limit in (config.max_drop_pp, regression)
    ):
        yield unseen_check(validity.reused_images, validity.reused_for)
    if config.min_speedup is not None:
        if verdict.latency is None:
            raise ConfigError(
                f"--min-speedup {config.min_speedup:g} cannot be checked: no latency was measured, "
                "because the engine was not run on its target. Run bench there, or leave "
                "--min-speedup out."
            )
        yield speedup_check(verdict.latency, config.min_speedup, config.decide, stability)
    named = validity.diagnosis is not None and validity.diagnosis.named is not None
    limits = (config.max_drop_pp, config.min_speedup, regression)
    if config.reference_top1 is not None:
        yield known_accuracy_check(accuracy.reference, config.reference_top1)
    if not named and any(x is not None for x in limits):
        top1, confidence = accuracy.reference.top1, validity.confidence
        if validity.constant_top1 is not None:
            yield reference_check(top1, validity.constant_top1)
        elif validity.suspicious and config.reference_top1 is None:
            yield suspicion_check(top1, confidence)
    if config.strict and stability is not None:
        yield stability_check(stability)
    if config.strict and verdict.loadgen is not None:
        yield loadgen_check(verdict.loadgen)
    if regression is not None:
        yield from baseline_checks(regression, config.max_slowdown, stability)


def _warnings(verdict: Verdict, config: BenchRequest, validity: Validity) -> Iterator[str]:
    """Yields a sentence on everything that weakens the verdict."""
    accuracy, latency, stability = verdict.accuracy, verdict.latency, verdict.stability
    samples, diagnosis = accuracy.engine.samples, validity.diagnosis
    yield from validity.data_notes
    if validity.calibrated_on is not None and validity.calibrated_on < FEW_CALIBRATION_IMAGES:
        yield few_images_note(validity.calibrated_on)
    if validity.reused_images:
        yield (
            f"{validity.reused_images} of the {counted(samples, 'image')} were also used for "
            f"{validity.reused_for}: the accuracy of the engine on them is optimistically biased. "
            f"Evaluate on images that were not used for {validity.reused_for}."
        )
    if latency is not None and latency.overhead_ms is not None:
        overhead = latency.overhead_ms / latency.engine.p50_ms
        if overhead > OVERHEAD_NOTED:
            yield (
                f"The clock and the loop take {latency.overhead_ms:.3g} ms, {percent(overhead)} of the "
                "engine's median latency, and are in it. Take a larger --latency-batch."
            )
    # A diagnosis that names the mistake is a failed check, with more to say than this warning.
    if validity.suspicious and not (diagnosis and diagnosis.named):
        yield (
            f"The reference itself is correct on only {percent(accuracy.reference.top1)} of the images, "
            "or far more confident than it is accurate: a drop against it means little. Check that "
            "checkpoint, classes, labels and preprocessing belong together."
        )
    if validity.range_shift and validity.range_shift.is_foreign:
        yield validity.range_shift.sentence
    # Where either is not known there is nothing to compare.
    other, own = validity.reference_model_sha256, verdict.provenance.model_sha256
    if other is not None and own is not None and other != own:
        yield (
            f"The reference was built from another model, sha256 {other[:12]}, than the engine, "
            f"{own[:12]}: the drop is one between two networks, not what quantization costs. Pass "
            "the engine's own model as --reference."
        )
    limited = config.min_speedup is not None
    # What disturbed it leaves the check undecided, and stands there.
    undecided = any(
        check.name == "speedup" and check.outcome is Outcome.INCONCLUSIVE
        for check in verdict.checks
    )
    if limited and not (config.strict or undecided) and stability and not stability.stable:
        yield (
            f"--min-speedup {config.min_speedup:g} was checked although the machine was unstable. "
            "Pass --strict to have such a run end INCONCLUSIVE, with exit code 7."
        )
    # With a limit on speed its check says this already.
    if latency is not None and latency.speedup_ci95 is not None and not limited:
        low, high = latency.speedup_ci95
        if high < 1:
            yield (
                f"The engine is slower than the reference: {latency.speedup:.2f} times as fast, "
                f"95 % interval {low:.2f} to {high:.2f}. Look at its layers with edgeres inspect, "
                "and set --min-speedup to make such an engine fail."
            )
    if verdict.loadgen is not None and not verdict.loadgen.valid:
        yield f"{loadgen_check(verdict.loadgen).reason}."

"""What speaks against a verdict: images prepared wrongly, a calibration on another kind of image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeres.calibration.stages import observed_ranges
from edgeres.core.artifacts import is_engine, load_engine
from edgeres.core.bench_requests import BenchConfig
from edgeres.core.contract import Contract
from edgeres.core.verdict import EXIT_MISMATCH, Check, Verdict
from edgeres.evaluation.evaluate import Predictions
from edgeres.evaluation.mistakes import Diagnosis, RangeShift, diagnose, is_suspicious, range_shift
from edgeres.images import Dataset, batches, select, take
from edgeres.onnx_file import load_onnx
from edgeres.progress import Progress, silent
from edgeres.targets.runner import Runner

_RANGE_IMAGES = 64
"""Images judged that ranges are observed on, half of them at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What reference and engine were judged on."""

    reference: Path
    """The FP32 ONNX model, or another engine."""
    dataset: Dataset
    contract: Contract
    classes: tuple[str, ...]
    """The network's; empty where not known."""
    ranges: Mapping[str, float]
    """Calibrated range of each activation; empty without INT8."""
    model_sha256: str
    """Hash of the model that the engine was built from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubts:
    """What was found."""

    suspicious: bool
    """Whether the reference is right so rarely that it may have been fed something else."""
    diagnosis: Diagnosis | None
    """None where it was not asked for and the reference is right often enough."""
    shift: RangeShift | None
    """None without INT8, or where the reference is no ONNX model."""
    other_model: str | None = None
    """A sentence where the reference is an engine of another model."""


def find_doubts(
    reference: Runner,
    answers: Predictions,
    judged: Judged,
    config: BenchConfig,
    progress: Progress = silent,
) -> Doubts:
    """Returns what speaks against a verdict.

    Args:
        reference: the open runner of the reference.
        answers: what it answered to the images judged.
        judged: the images and what is known of the networks.
        config: `diagnose` says whether the usual mistakes are tried; None: where `answers` are
            suspicious.
        progress: receives how far the diagnosis is.

    Raises:
        DataError: an image cannot be decoded.
        RunnerError: inference failed.
    """
    suspicious = is_suspicious(answers)
    wanted = suspicious if config.diagnose is None else config.diagnose
    return Doubts(
        suspicious=suspicious,
        diagnosis=_diagnosis(reference, judged, progress) if wanted else None,
        shift=_shift(judged, config.seed) if judged.ranges else None,
        other_model=_other_model(judged),
    )


def with_doubts(verdict: Verdict, doubts: Doubts) -> Verdict:
    """Returns the verdict with what speaks against it: a failed check, or warnings."""
    found = doubts.diagnosis
    return replace(
        verdict,
        diagnosis=found,
        checks=(*((_check(found),) if found else ()), *verdict.checks),
        warnings=(*verdict.warnings, *_warnings(doubts, verdict)),
    )


def _diagnosis(reference: Runner, judged: Judged, progress: Progress) -> Diagnosis:
    data, contract = judged.dataset, judged.contract
    found = diagnose(reference, data, contract, names=judged.classes, progress=progress)
    engine = is_engine(judged.reference)
    carried = engine or load_onnx(judged.reference).artifact.contract is not None
    return replace(found, carried=carried)


def _check(found: Diagnosis) -> Check:
    mistakes = len(found.named.suspect.mistakes) if found.named else 0
    return Check(
        name="likely_mistakes",
        limit=0,
        value=mistakes,
        passed=not mistakes,
        exit_code=EXIT_MISMATCH,
        reason=found.sentence.removesuffix("."),
    )


def _warnings(doubts: Doubts, verdict: Verdict) -> tuple[str, ...]:
    told = []
    if doubts.suspicious and not (doubts.diagnosis and doubts.diagnosis.named):
        told.append(_too_rarely_right(verdict))
    if doubts.shift and doubts.shift.is_foreign:
        told.append(doubts.shift.sentence)
    if doubts.other_model:
        told.append(doubts.other_model)
    return (*told, *_slower(verdict))


def _other_model(judged: Judged) -> str | None:
    if not is_engine(judged.reference):
        return None
    other, own = load_engine(judged.reference).manifest.model_sha256, judged.model_sha256
    if other == own:
        return None
    return (
        f"The reference was built from another model, sha256 {other[:12]}, than the engine, "
        f"{own[:12]}: the drop is one between two networks, not what quantization costs. Pass the "
        "engine's own model as --reference."
    )


def _slower(verdict: Verdict) -> Iterator[str]:
    """Says that the engine is slower than what it is to replace, where no limit says it already."""
    latency = verdict.latency
    limited = any(check.name == "speedup" for check in verdict.checks)
    if latency is None or limited or latency.speedup_ci95 is None:
        return
    low, high = latency.speedup_ci95
    if high < 1:
        yield (
            f"The engine is slower than the reference: {latency.speedup:.2f} times as fast, 95 % "
            f"interval {low:.2f} to {high:.2f}. Look at its layers with edgeres inspect, and set "
            "--min-speedup to make such an engine fail."
        )


def _too_rarely_right(verdict: Verdict) -> str:
    return (
        f"The reference itself is right on only {verdict.accuracy.reference.top1:.1%} of the "
        "images, or far surer than it is right: a drop against it says little. Check that "
        "checkpoint, classes, labels and preprocessing belong together."
    )


def _shift(judged: Judged, seed: int) -> RangeShift | None:
    if is_engine(judged.reference):
        return None
    few = select(judged.dataset, _RANGE_IMAGES, seed)
    halves = [take(few, np.arange(start, len(few), 2)) for start in (0, 1)]
    if not all(map(len, halves)):
        return None
    seen = [_ranges(judged, half) for half in halves]
    return range_shift(judged.ranges, seen, images=len(few))


def _ranges(judged: Judged, dataset: Dataset) -> dict[str, float]:
    model = load_onnx(judged.reference)
    with closing(batches(dataset, judged.contract, batch_size=4)) as stream:
        return observed_ranges(model, stream)

"""What weakens a verdict: images prepared wrongly, a calibration on another kind of image."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace

import numpy as np

from edgeres.calibration.calibrate import observed_ranges
from edgeres.core.bench_requests import BenchRequest
from edgeres.core.contract import InputType
from edgeres.evaluation.compare import paired_accuracy
from edgeres.evaluation.evaluate import Outcomes, take_outcomes, unseen_rows
from edgeres.evaluation.mistakes import (
    Diagnosis,
    OtherNetwork,
    constant_top1,
    diagnose,
    diagnose_networks,
    is_suspicious,
    overconfidence,
    range_shift,
)
from edgeres.evaluation.verdict import Validity
from edgeres.images import Dataset, batches, select, take
from edgeres.networks.registry import ARCHITECTURES, equal_shapes
from edgeres.progress import Progress, silent, tracked_batches
from edgeres.quantization.twins import twins
from edgeres.targets.runner import AnyBatch, Runner
from edgeres.targets.session_runner import model_runner
from edgeres.workflows.bench_pair import BenchPair

_RANGE_IMAGES = 64
"""Evaluated images that ranges are collected from, half of them at a time."""

_RANGE_BATCH = 4


def check_validity(
    pair: BenchPair,
    dataset: Dataset,
    outcomes: Outcomes,
    config: BenchRequest,
    data_notes: tuple[str, ...],
    progress: Progress = silent,
) -> Validity:
    """Returns what weakens a verdict.

    Args:
        pair: engine and reference, open.
        dataset: labelled images, before any are sampled.
        outcomes: what both networks predicted.
        config: seed, and `diagnose`: whether the usual mistakes are tried; None: where the
            reference is suspiciously often wrong.
        data_notes: how the data was corrected, in sentences.
        progress: receives how far the diagnosis is.

    Raises:
        DataError: an image cannot be decoded.
        RunnerError: inference failed.
    """
    suspicious = is_suspicious(outcomes.reference)
    model, diagnosis = pair.reference.model, None
    if suspicious if config.diagnose is None else config.diagnose:
        diagnosis = _diagnosis(pair, dataset, progress)
    shift, ranges = None, pair.engine.ranges
    few = select(dataset, _RANGE_IMAGES, config.seed)
    # Two halves, so that a shift is known from what sampling other images would change.
    halves = [take(few, np.arange(start, len(few), 2)) for start in (0, 1)]
    if model is not None and ranges and all(map(len, halves)):
        observed = []
        for half in halves:
            with closing(batches(half, pair.contract.prepared, batch_size=_RANGE_BATCH)) as stream:
                tracked = tracked_batches(stream, len(half), "Checking ranges", progress)
                observed.append(observed_ranges(model, tracked))
        shift = range_shift(ranges, observed, images=len(few))
    calibrated_on = set(pair.engine.calibration_images)
    selection = pair.engine.selection_images
    unseen = unseen_rows(outcomes.hashes, calibrated_on.union(selection))
    known = len(outcomes.hashes) - len(unseen)
    return Validity(
        data_notes=data_notes,
        calibrated_on=len(calibrated_on) or None,
        reused_images=known,
        reused_for="calibration or mixed precision" if selection else "calibration",
        unseen=paired_accuracy(take_outcomes(outcomes, unseen)) if known and len(unseen) else None,
        suspicious=suspicious,
        confidence=overconfidence(outcomes.reference),
        constant_top1=constant_top1(outcomes.reference, outcomes.labels),
        diagnosis=diagnosis,
        range_shift=shift,
        reference_model_sha256=None if model is not None else pair.reference.model_sha256,
    )


def _diagnosis(pair: BenchPair, dataset: Dataset, progress: Progress) -> Diagnosis:
    """Returns what trying the usual mistakes gives, and other networks of the same weights."""
    model, contract = pair.reference.model, pair.contract
    probabilities = pair.reference.gives_probabilities
    with ExitStack() as opened:
        present: Runner = AnyBatch(pair.reference.runner, pair.reference.batch)
        if model is not None and contract.input is InputType.UINT8:
            # Mistakes of the arithmetic are tried too: on the network behind it.
            model, contract = model.prepared, contract.prepared
            present = opened.enter_context(model_runner(model))
        runner = present
        if model is not None:
            # It may be made for another size, which a network with a global pool takes too.
            runner = opened.enter_context(model_runner(model, any_size=True))
        diagnosis = diagnose(
            runner,
            dataset,
            contract,
            names=pair.engine.classes,
            probabilities=probabilities,
            progress=progress,
        )
        if model is None:
            return diagnosis
        spec = ARCHITECTURES.get(model.artifact.architecture or "")
        names = equal_shapes(spec) if spec else ()
        remedy = f"Export the checkpoint as {' or '.join(names) or 'that architecture'}"
        others = [
            OtherNetwork(
                mistake=f"the network was trained with {what}, and exported as another one",
                remedy=f"{remedy}, then calibrate and build again.",
                runner=opened.enter_context(
                    model_runner(replace(model, content=other.SerializeToString(), proto=other))
                ),
            )
            for what, other in twins(model.proto)
        ]
        diagnosis = diagnose_networks(
            present,
            others,
            dataset,
            contract,
            diagnosis,
            probabilities=probabilities,
            progress=progress,
        )
    return replace(diagnosis, carried=model.artifact.contract is not None)

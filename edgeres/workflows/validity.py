"""What weakens a verdict: images prepared wrongly, a calibration on another kind of image."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import numpy as np

from edgeres.calibration.calibrate import observed_ranges
from edgeres.core.bench_requests import BenchConfig
from edgeres.evaluation.evaluate import Outcomes, calibration_overlap
from edgeres.evaluation.mistakes import RangeShift, diagnose, is_suspicious, range_shift
from edgeres.evaluation.verdict import Validity
from edgeres.images import Dataset, batches, select, take
from edgeres.progress import Progress, silent
from edgeres.workflows.bench_pair import BenchPair

_RANGE_IMAGES = 64
"""Evaluated images that ranges are observed on, half of them at a time."""


def check_validity(
    pair: BenchPair,
    dataset: Dataset,
    outcomes: Outcomes,
    config: BenchConfig,
    progress: Progress = silent,
) -> Validity:
    """Returns what weakens a verdict.

    Args:
        pair: engine and reference, open.
        dataset: labelled images, before any are sampled.
        outcomes: what both networks predicted.
        config: `diagnose` says whether the usual mistakes are tried; None: where the reference is
            suspiciously often wrong.
        progress: receives how far the diagnosis is.

    Raises:
        DataError: an image cannot be decoded.
        RunnerError: inference failed.
    """
    suspicious = is_suspicious(outcomes.reference)
    model, diagnosis = pair.reference.model, None
    if suspicious if config.diagnose is None else config.diagnose:
        diagnosis = replace(
            diagnose(
                pair.reference.runner,
                dataset,
                pair.contract,
                names=pair.engine.classes,
                progress=progress,
            ),
            carried=model is None or model.artifact.contract is not None,
        )
    return Validity(
        calibration_images=calibration_overlap(outcomes.hashes, pair.engine.calibration_images),
        suspicious=suspicious,
        diagnosis=diagnosis,
        range_shift=_range_shift(pair, dataset, config.seed),
        reference_model_sha256=None if model is not None else pair.reference.model_sha256,
    )


def _range_shift(pair: BenchPair, dataset: Dataset, seed: int) -> RangeShift | None:
    """Compares the calibrated ranges with those of the evaluated images, in two halves."""
    model, ranges = pair.reference.model, pair.engine.ranges
    if model is None or not ranges:
        return None
    few = select(dataset, _RANGE_IMAGES, seed)
    halves = [take(few, np.arange(start, len(few), 2)) for start in (0, 1)]
    if not all(map(len, halves)):
        return None
    observed = []
    for half in halves:
        with closing(batches(half, pair.contract, batch_size=4)) as stream:
            observed.append(observed_ranges(model, stream))
    return range_shift(ranges, observed, images=len(few))

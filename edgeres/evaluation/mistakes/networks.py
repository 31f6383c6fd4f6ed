"""Tries the other networks that the same weights fit, beside the usual mistakes in preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from edgeres.core.contract import Contract
from edgeres.evaluation.evaluate import Predictions, evaluate
from edgeres.evaluation.mistakes.search import gain_p
from edgeres.evaluation.mistakes.values import Candidate, Diagnosis, Finding
from edgeres.images import Dataset, batches, select, without_copies
from edgeres.progress import Progress, silent, tracked_batches
from edgeres.statistics import drop_interval
from edgeres.targets.runner import Runner

IMAGES = 2048
"""Images that the networks are compared on: v1.5 and v1 differ by some points alone."""

LEVEL = 0.01
"""p value below which another network is named. Nothing was chosen among many, and the network that
the weights were trained with is better than the other, not equal: a false alarm is far rarer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherNetwork:
    """Another network of the same weights."""

    mistake: str
    remedy: str
    runner: Runner
    """Open."""


def diagnose_networks(
    runner: Runner,
    others: Sequence[OtherNetwork],
    dataset: Dataset,
    contract: Contract,
    diagnosis: Diagnosis,
    *,
    probabilities: bool = False,
    progress: Progress = silent,
) -> Diagnosis:
    """Returns the diagnosis with the other networks tried, one named where it gains most.

    Args:
        runner: the FP32 reference, open.
        others: what its weights fit too.
        dataset: labelled images, of which `IMAGES` are sampled.
        contract: the present preprocessing.
        diagnosis: what the mistakes in preprocessing and labels gave.
        probabilities: whether the network ends in Softmax or Sigmoid.
        progress: receives how far a pass over the images is.

    Raises:
        DataError: an image cannot be decoded.
        RunnerError: inference failed, or a logit is NaN or infinite.
    """
    if not others:
        return diagnosis
    images = without_copies(select(dataset, IMAGES, seed=0))
    labels = np.asarray(images.labels)

    def predictions(network: Runner) -> Predictions:
        with closing(batches(images, contract, batch_size=16)) as stream:
            tracked = tracked_batches(stream, len(images), "Diagnosing", progress)
            return evaluate(network, tracked, probabilities=probabilities)

    present = predictions(runner)
    before = np.equal(present.top1, labels)
    diagnosis = replace(
        diagnosis,
        tried=diagnosis.tried + len(others),
        inferences=diagnosis.inferences + len(images) * (1 + len(others)),
    )
    for other in others:
        other_predictions = predictions(other.runner)
        after = np.equal(other_predictions.top1, labels)
        newly_correct, newly_wrong = int((after & ~before).sum()), int((before & ~after).sum())
        low, high = drop_interval(newly_wrong, newly_correct, len(after))
        finding = Finding(
            candidate=Candidate(
                contract=contract, mistakes=(other.mistake,), network_remedy=other.remedy
            ),
            correct=int(after.sum()),
            newly_correct=newly_correct,
            newly_wrong=newly_wrong,
            confidence=float(other_predictions.confidence.mean()),
            p_value=min(1.0, len(others) * gain_p(newly_correct, newly_wrong)),
            gain_ci95_pp=(100 * low, 100 * high),
            options=(),
            tries=len(others),
            level=LEVEL,
        )
        if finding.is_proven and finding.correct / len(after) > _best(diagnosis):
            diagnosis = replace(
                diagnosis,
                samples=len(after),
                correct=int(before.sum()),
                confidence=float(present.confidence.mean()),
                findings=(finding, *diagnosis.findings),
                named=finding,
                equals=(),
            )
    return diagnosis


def _best(diagnosis: Diagnosis) -> float:
    """Returns the accuracy with what is named by now; 0 where nothing is."""
    named = diagnosis.named
    return 0.0 if named is None else named.correct / diagnosis.samples

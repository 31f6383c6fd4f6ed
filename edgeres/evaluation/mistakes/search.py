"""Tries the usual mistakes on a screening set, and confirms the likeliest on other images.

What looks best among many looks better than it is. So the screening set that chooses the
candidates has no part in confirming them, and each p value is corrected for their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field

import numpy as np
import scipy
from numpy.typing import NDArray

from edgeres.core.contract import Contract
from edgeres.errors import DataError, MismatchError, RunnerError
from edgeres.evaluation.evaluate import Predictions, evaluate
from edgeres.evaluation.mistakes.candidates import (
    ImageSizes,
    candidate_contracts,
    with_geometry,
    with_mappings,
)
from edgeres.evaluation.mistakes.labels import assigned_mappings, label_mappings
from edgeres.evaluation.mistakes.values import (
    LOW_ACCURACY,
    OVERCONFIDENT,
    Candidate,
    Diagnosis,
    Finding,
    options_between,
)
from edgeres.images import Dataset, batches, select, take, without_copies
from edgeres.progress import Progress, silent, tracked_batches
from edgeres.statistics import drop_interval, mcnemar_p
from edgeres.targets.runner import Runner

SCREENING = 64
"""Images of the screening set, on which candidates are chosen."""

CONFIRMATION = 256
"""Further images, the confirmation set, on which the chosen ones are tested."""

_FINALISTS = 3
"""Candidates that are confirmed, of the single mistakes and of all: at most six together."""

_LEADING = 2
"""Candidates with which every mistake in the geometry is tried too."""

_DISTINCT_P = 0.01
"""McNemar's p value below which one candidate counts as better than another. The best of several
is compared, so a smaller value than the customary 0.05."""


_CHANCE_P = 0.05
"""p value above which a network may be no better than one answer to every image."""


def is_suspicious(predictions: Predictions) -> bool:
    """Returns whether a network is so rarely correct that it may have been fed something else.

    That is the case below `LOW_ACCURACY`, and where its mean confidence is more than
    `OVERCONFIDENT` above its accuracy.
    """
    return predictions.accuracy.top1 < LOW_ACCURACY or overconfidence(predictions) is not None


def overconfidence(predictions: Predictions) -> float | None:
    """Returns a network's mean confidence, where it is `OVERCONFIDENT` or more above its accuracy."""
    confidence = float(predictions.confidence.mean())
    return confidence if confidence - predictions.accuracy.top1 > OVERCONFIDENT else None


def constant_top1(predictions: Predictions, labels: NDArray[np.int64]) -> float | None:
    """Returns how often one answer to every image would be correct, where a network is no better.

    Args:
        predictions: for N images.
        labels: (N,).

    Returns:
        None where the network is significantly more often correct than the most frequent label.
    """
    share = float(np.bincount(labels).max()) / len(labels)
    correct = int(np.equal(predictions.top1, labels).sum())
    p_value = scipy.stats.binomtest(correct, len(labels), share, alternative="greater").pvalue
    return share if p_value > _CHANCE_P else None


def diagnose(
    runner: Runner,
    dataset: Dataset,
    contract: Contract,
    *,
    names: Sequence[str] = (),
    probabilities: bool = False,
    progress: Progress = silent,
) -> Diagnosis:
    """Returns what trying the usual mistakes in preprocessing and labels gives.

    `SCREENING + CONFIRMATION` images are sampled, or as many as there are, always the same. Every
    candidate is evaluated on the screening set, at most seven on the confirmation set: below 8,000
    inferences of one image.

    Args:
        runner: the FP32 reference, open.
        dataset: labelled images.
        contract: the present preprocessing.
        names: the network's classes in order; empty where not known.
        probabilities: whether the network ends in Softmax or Sigmoid.
        progress: receives how far a pass over the images is.

    Raises:
        DataError: there are fewer than two images, no labels, or one cannot be decoded.
        RunnerError: inference failed, or a logit is NaN or infinite.
    """
    sets = _split(dataset)
    shapes = (images.image(row).shape for images in sets for row in range(len(images)))
    sizes = ImageSizes(sizes=frozenset((height, width) for height, width, _ in shapes))
    screening, confirmation = (
        _ImageSet(runner, images, progress, probabilities) for images in sets
    )
    present = Candidate(contract=contract)
    predictions = screening.evaluate(contract)
    mappings = (
        *label_mappings(predictions.classes, screening.dataset.classes, names),
        *assigned_mappings(
            screening.labels,
            predictions.top1,
            predictions.classes,
            screening.dataset.classes,
            names,
        ),
    )
    contracts = (present, *candidate_contracts(contract, sizes))
    candidates = [read for each in contracts for read in with_mappings(each, mappings)]
    # A mapping of the labels was tried with every single contract just now, the geometry's too.
    images_only = [candidate for candidate in candidates if candidate.labels is None]
    for leading in screening.ranked(images_only)[:_LEADING]:
        candidates += with_geometry(leading, sizes)
    ranked = [candidate for candidate in screening.ranked(candidates) if candidate.mistakes]
    single = [candidate for candidate in ranked if len(candidate.mistakes) == 1]
    chosen = {*single[:_FINALISTS], *ranked[:_FINALISTS]}
    finalists = [candidate for candidate in candidates if candidate in chosen]
    findings = tuple(
        confirmation.finding(present, candidate, tries=len(finalists)) for candidate in finalists
    )
    best = confirmation.likeliest(findings)
    return Diagnosis(
        samples=len(confirmation.dataset),
        correct=int(confirmation.correct(present).sum()),
        confidence=confirmation.confidence(present),
        tried=len(candidates) - 1,
        inferences=screening.inferences + confirmation.inferences,
        findings=findings,
        named=best[0] if best else None,
        equals=best[1:],
    )


@dataclass(slots=True)
class _ImageSet:
    """Images that candidates are evaluated on; the predictions with a contract are kept."""

    runner: Runner
    dataset: Dataset
    progress: Progress
    probabilities: bool
    _predictions: dict[Contract, Predictions | None] = field(default_factory=dict)

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,), class indices of the data."""
        return _labels(self.dataset)

    @property
    def inferences(self) -> int:
        """Images that the network was run on so far."""
        return len(self._predictions) * len(self.dataset)

    def evaluate(self, contract: Contract) -> Predictions:
        """Returns the network's predictions for the images prepared by a contract.

        Raises:
            RunnerError: inference failed, or a logit is NaN or infinite.
        """
        with closing(batches(self.dataset, contract, batch_size=16)) as stream:
            tracked = tracked_batches(stream, len(self.dataset), "Diagnosing", self.progress)
            predictions = evaluate(self.runner, tracked, probabilities=self.probabilities)
        self._predictions[contract] = predictions
        return predictions

    def predictions(self, candidate: Candidate) -> Predictions | None:
        """Returns the predictions with a candidate's contract; None where the network gives NaN."""
        contract = candidate.contract
        if contract not in self._predictions:
            # None for a failure, which is remembered as well; `evaluate` overwrites it.
            self._predictions[contract] = None
            # Raw values may overflow a reference in FP16, and a fixed size excludes an exchanged one:
            # such a candidate is out, and no error.
            with suppress(RunnerError, MismatchError):
                self.evaluate(contract)
        return self._predictions[contract]

    def correct(self, candidate: Candidate) -> NDArray[np.bool_]:
        """(N,), whether the network is correct with a candidate's contract and labels."""
        predictions, labels = self.predictions(candidate), self.labels
        if predictions is None:
            return np.zeros(len(labels), np.bool_)
        if candidate.labels is not None:
            labels = np.asarray(candidate.labels.network_class)[labels]
        return np.equal(predictions.top1, labels)

    def confidence(self, candidate: Candidate) -> float:
        """Returns the mean confidence with a candidate's contract; 0 where the network gives NaN."""
        predictions = self.predictions(candidate)
        return 0.0 if predictions is None else float(predictions.confidence.mean())

    def finding(self, present: Candidate, candidate: Candidate, *, tries: int) -> Finding:
        """Returns what a candidate gives, its p value corrected for so many tries."""
        before, after = self.correct(present), self.correct(candidate)
        newly_correct, newly_wrong = int((after & ~before).sum()), int((before & ~after).sum())
        # Swapped, as it is the interval of a gain and not of a drop.
        low, high = drop_interval(newly_wrong, newly_correct, len(after))
        return Finding(
            candidate=candidate,
            correct=int(after.sum()),
            newly_correct=newly_correct,
            newly_wrong=newly_wrong,
            confidence=self.confidence(candidate),
            # Bonferroni's correction.
            p_value=min(1.0, tries * gain_p(newly_correct, newly_wrong)),
            gain_ci95_pp=(100 * low, 100 * high),
            options=options_between(present.contract, candidate.contract),
        )

    def likeliest(self, findings: Sequence[Finding]) -> tuple[Finding, ...]:
        """Returns the likeliest proven finding, then those as simple that do not differ from it."""
        proven = [finding for finding in findings if finding.is_proven]
        best = max(proven, key=lambda finding: finding.correct, default=None)
        if best is None:
            return ()
        most, equal = self.correct(best.candidate), []
        for finding in proven:
            own = self.correct(finding.candidate)
            if mcnemar_p(int((own & ~most).sum()), int((most & ~own).sum())) >= _DISTINCT_P:
                equal.append(finding)
        # Of equally good explanations the simplest is the likeliest: the fewest mistakes, then the
        # fewest options that repair them, then the order that they are given in.
        equal.sort(key=lambda finding: finding.complexity)
        fewest = len(equal[0].candidate.mistakes)
        return tuple(finding for finding in equal if len(finding.candidate.mistakes) == fewest)

    def ranked(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Returns the candidates, those with most correct images and fewest mistakes first."""
        return sorted(candidates, key=lambda c: (-int(self.correct(c).sum()), len(c.mistakes)))


def _split(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """Returns screening and confirmation set: a fifth of each class, and the rest."""
    # One seed: a diagnosis must not change from run to run.
    # A copy on both sides would confirm what it was chosen by.
    sampled = without_copies(select(dataset, SCREENING + CONFIRMATION, seed=0))
    if len(sampled) < 2:
        raise DataError(
            f"{dataset.path} has {len(sampled)} image; a diagnosis needs some to choose by and "
            "others to confirm on. Pass some hundred labelled images."
        )
    # Sorted by class and at random within each, every fifth row takes its share of every class.
    chance = np.random.Generator(np.random.PCG64(0)).random(len(sampled))
    by_class = np.lexsort((chance, _labels(sampled)))
    screens = np.arange(len(sampled)) % (1 + CONFIRMATION // SCREENING) == 0
    return take(sampled, np.sort(by_class[screens])), take(sampled, np.sort(by_class[~screens]))


def _labels(dataset: Dataset) -> NDArray[np.int64]:
    if dataset.labels is None:
        raise DataError(f"{dataset.path} has no labels; a diagnosis needs one an image.")
    return dataset.labels


def gain_p(newly_correct: int, newly_wrong: int) -> float:
    """Returns the one-sided exact McNemar p value of no gain against a gain.

    Source: McNemar 1947 with the binomial distribution in place of chi squared.
    """
    flips = newly_correct + newly_wrong
    return (
        float(scipy.stats.binomtest(newly_correct, flips, 0.5, alternative="greater").pvalue)
        if flips
        else 1.0
    )

"""Tries the usual mistakes on a few images, and judges the likeliest ones on others.

What looks best among many looks better than it is. So the few images that choose the suspects
have no part in judging them, and each judgement pays for the number of suspects judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest

from edgeres.core.contract import Contract
from edgeres.errors import DataError, RunnerError
from edgeres.evaluation.evaluate import Predictions, evaluate
from edgeres.evaluation.mistakes.suspects import Sides, geometry_beside, label_orders, suspects_of
from edgeres.evaluation.mistakes.values import (
    HALF_RIGHT,
    OVERCONFIDENT,
    Diagnosis,
    Finding,
    LabelOrder,
    Suspect,
    options_between,
)
from edgeres.images import Dataset, batches, select, take
from edgeres.progress import Progress, silent, tracked_batches
from edgeres.statistics import drop_interval, mcnemar_p
from edgeres.targets.runner import Runner

SCREENING = 64
"""Images on which suspects are chosen."""

JUDGING = 256
"""Further images on which the chosen ones are judged."""

_FINALISTS = 3
"""Suspects that are judged, of the single mistakes and of all: at most six together."""

_BESIDE = 2
"""Suspects beside which every mistake in the geometry is tried too."""

_PER_CLASS = 4
"""Images that each class needs on average for the order of the labels to be read off the answers."""

_TOLD_APART = 0.01
"""McNemar's p value below which one suspect counts as better than another. The best of several is
compared, so a smaller value than the customary 0.05."""


def is_suspicious(predictions: Predictions) -> bool:
    """Returns whether a network is right so rarely that it may have been fed something else.

    That is the case below `HALF_RIGHT`, and where its mean confidence is more than
    `OVERCONFIDENT` above its accuracy.
    """
    top1 = predictions.accuracy.top1
    return top1 < HALF_RIGHT or float(predictions.confidence.mean()) - top1 > OVERCONFIDENT


def diagnose(
    runner: Runner,
    dataset: Dataset,
    contract: Contract,
    *,
    names: Sequence[str] = (),
    progress: Progress = silent,
) -> Diagnosis:
    """Returns what trying the usual mistakes in preprocessing and labels comes to.

    `SCREENING + JUDGING` images are drawn, or as many as there are, always the same. Every
    suspect sees the screening ones, at most seven see the judging ones: below 5,000 inferences of
    one image.

    Args:
        runner: the FP32 reference, open.
        dataset: labelled images.
        contract: the present preprocessing.
        names: the network's classes in order; empty where not known.
        progress: receives how far a pass over the images is.

    Raises:
        DataError: there are fewer than two images, no labels, or one cannot be decoded.
        RunnerError: inference failed, or a logit is NaN or infinite.
    """
    screening, judging = _drawn(dataset)
    sides = _sides(screening, judging)
    screen, judge = (_Panel(runner, images, progress) for images in (screening, judging))
    present = Suspect(contract=contract)
    suspects = _read_in_orders(
        (present, *suspects_of(contract, sides)), _orders(screen, present, names)
    )
    leading = _ranked(screen, suspects)[:_BESIDE]
    suspects += [beside for suspect in leading for beside in geometry_beside(suspect, sides)]
    findings = _findings(judge, present, _finalists(screen, suspects))
    equals = _equals(judge, findings)
    return Diagnosis(
        contract=contract,
        samples=len(judging),
        correct=int(judge.right(present).sum()),
        confidence=judge.confidence(present),
        tried=len(suspects) - 1,
        inferences=screen.inferences + judge.inferences,
        findings=findings,
        named=equals[0] if equals else None,
        equals=equals[1:],
    )


@dataclass(slots=True)
class _Panel:
    """Images that suspects are tried on; what the network answered to a contract is kept."""

    runner: Runner
    dataset: Dataset
    progress: Progress
    _answers: dict[Contract, Predictions | None] = field(default_factory=dict)

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,), class indices of the data."""
        return _labels(self.dataset)

    @property
    def inferences(self) -> int:
        """Images that the network was run on so far."""
        return len(self._answers) * len(self.dataset)

    def answers(self, contract: Contract) -> Predictions:
        """Returns what the network answers to the images prepared by a contract.

        Raises:
            RunnerError: inference failed, or a logit is NaN or infinite.
        """
        with closing(batches(self.dataset, contract, batch_size=16)) as stream:
            found = evaluate(
                self.runner, tracked_batches(stream, len(self.dataset), "Diagnosing", self.progress)
            )
        self._answers[contract] = found
        return found

    def tried(self, suspect: Suspect) -> Predictions | None:
        """Returns what it answers if the suspect is right; None where it then computes NaN.

        Raw values may overflow a reference in FP16: such a suspect is out, and no error.
        """
        contract = suspect.contract
        if contract not in self._answers:
            self._answers[contract] = None
            with suppress(RunnerError):
                self.answers(contract)
        return self._answers[contract]

    def right(self, suspect: Suspect) -> NDArray[np.bool_]:
        """(N,), whether the network is right if the suspect is."""
        answers, wanted = self.tried(suspect), self.labels
        if answers is None:
            return np.zeros(len(wanted), np.bool_)
        if suspect.order is not None:
            wanted = np.asarray(suspect.order.network_class)[wanted]
        return np.equal(answers.top1, wanted)

    def confidence(self, suspect: Suspect) -> float:
        """Returns how sure the network is on average if the suspect is right; 0 if it gives NaN."""
        answers = self.tried(suspect)
        return 0.0 if answers is None else float(answers.confidence.mean())


def _drawn(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """Returns the images to screen and those to judge on: a fifth of each class, and the rest."""
    drawn = select(dataset, SCREENING + JUDGING, seed=0)
    if len(drawn) < 2:
        raise DataError(
            f"{dataset.path} has {len(drawn)} image; a diagnosis needs some to choose by and "
            "others to judge on. Pass some hundred labelled images."
        )
    chance = np.random.Generator(np.random.PCG64(0)).random(len(drawn))
    by_class = np.lexsort((chance, _labels(drawn)))
    screens = np.arange(len(drawn)) % (1 + JUDGING // SCREENING) == 0
    return take(drawn, np.sort(by_class[screens])), take(drawn, np.sort(by_class[~screens]))


def _labels(dataset: Dataset) -> NDArray[np.int64]:
    if dataset.labels is None:
        raise DataError(f"{dataset.path} has no labels; a diagnosis needs one an image.")
    return dataset.labels


def _sides(*datasets: Dataset) -> Sides:
    shorts = [min(d.image(index).shape[:2]) for d in datasets for index in range(len(d))]
    return Sides(shortest=min(shorts), longest=max(shorts))


def _orders(screen: _Panel, present: Suspect, names: Sequence[str]) -> tuple[LabelOrder, ...]:
    answers = screen.answers(present.contract)
    told = label_orders(answers.classes, screen.dataset.classes, names)
    return (*told, *_order_of_answers(answers, screen.labels))


def _order_of_answers(answers: Predictions, labels: NDArray[np.int64]) -> tuple[LabelOrder, ...]:
    """Returns the one-to-one order in which most screening images would be right.

    Source: Kuhn 1955, the Hungarian method, on the table of label and answer.
    """
    size = answers.classes
    if len(labels) < _PER_CLASS * size:
        return ()
    table = np.zeros((size, size), np.int64)
    np.add.at(table, (labels, answers.top1), 1)
    _, matched = linear_sum_assignment(table, maximize=True)
    return (
        LabelOrder(
            mistake="the labels number the classes in another order than the network",
            remedy=f"Number the classes as the network does: {_arrows(matched.tolist())}.",
            network_class=tuple(matched.tolist()),
        ),
    )


def _arrows(matched: Sequence[int]) -> str:
    return ", ".join(f"{label} is {own}" for label, own in enumerate(matched) if label != own)


def _read_in_orders(suspects: Iterable[Suspect], orders: Sequence[LabelOrder]) -> list[Suspect]:
    """Returns the suspects, and those of one mistake at most with each mistake in the labels too."""
    return [
        read
        for suspect in suspects
        for read in (
            suspect,
            *(_read_in(suspect, order) for order in orders if len(suspect.mistakes) < 2),
        )
    ]


def _read_in(suspect: Suspect, order: LabelOrder) -> Suspect:
    return replace(suspect, order=order, mistakes=(*suspect.mistakes, order.mistake))


def _ranked(screen: _Panel, suspects: Iterable[Suspect]) -> list[Suspect]:
    """Returns the suspects, those with which most screening images are right first."""
    return sorted(suspects, key=lambda s: (-int(screen.right(s).sum()), len(s.mistakes)))


def _finalists(screen: _Panel, suspects: Sequence[Suspect]) -> tuple[Suspect, ...]:
    """Returns the best single mistakes and the best of all, in the order of `suspects`."""
    guilty = [suspect for suspect in _ranked(screen, suspects) if suspect.mistakes]
    single = [suspect for suspect in guilty if len(suspect.mistakes) == 1]
    chosen = {*single[:_FINALISTS], *guilty[:_FINALISTS]}
    return tuple(suspect for suspect in suspects if suspect in chosen)


def _findings(judge: _Panel, present: Suspect, finalists: Sequence[Suspect]) -> tuple[Finding, ...]:
    """Returns what the finalists come to, in their order."""
    return tuple(_finding(judge, present, suspect, len(finalists)) for suspect in finalists)


def _equals(judge: _Panel, findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Returns the best proven finding and those as simple that it is not told apart from.

    The fewest mistakes come first, then the fewest options that repair them, then the order that
    they are given in: of equally good explanations the simplest is the likeliest.
    """
    proven = [finding for finding in findings if finding.is_proven]
    best = max(proven, key=lambda finding: finding.correct, default=None)
    equal = [finding for finding in proven if best and not _is_worse(judge, finding, best)]
    equal.sort(key=lambda finding: finding.complexity)
    return tuple(f for f in equal if len(f.suspect.mistakes) == len(equal[0].suspect.mistakes))


def _finding(judge: _Panel, present: Suspect, suspect: Suspect, tries: int) -> Finding:
    before, after = judge.right(present), judge.right(suspect)
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    low, high = drop_interval(lost, gained, len(after))
    return Finding(
        suspect=suspect,
        correct=int(after.sum()),
        gained=gained,
        lost=lost,
        confidence=judge.confidence(suspect),
        p_value=min(1.0, tries * _one_sided(gained, lost)),
        gain_ci95_pp=(100 * low, 100 * high),
        options=options_between(present.contract, suspect.contract),
    )


def _one_sided(gained: int, lost: int) -> float:
    """Returns the exact McNemar p value of no gain against a gain.

    Source: McNemar 1947 with the binomial distribution in place of chi squared; times the number
    of tries it is Bonferroni's.
    """
    flips = gained + lost
    return float(binomtest(gained, flips, 0.5, alternative="greater").pvalue) if flips else 1.0


def _is_worse(judge: _Panel, found: Finding, best: Finding) -> bool:
    """Returns whether the images tell the two apart."""
    own, others = judge.right(found.suspect), judge.right(best.suspect)
    return mcnemar_p(int((own & ~others).sum()), int((others & ~own).sum())) < _TOLD_APART

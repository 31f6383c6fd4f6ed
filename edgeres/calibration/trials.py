"""Candidates of a search compared with the best so far, at no more cost than the comparison takes.

Three things save inference. A candidate runs from the last cut before its first difference, on what
the best computed up to there. One that computes the same as the best is not run at all. And the
images are evaluated in order, until it is beyond chance that the candidate gains nothing on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import scipy
from numpy.typing import NDArray

from edgeres.calibration.prefixes import Cut, behind, common_operators, cuts_of, kept_cuts
from edgeres.calibration.quality import LogitEvaluator, sqnr_by_image, sure_sigmas
from edgeres.session import open_session, run_session

_LEAST_IMAGES = 16
"""Images from which a candidate may be given up: fewer show no standard deviation."""

_LOSS_DB = 0.001
"""What giving it up may lose besides, as the mean over all that its further images may bring: with
ten logits, whose gains have a spread of 3 dB, one in twenty that is worth it would be too many."""

_MOST_BYTES = 64 * 2**20
"""Memory for values at cuts; those nearer to the image are computed again beyond it. ResNet-50's
of 64 images take 60 to 90 MiB."""


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A lowered network, and what it computes of the images."""

    model: onnx.ModelProto = field(repr=False)
    ratios: NDArray[np.float64]
    """(images,), the quality of each one's logits in dB."""
    values: Mapping[Cut, tuple[NDArray[np.generic], ...]] = field(repr=False)
    """Integers at some of its cuts, by batch."""

    @property
    def quality(self) -> float:
        """The quality of the logits in dB, the mean over the images."""
        return float(self.ratios.mean())


def measured(
    evaluator: LogitEvaluator, model: onnx.ModelProto, *, with_values: bool = False
) -> Trial:
    """Returns the quality of a network on all images.

    Args:
        evaluator: has the images.
        model: on the CPU's kernels.
        with_values: keep the values at cuts, for candidates to start from; as large as many images.

    Raises:
        RunnerError: ONNX Runtime refused the network.
    """
    kept = cuts_of(model) if with_values else ()
    session = open_session(behind(model, None, kept).SerializeToString())
    values: dict[Cut, list[NDArray[np.generic]]] = {cut: [] for cut in kept}
    logits: list[NDArray[np.float32]] = []
    for batch in evaluator.batches:
        fetched = [model.graph.output[0].name, *(cut.tensor for cut in values)]
        outputs, *inside = run_session(session, fetched, {_image(model): batch})
        if not logits:
            # How large the values are is known once some are there.
            sizes = [part.nbytes * evaluator.images // len(batch) for part in inside]
            chosen = kept_cuts(sizes, _MOST_BYTES)
            values = {kept[index]: [] for index in chosen}
            inside = [inside[index] for index in chosen]
        # Copies: the arrays' memory is the session's, all of which would stay with them.
        logits.append(outputs.copy())
        for parts, part in zip(values.values(), inside, strict=True):
            parts.append(part.copy())
    ratios = sqnr_by_image(evaluator.logits, np.concatenate(logits))
    return Trial(model, ratios, {cut: tuple(parts) for cut, parts in values.items()})


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """What a candidate gains over the best so far."""

    gain_db: float
    """Of the images that were evaluated, the mean: all of them, unless it was given up."""
    trial: Trial | None
    """The candidate, where it gains enough on all images."""


def compared(
    evaluator: LogitEvaluator, best: Trial, model: onnx.ModelProto, least_gain: float
) -> Comparison:
    """Returns what a candidate gains over the best so far.

    Args:
        evaluator: has the images that `best` was measured on.
        best: to compare with.
        model: the candidate, on the CPU's kernels.
        least_gain: in dB, the mean over the images.

    Raises:
        RunnerError: ONNX Runtime refused the network.
    """
    common = common_operators(best.model, model)
    if common == len(model.graph.node) == len(best.model.graph.node):
        return Comparison(0.0, None)
    reached = {cut: parts for cut, parts in best.values.items() if cut.position <= common}
    start = max(reached, key=lambda cut: cut.position, default=None)
    parts = evaluator.batches if start is None else reached[start]
    source = _image(model) if start is None else start.tensor
    tail = behind(model, None if start is None else (start, parts[0].shape[1:]), ())
    session = open_session(tail.SerializeToString())
    ratios = np.empty(0)
    for part in parts:
        (logits,) = run_session(session, [model.graph.output[0].name], {source: part})
        reference = evaluator.logits[len(ratios) : len(ratios) + len(logits)]
        ratios = np.concatenate([ratios, sqnr_by_image(reference, logits)])
        gains = ratios - best.ratios[: len(ratios)]
        gain = float(gains.mean())
        if _LEAST_IMAGES <= len(gains) < evaluator.images:
            # Of the mean over all images, of which these are a part drawn without replacement.
            unknown = 1 / len(gains) - 1 / evaluator.images
            error = gains.std(ddof=1) * np.sqrt(unknown)
            lead = gain - least_gain
            hopeless = lead + sure_sigmas(len(gains)) * error < 0
            if hopeless and _mean_above_zero(lead, error) < _LOSS_DB:
                return Comparison(gain, None)
    return Comparison(gain, None if gain < least_gain else Trial(model, ratios, reached))


def _mean_above_zero(mean: float, deviation: float) -> float:
    """Returns the mean of a normal distribution's values, with zero for those below it."""
    if deviation == 0:
        return max(mean, 0.0)
    sigmas = mean / deviation
    # The density's integral from zero on, times the value.
    above = mean * scipy.stats.norm.cdf(sigmas) + deviation * scipy.stats.norm.pdf(sigmas)
    return float(above)


def _image(model: onnx.ModelProto) -> str:
    return str(model.graph.input[0].name)

"""Mixed precision: which residual blocks to keep from INT8 so that accuracy stays in a budget.

Blocks are ordered by the noise that they add to the logits for each unit of latency that INT8
saves in them, and kept from INT8 one after the other until the budget is met. A block is kept
by leaving out its Q/DQ, so that a strongly typed builder cannot choose otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from edgeres.calibration.quality import LogitEvaluator, sqnr_db
from edgeres.core.batches import LabelledBatch
from edgeres.core.methods import Method
from edgeres.core.table import CalibrationTable
from edgeres.core.tuning import MixedPoint, MixedSearch
from edgeres.errors import CalibrationError
from edgeres.estimation.arithmetic import Arithmetic
from edgeres.estimation.estimate import quantized_kernels
from edgeres.estimation.fitted import fitted_model
from edgeres.estimation.model import EstimatedTiming, Load, latency, workload
from edgeres.machine.boards import find_board
from edgeres.onnx_file import LoadedModel
from edgeres.progress import Progress, silent
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.lowering import Lowering, Mix
from edgeres.quantization.units import Unit, blocks, residual_additions
from edgeres.session import open_session, run_session

ESTIMATED_BOARD = ("agx-orin-64", "MAXN")
"""The board, in its power mode, that latencies are estimated for where the target is not at hand."""

_LEAST_COST = 0.001
"""Least increase of the latency, as a fraction, that a unit's gain is divided by."""

_ITERATIONS = 15
_WARMUP = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class MixRequest:
    """What mixed precision is chosen for."""

    lowering: Lowering
    max_drop_pp: float
    method: Method | None = None
    """Which thresholds of the table; None takes its own."""
    float_stream: bool = False
    """Whether single tensors of the residual stream may be kept too: an Add's shortcut, in float."""


@dataclass(frozen=True, slots=True, eq=False)
class Budget:
    """What an engine may lose, and on which images that is counted."""

    evaluator: LogitEvaluator
    labels: NDArray[np.int64] | None
    """(images,); None where they are not known."""
    max_drop_pp: float

    def drop_pp(self, logits: NDArray[np.float32]) -> float:
        """Returns the drop of top-1 accuracy in percentage points.

        Without labels every image whose label changed counts as newly wrong: never less than the
        drop.
        """
        before, after = self.evaluator.logits.argmax(axis=1), logits.argmax(axis=1)
        if self.labels is None:
            return 100 * float(np.mean(before != after))
        fewer = np.count_nonzero(before == self.labels) - np.count_nonzero(after == self.labels)
        return 100 * float(fewer) / len(self.labels)


def choose_mix(
    model: LoadedModel,
    table: CalibrationTable,
    request: MixRequest,
    batches: Iterable[LabelledBatch],
    progress: Progress = silent,
) -> Mix:
    """Returns what to keep from INT8 so that the drop in accuracy stays within a budget.

    All images are kept in memory, since each candidate runs on all of them.

    Args:
        model: the FP32 file.
        table: its thresholds.
        request: for which target, by which method and within which budget.
        batches: images to evaluate the drop on, best such as training has not seen; with labels
            or all without.
        progress: receives each lowering that was tried.

    Raises:
        CalibrationError: no images.
        ArtifactError: the table lacks a tensor.
        RunnerError: ONNX Runtime refused a candidate.
    """
    evaluated = list(batches)
    if not evaluated:
        raise CalibrationError("No image came to choose mixed precision by. Pass images.")
    graph = view(model.proto)
    labels = [batch.labels for batch in evaluated if batch.labels is not None]
    budget = Budget(
        evaluator=LogitEvaluator.of(model.proto, graph, [batch.images for batch in evaluated]),
        labels=np.concatenate(labels) if len(labels) == len(evaluated) else None,
        max_drop_pp=request.max_drop_pp,
    )
    method = request.method or table.method
    # A whole block last of two that are worth as much: what the Add alone gains costs less.
    units = (*(residual_additions(graph) if request.float_stream else ()), *blocks(graph))
    return _Search(graph, table, method, request.lowering, budget, units).run(progress)


def pareto(points: Iterable[MixedPoint]) -> tuple[int, ...]:
    """Returns the positions of the points that no other dominates in drop and latency."""
    pairs = [(point.drop_pp, point.latency) for point in points]
    return tuple(
        index
        for index, (drop, latency) in enumerate(pairs)
        if not any(
            other != (drop, latency) and other[0] <= drop and other[1] <= latency for other in pairs
        )
    )


def estimated_latency(graph: Graph) -> float:
    """Returns the time of a partly integer network over that of the same all in INT8.

    By the latency model, one image on `ESTIMATED_BOARD`; what is kept runs in FP16.
    """
    board, constants = find_board(*ESTIMATED_BOARD), fitted_model().constants
    load = Load(arithmetic=Arithmetic.INT8, batch=1, timing=EstimatedTiming.COMPUTE)
    mixed, all_int8 = (
        latency(workload(quantized_kernels(each), board, load), constants).total
        for each in (graph, graph.keeping({}))
    )
    return mixed / all_int8


@dataclass(frozen=True, slots=True)
class _Trial:
    """What keeping one unit from INT8 does, all else in INT8."""

    unit: Unit
    gain_db: float
    worth: float
    """Noise power of the logits that goes, for each unit of latency that comes."""


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    """Chooses among the networks of one lowering, with some operators kept in float."""

    graph: Graph
    table: CalibrationTable
    method: Method
    lowering: Lowering
    budget: Budget
    units: tuple[Unit, ...]

    def run(self, progress: Progress) -> Mix:
        """Keeps units from INT8, the one that is most worth it first, until the budget is met."""
        budget, units = self.budget, self.units
        # Each unit alone, then one more at a time: the second half ends early.
        steps = 2 * len(units) + 1
        start = self.point({}, ())
        trials: list[_Trial] = []
        for done, unit in enumerate(units if start.drop_pp > budget.max_drop_pp else (), start=1):
            point = self.point(dict.fromkeys(unit.nodes, "on trial"), (unit.name,))
            gain_db = point.sqnr_db - start.sqnr_db
            # Noise over signal, since powers add up where decibels do not.
            removed = 10 ** (-start.sqnr_db / 10) - 10 ** (-point.sqnr_db / 10)
            # A unit that costs nothing, or less within the noise of a timing, ranks by its gain.
            cost = max(point.latency - start.latency, _LEAST_COST * start.latency)
            trials.append(_Trial(unit, gain_db, removed / cost))
            progress(
                "Choosing precisions",
                done,
                steps,
                f"{unit.name}: {gain_db:+.2f} dB without its INT8",
            )
        trials.sort(key=lambda trial: -trial.worth)
        points = [start]
        kept: dict[str, str] = {}
        for done, trial in enumerate(trials, start=len(trials) + 1):
            if points[-1].drop_pp <= budget.max_drop_pp:
                break
            name = trial.unit.name
            if trial.unit.nodes <= kept.keys():
                continue  # an Add whose block is kept already
            reason = f"kept from INT8 for the accuracy: its INT8 alone costs {trial.gain_db:.2f} dB"
            kept = {**dict.fromkeys(trial.unit.nodes, reason), **kept}
            points.append(self.point(kept, (*points[-1].kept, name)))
            text = f"without {name} too: drop {points[-1].drop_pp:.2f} pp"
            progress("Choosing precisions", done, steps, text)
        search = MixedSearch(
            max_drop_pp=budget.max_drop_pp,
            images=budget.evaluator.images,
            labelled=budget.labels is not None,
            measured=self.lowering.has_cpu_kernels,
            points=tuple(points),
            pareto=pareto(points),
        )
        return Mix(kept, search)

    def point(self, kept: Mapping[str, str], units: tuple[str, ...]) -> MixedPoint:
        """Returns accuracy and latency of the network that keeps these operators in float."""
        graph, evaluator = self.graph.keeping(kept), self.budget.evaluator
        logits = evaluator.lowered_logits(self.lowering, graph, self.table, self.method)
        return MixedPoint(
            kept=units,
            drop_pp=self.budget.drop_pp(logits),
            sqnr_db=sqnr_db(evaluator.logits, logits),
            latency=self.latency(graph, evaluator.batches[0][:1]),
        )

    def latency(self, graph: Graph, image: NDArray[np.float32]) -> float:
        """Returns the median milliseconds of one inference, or the estimated ratio to all INT8."""
        if not self.lowering.has_cpu_kernels:
            return estimated_latency(graph)
        model = self.lowering.lower(graph, self.table, self.method)
        session = open_session(model.SerializeToString())
        times_ms = []
        for _ in range(_WARMUP + _ITERATIONS):
            begin = time.perf_counter()
            run_session(session, [graph.output], {graph.input: image})
            times_ms.append(1000 * (time.perf_counter() - begin))
        return median(times_ms[_WARMUP:])

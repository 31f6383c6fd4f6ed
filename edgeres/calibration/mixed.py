"""Mixed precision: which residual blocks to keep from INT8 so that accuracy stays in a budget.

Blocks are ordered by the noise that they add to the logits for each unit of latency that INT8
saves in them, and kept from INT8 one after the other until the budget is met. A block is kept
by leaving out its Q/DQ, so that a strongly typed builder has no say in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeres.calibration.observe import ImageBatch
from edgeres.calibration.quality import Judge, judge, sqnr_db
from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.core.table import CalibrationTable
from edgeres.core.tuning import MixedPoint, MixedSearch
from edgeres.errors import CalibrationError
from edgeres.onnx_file import LoadedModel
from edgeres.progress import Progress, silent
from edgeres.quantization.cost import operator_cost
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.lowering import Lowering, Mix
from edgeres.quantization.units import Unit, blocks
from edgeres.session import open_session, run_session

RIDGE_MACS_PER_BYTE = 207.0
"""INT8 multiply-accumulates that a Jetson AGX Orin does in the time in which it moves a byte:
85 dense TOPS are 42.5e12 of them a second, its memory moves 204.8e9 bytes. Source: NVIDIA Jetson
AGX Orin Series data sheet, 64 GB module."""

_LEAST_COST = 0.001
_REPEATS = 15
_UNTIMED = 3


class LabelledBatch(ImageBatch, Protocol):
    """A batch whose images may have labels."""

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """(N,), or None."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MixRequest:
    """What mixed precision is chosen for."""

    lowering: Lowering
    max_drop_pp: float
    method: Method | None = None
    """Which thresholds of the table; None takes its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Budget:
    """What an engine may lose, and on which images that is counted."""

    judge: Judge
    labels: NDArray[np.int64] | None
    """(images,); None where they are not known."""
    max_drop_pp: float

    def drop_pp(self, logits: NDArray[np.float32]) -> float:
        """Returns the drop of top-1 accuracy in percentage points.

        Without labels every image whose label changed counts as lost: never less than the drop.
        """
        before, after = self.judge.logits.argmax(axis=1), logits.argmax(axis=1)
        if self.labels is None:
            return 100 * float(np.mean(before != after))
        lost = np.count_nonzero(before == self.labels) - np.count_nonzero(after == self.labels)
        return 100 * float(lost) / len(self.labels)


@dataclass(frozen=True, slots=True, eq=False)
class MixedNetworks:
    """The lowerings that a search chooses among."""

    graph: Graph
    table: CalibrationTable
    method: Method
    lowering: Lowering

    def logits(self, graph: Graph, judge: Judge) -> NDArray[np.float32]:
        """Returns the logits, (images, classes), with what `graph` keeps in float."""
        return judge.lowered_logits(self.lowering, graph, self.table, self.method)

    def latency(self, graph: Graph, image: NDArray[np.float32]) -> float:
        """Returns milliseconds of one inference, or the estimated ratio to everything in INT8."""
        if not self.lowering.has_cpu_kernels:
            return estimated_latency(graph)
        model = self.lowering.lower(graph, self.table, self.method)
        return _measured_ms(model.SerializeToString(), graph, image)


def choose_mix(
    model: LoadedModel,
    table: CalibrationTable,
    request: MixRequest,
    batches: Iterable[LabelledBatch],
    progress: Progress = silent,
) -> Mix:
    """Returns what to keep from INT8 so that the drop in accuracy stays within a budget.

    All images are held in memory, since each candidate runs on all of them.

    Args:
        model: the FP32 file.
        table: its thresholds.
        request: for which target, by which method and within which budget.
        batches: images that judge the drop, best such as training has not seen; with labels or
            all without.
        progress: receives each lowering that was tried.

    Raises:
        CalibrationError: no images.
        ArtifactError: the table lacks a tensor.
        RunnerError: ONNX Runtime refused a candidate.
    """
    seen = list(batches)
    if not seen:
        raise CalibrationError("No image came to judge mixed precision by. Pass images.")
    graph = view(model.proto)
    judging = judge(model.proto.SerializeToString(), graph, [batch.images for batch in seen])
    labels = [batch.labels for batch in seen if batch.labels is not None]
    budget = Budget(
        judge=judging,
        labels=np.concatenate(labels) if len(labels) == len(seen) else None,
        max_drop_pp=request.max_drop_pp,
    )
    networks = MixedNetworks(
        graph=graph,
        table=table,
        method=request.method or table.method,
        lowering=request.lowering,
    )
    return Mix(*search_mixed(networks, budget, progress))


def search_mixed(
    networks: MixedNetworks, budget: Budget, progress: Progress
) -> tuple[dict[str, str], MixedSearch]:
    """Returns the operators to keep from INT8, each with the reason, and what was considered.

    Args:
        networks: the lowerings to choose among.
        budget: when to stop.
        progress: receives each lowering that was tried.
    """
    start = _point(networks, budget, ())
    points, steps = [start], _steps(networks.graph)
    ranked = _ranked(networks, budget.judge, start, steps, progress) if _over(start, budget) else ()
    for done, trial in enumerate(ranked, start=len(ranked) + 1):
        if not _over(points[-1], budget):
            break
        points.append(_point(networks, budget, ranked[: done - len(ranked)]))
        progress(
            "Choosing precisions",
            done,
            steps,
            f"without {trial.unit.name} too: drop {points[-1].drop_pp:.2f} pp",
        )
    chosen = ranked[: len(points) - 1]
    return _kept(chosen), MixedSearch(
        max_drop_pp=budget.max_drop_pp,
        images=budget.judge.images,
        labelled=budget.labels is not None,
        measured=networks.lowering.has_cpu_kernels,
        points=tuple(points),
        pareto=pareto(points),
    )


def pareto(points: Iterable[MixedPoint]) -> tuple[int, ...]:
    """Returns the positions of the points that no other beats in both drop and latency."""
    found = list(points)
    return tuple(
        index
        for index, point in enumerate(found)
        if not any(_beats(other, point) for other in found)
    )


def estimated_latency(graph: Graph) -> float:
    """Returns the time of a partly integer network over that of the same all in INT8.

    Of convolutions alone, by the roofline with `RIDGE_MACS_PER_BYTE`; what is kept runs in FP16.
    """
    costs = {n.name: operator_cost(graph, n) for n in graph.nodes if n.op_type == "Conv"}
    int8, fp16 = (
        {name: cost.roofline_time(precision, RIDGE_MACS_PER_BYTE) for name, cost in costs.items()}
        for precision in (Precision.INT8, Precision.FP16)
    )
    added = sum(fp16[name] - int8[name] for name in graph.kept if name in costs)
    return 1 + added / sum(int8.values())


def _beats(other: MixedPoint, point: MixedPoint) -> bool:
    ours, theirs = (point.drop_pp, point.latency), (other.drop_pp, other.latency)
    return theirs != ours and theirs[0] <= ours[0] and theirs[1] <= ours[1]


@dataclass(frozen=True, slots=True)
class _Trial:
    """What keeping one unit from INT8 does, all else in INT8."""

    unit: Unit
    gain_db: float
    worth: float
    """Noise power of the logits that goes, for each unit of latency that comes."""


def _steps(graph: Graph) -> int:
    return 2 * len(blocks(graph)) + 1


def _over(point: MixedPoint, budget: Budget) -> bool:
    return point.drop_pp > budget.max_drop_pp


def _ranked(
    networks: MixedNetworks, judge: Judge, start: MixedPoint, steps: int, progress: Progress
) -> tuple[_Trial, ...]:
    """Returns every unit, the one that is most worth keeping first."""
    trials = []
    for done, unit in enumerate(blocks(networks.graph), start=1):
        trials.append(_trial(networks, judge, start, unit))
        progress(
            "Choosing precisions",
            done,
            steps,
            f"{unit.name}: {trials[-1].gain_db:+.2f} dB without its INT8",
        )
    return tuple(sorted(trials, key=lambda trial: -trial.worth))


def _trial(networks: MixedNetworks, judge: Judge, start: MixedPoint, unit: Unit) -> _Trial:
    graph = networks.graph.keeping(dict.fromkeys(unit.nodes, "on trial"))
    quality = sqnr_db(judge.logits, networks.logits(graph, judge))
    cost = networks.latency(graph, judge.batches[0][:1]) - start.latency
    removed = _power(start.sqnr_db) - _power(quality)
    # A unit that costs nothing, or less within the noise of a timing, is judged by its gain.
    worth = removed / max(cost, _LEAST_COST * start.latency)
    return _Trial(unit, quality - start.sqnr_db, worth)


def _power(sqnr: float) -> float:
    """Returns the noise of the logits over their signal."""
    return float(10 ** (-sqnr / 10))


def _kept(chosen: tuple[_Trial, ...]) -> dict[str, str]:
    return {
        name: f"kept from INT8 for the accuracy: its INT8 alone costs {trial.gain_db:.2f} dB"
        for trial in chosen
        for name in trial.unit.nodes
    }


def _point(networks: MixedNetworks, budget: Budget, chosen: tuple[_Trial, ...]) -> MixedPoint:
    graph, judge = networks.graph.keeping(_kept(chosen)), budget.judge
    logits = networks.logits(graph, judge)
    return MixedPoint(
        kept=tuple(trial.unit.name for trial in chosen),
        drop_pp=budget.drop_pp(logits),
        sqnr_db=sqnr_db(judge.logits, logits),
        latency=networks.latency(graph, judge.batches[0][:1]),
    )


def _measured_ms(model: bytes, graph: Graph, image: NDArray[np.float32]) -> float:
    """Returns the median time of one inference on this machine's CPU."""
    session = open_session(model)
    times = []
    for _ in range(_UNTIMED + _REPEATS):
        begin = time.perf_counter()
        run_session(session, [graph.output], {graph.input: image})
        times.append(1000 * (time.perf_counter() - begin))
    return median(times[_UNTIMED:])

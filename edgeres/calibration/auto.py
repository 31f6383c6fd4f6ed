"""Method auto: thresholds by measured error of the logits on held-out calibration images.

No rule on one tensor's distribution knows what its clipping does to the label: in the last
stages of a trained ResNet rare large activations are the evidence itself. So the method with
the best logits is taken, then the thresholds of each group of tensors are widened or narrowed
together as long as the logits gain. Groups, not single tensors: on ResNet-50, choosing for
each tensor gained up to 1.7 dB on the images that it was chosen on and 0.1 to 0.4 dB on others,
while a factor for each group gains about as much on both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import Enum

import onnx

from edgeres.calibration.quality import LogitEvaluator, computable
from edgeres.calibration.trials import compared, measured
from edgeres.core.methods import Method, WeightMethod
from edgeres.core.table import CalibrationTable, TensorRange
from edgeres.core.tuning import Choice
from edgeres.progress import Progress
from edgeres.quantization.graph import Graph
from edgeres.quantization.lowering import Lowering
from edgeres.targets.base import lowerings

STEP = 1.25
"""Ratio of two neighbouring factors. An amax that is 12 % off costs little, so none is finer."""

WIDEST = STEP**6
LEAST_GAIN_DB = 0.02
"""Gains below it are chance: 64 images resolve two thresholds by about as much."""

_LEAST_WEIGHTS_DB = 0.2
"""Gain, the mean of both lowerings, from which weights are clipped: on ResNet-50 another set
of candidates for the mse search moved the CPU's logits by 0.3 dB."""

CANDIDATES: tuple[Method, ...] = tuple(m for m in Method if m is not Method.AUTO)
"""The methods that look at one tensor's distribution."""

_LIKELY_BEST = Method.MSE


def choose_thresholds(
    graph: Graph, table: CalibrationTable, evaluator: LogitEvaluator, progress: Progress
) -> tuple[Choice, ...]:
    """Returns how each lowering's thresholds are best chosen, those with an unsigned grid first.

    The CPU's lowering decides the unsigned grid and every signed tensor, TensorRT's then the
    signed grid of tensors that are never negative, which the CPU does not use. A lowering whose
    grids others have decided decides nothing and has no choice. An image whose pixels the CPU
    keeps has the threshold of the CPU's method: nothing was gained by another.

    Args:
        graph: the FP32 model.
        table: thresholds of every other method, from images that `evaluator` does not have.
        evaluator: of images held out of the ranges.
        progress: receives each group of tensors that was searched.
    """
    choices: list[Choice] = []
    undecided = table
    # The lowering that decides most comes first: the next starts from the thresholds it chose.
    for lowering in sorted(lowerings(), key=lambda lowering: not lowering.has_unsigned_grid):
        grids = _grids(lowering) - _decided(choices)
        if grids:
            choices.append(_search(lowering, grids, graph, table, evaluator, progress))
            table = with_choices(graph, undecided, tuple(choices))
    return tuple(choices)


def choose_weights(
    graph: Graph, table: CalibrationTable, evaluator: LogitEvaluator
) -> tuple[WeightMethod, tuple[Choice, ...]]:
    """Returns how weights are best scaled, with the choices of thresholds that have the figures.

    The lowerings share their weights, so one method serves all.

    Args:
        graph: the FP32 model.
        table: with the thresholds of method auto, weights by max.
        evaluator: of images held out of the ranges.
    """
    clipping = replace(table, weight_method=WeightMethod.MSE)
    choices, gains = [], []
    for choice in table.choices:
        mse = evaluator.quality(_lowering_of(choice), graph, clipping, Method.AUTO)
        weights_db = {WeightMethod.MAX: choice.tuned_db, WeightMethod.MSE: mse}
        choices.append(replace(choice, weights_db=weights_db))
        gains.append(mse - choice.tuned_db)
    pays = sum(gains) / len(gains) >= _LEAST_WEIGHTS_DB
    return WeightMethod.MSE if pays else WeightMethod.MAX, tuple(choices)


def with_choices(
    graph: Graph, table: CalibrationTable, choices: tuple[Choice, ...]
) -> CalibrationTable:
    """Returns the table with the thresholds of method auto that the choices give it.

    A threshold that several lowerings use has the value of the first: the others were chosen
    beside it.
    """
    for index, choice in enumerate(choices):
        grids = _grids(_lowering_of(choice)) - _decided(choices[:index])
        table = _scaled(graph, table, grids, choice.method, choice.factors)
    return replace(table, method=Method.AUTO, choices=choices)


class _Grid(Enum):
    """What a threshold is of: a grid, and which tensors are on it."""

    SIGNED = "signed tensors"
    NON_NEGATIVE = "tensors that are never negative, on the signed grid"
    UNSIGNED = "tensors that are never negative, on the unsigned grid"


def _grids(lowering: Lowering) -> frozenset[_Grid]:
    """Returns the grids that a lowering uses."""
    other = _Grid.UNSIGNED if lowering.has_unsigned_grid else _Grid.NON_NEGATIVE
    return frozenset({_Grid.SIGNED, other})


def _decided(choices: Iterable[Choice]) -> frozenset[_Grid]:
    """Returns the grids whose thresholds are chosen."""
    return frozenset().union(*(_grids(_lowering_of(choice)) for choice in choices))


def _search(
    lowering: Lowering,
    grids: frozenset[_Grid],
    graph: Graph,
    table: CalibrationTable,
    evaluator: LogitEvaluator,
    progress: Progress,
) -> Choice:
    """Returns the best method for one lowering and the factors that improve on it."""

    def lowered(method: Method, factors: Mapping[str, float]) -> onnx.ModelProto:
        scaled = _scaled(graph, table, grids, method, factors)
        return computable(lowering, graph, scaled, Method.AUTO)

    # The one that is mostly the best is run with its values at once, and those of one alone kept.
    best = measured(evaluator, lowered(_LIKELY_BEST, {}), with_values=True)
    gains = {
        m: 0.0 if m is _LIKELY_BEST else compared(evaluator, best, lowered(m, {}), 0.0).gain_db
        for m in CANDIDATES
    }
    qualities = {m: best.quality + gain for m, gain in gains.items()}
    method = max(CANDIDATES, key=lambda m: qualities[m])
    if method is not _LIKELY_BEST:
        del best
        best = measured(evaluator, lowered(method, {}), with_values=True)
    # From the logits back to the image: what is rounded last shows in them most.
    decided = [name for name, r in reversed(list(table.tensors.items())) if _is_on(r, grids)]
    groups = list(dict.fromkeys(_group(graph, table, name) for name in decided))
    factors = dict.fromkeys(groups, 1.0)
    for done, group in enumerate(groups, start=1):
        # Widened while the logits gain; narrowed only where widening never helped.
        for step in (STEP, 1 / STEP):
            while 1 / WIDEST < (factor := factors[group] * step) < WIDEST:
                changed = {**factors, group: factor}
                trial = compared(evaluator, best, lowered(method, changed), LEAST_GAIN_DB).trial
                if trial is None:
                    break
                best, factors = trial, changed
            if factors[group] != 1:
                break
        stage = f"Searching thresholds ({lowering.name})"
        progress(stage, done, len(groups), f"{group}: {best.quality:.2f} dB")
    return Choice(
        target=lowering.name,
        images=evaluator.images,
        method=method,
        sqnr_db=qualities,
        factors={group: factor for group, factor in factors.items() if factor != 1},
        tuned_db=best.quality,
    )


def _lowering_of(choice: Choice) -> Lowering:
    return next(lowering for lowering in lowerings() if lowering.name == choice.target)


def _is_on(tensor: TensorRange, grids: frozenset[_Grid]) -> bool:
    """Whether a tensor has a threshold of one of these grids."""
    own = {_Grid.SIGNED} if tensor.signed else {_Grid.NON_NEGATIVE, _Grid.UNSIGNED}
    return bool(tensor.thresholds) and not own.isdisjoint(grids)


def _scaled(
    graph: Graph,
    table: CalibrationTable,
    grids: frozenset[_Grid],
    method: Method,
    factors: Mapping[str, float],
) -> CalibrationTable:
    """Returns the table with a method's thresholds on some grids, times factors, as those of auto."""
    tensors = {}
    for name, tensor in table.tensors.items():
        if not tensor.thresholds:
            tensors[name] = tensor
            continue
        base = tensor.thresholds[method]
        chosen = tensor.thresholds.get(Method.AUTO, base)
        if _is_on(tensor, grids):
            factor = factors.get(_group(graph, table, name), 1.0)
            # Beyond the exact extreme levels are only wasted.
            if tensor.signed or _Grid.NON_NEGATIVE in grids:
                chosen = replace(chosen, s8=min(base.s8 * factor, tensor.amax))
            if base.u8 is not None and _Grid.UNSIGNED in grids:
                chosen = replace(chosen, u8=min(base.u8 * factor, tensor.amax))
        tensors[name] = replace(tensor, thresholds={**tensor.thresholds, Method.AUTO: chosen})
    return replace(table, tensors=tensors)


def _group(graph: Graph, table: CalibrationTable, tensor: str) -> str:
    """Returns a tensor's group: its resolution, what computes it, and whether it has a sign.

    The main branch in front of an Add, the Add's own result and what lies within a block have
    distributions of their own kinds.
    """
    size = "x".join(str(n) for n in graph.shapes.get(tensor, ())[1:]) or "vector"
    node = graph.producers.get(tensor)
    if node is not None and node.op_type == "Relu":
        node = graph.producers.get(node.input[0])
    operator = "image" if node is None else node.op_type
    sign = "signed" if table.tensors[tensor].signed else "unsigned"
    return f"{size} {operator} {sign}"

"""Method auto: thresholds by measured error of the logits on held-out calibration images.

No rule on one tensor's distribution knows what its clipping does to the label: in the last
stages of a trained ResNet rare large activations are the evidence itself. So the method with
the best logits is taken, then the thresholds of each group of tensors are widened or narrowed
together as long as the logits gain. Groups, not single tensors: on ResNet-50, choosing for
each tensor gained up to 1.7 dB on the images that it was chosen on and 0.1 to 0.4 dB on others,
while a factor for each group gains about as much on both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgeres.calibration.quality import LogitEvaluator
from edgeres.core.methods import Method, WeightMethod
from edgeres.core.table import CalibrationTable, TensorRange, Threshold
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


def choose_thresholds(
    graph: Graph, table: CalibrationTable, evaluator: LogitEvaluator, progress: Progress
) -> tuple[Choice, ...]:
    """Returns how each lowering's thresholds are best chosen, those with an unsigned grid first.

    The CPU's lowering decides the unsigned grid and every signed tensor, TensorRT's then the
    signed grid of tensors that are never negative, which the CPU does not use. An image whose
    pixels the CPU keeps has the threshold of the CPU's method: nothing was gained by another.

    Args:
        graph: the FP32 model.
        table: thresholds of every other method, from images that `evaluator` does not have.
        evaluator: of images held out of the ranges.
        progress: receives each group of tensors that was searched.
    """
    choices: list[Choice] = []
    # The lowering that decides most comes first: the next starts from the thresholds it chose.
    for lowering in sorted(lowerings(), key=lambda lowering: not lowering.has_unsigned_grid):
        choices.append(_search(lowering, graph, table, evaluator, progress))
        table = with_choices(graph, table, tuple(choices))
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
    """Returns the table with the thresholds of method auto that the choices give it."""
    for choice in choices:
        table = _scaled(graph, table, _lowering_of(choice), choice.method, choice.factors)
    return replace(table, method=Method.AUTO, choices=choices)


def _search(
    lowering: Lowering,
    graph: Graph,
    table: CalibrationTable,
    evaluator: LogitEvaluator,
    progress: Progress,
) -> Choice:
    """Returns the best method for one lowering and the factors that improve on it."""

    def quality(method: Method, factors: Mapping[str, float]) -> float:
        scaled = _scaled(graph, table, lowering, method, factors)
        return evaluator.quality(lowering, graph, scaled, Method.AUTO)

    qualities = {method: quality(method, {}) for method in CANDIDATES}
    method = max(CANDIDATES, key=lambda m: qualities[m])
    best = qualities[method]
    # From the logits back to the image: what is rounded last shows in them most.
    decided = [name for name, r in reversed(list(table.tensors.items())) if _decides(lowering, r)]
    groups = list(dict.fromkeys(_group(graph, table, name) for name in decided))
    factors = dict.fromkeys(groups, 1.0)
    for done, group in enumerate(groups, start=1):
        # Widened while the logits gain; narrowed only where widening never helped.
        for step in (STEP, 1 / STEP):
            while 1 / WIDEST < (factor := factors[group] * step) < WIDEST:
                trial = {**factors, group: factor}
                trial_db = quality(method, trial)
                if trial_db < best + LEAST_GAIN_DB:
                    break
                best, factors = trial_db, trial
            if factors[group] != 1:
                break
        stage = f"Searching thresholds ({lowering.name})"
        progress(stage, done, len(groups), f"{group}: {best:.2f} dB")
    return Choice(
        target=lowering.name,
        images=evaluator.images,
        method=method,
        sqnr_db=qualities,
        factors={group: factor for group, factor in factors.items() if factor != 1},
        tuned_db=best,
    )


def _lowering_of(choice: Choice) -> Lowering:
    return next(lowering for lowering in lowerings() if lowering.name == choice.target)


def _decides(lowering: Lowering, tensor: TensorRange) -> bool:
    """Whether the search of a lowering sets a tensor's threshold; each grid is set by one."""
    return bool(tensor.thresholds) and (lowering.has_unsigned_grid or not tensor.signed)


def _scaled(
    graph: Graph,
    table: CalibrationTable,
    lowering: Lowering,
    method: Method,
    factors: Mapping[str, float],
) -> CalibrationTable:
    """Returns the table with a method's thresholds, times factors, as those of auto."""
    tensors = {}
    for name, tensor in table.tensors.items():
        if not tensor.thresholds:
            tensors[name] = tensor
            continue
        base = tensor.thresholds[method]
        chosen = tensor.thresholds.get(Method.AUTO, base)
        if _decides(lowering, tensor):
            factor = factors.get(_group(graph, table, name), 1.0)
            # Beyond the exact extreme levels are only wasted.
            s8 = min(base.s8 * factor, tensor.amax)
            if base.u8 is None:
                chosen = Threshold(s8=s8)
            elif lowering.has_unsigned_grid:
                chosen = replace(chosen, u8=min(base.u8 * factor, tensor.amax))
            else:
                chosen = replace(chosen, s8=s8)
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

"""Method auto: thresholds by measured error of the logits on held-out calibration images.

No rule on one tensor's distribution knows what its clipping does to the label: in the last
stages of a trained ResNet rare large activations are the evidence itself. So the method with
the best logits is taken, then the thresholds of each group of tensors are widened or narrowed
together as long as the logits gain. Groups, not single tensors: on ResNet-50, choosing for
each tensor gained up to 1.7 dB on the images that it was chosen on and 0.1 to 0.4 dB on others,
while a factor for each group gains about as much on both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgeres.calibration.quality import Judge
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
"""Gains below it are chance: 64 images tell two thresholds apart by about as much."""

_LEAST_WEIGHTS_DB = 0.2
"""Gain, the mean of both lowerings, from which weights are clipped: on ResNet-50 another set
of candidates for the mse search moved the CPU's logits by 0.3 dB."""

CANDIDATES: tuple[Method, ...] = tuple(m for m in Method if m is not Method.AUTO)
"""The methods that look at one tensor's distribution."""


def choose_thresholds(
    graph: Graph, table: CalibrationTable, judge: Judge, progress: Progress
) -> tuple[Choice, ...]:
    """Returns how each lowering's thresholds are best chosen, those with an unsigned grid first.

    The CPU's lowering decides the unsigned grid and every signed tensor, TensorRT's then the
    signed grid of tensors that are never negative, which the CPU does not use. An image whose
    pixels the CPU keeps has the threshold of the CPU's method: nothing was gained by another.

    Args:
        graph: the FP32 model.
        table: thresholds of every other method, from images that `judge` does not have.
        judge: held-out images.
        progress: receives each group of tensors that was searched.
    """
    choices = []
    for lowering in sorted(lowerings(), key=lambda lowering: not lowering.has_unsigned_grid):
        choices.append(_Search(lowering, graph, judge).run(table, progress))
        table = with_choices(graph, table, tuple(choices))
    return tuple(choices)


def choose_weights(
    graph: Graph, table: CalibrationTable, judge: Judge
) -> tuple[WeightMethod, tuple[Choice, ...]]:
    """Returns how weights are best scaled, with the choices of thresholds that say why.

    The lowerings share their weights, so one method serves all.

    Args:
        graph: the FP32 model.
        table: with the thresholds of method auto, weights by max.
        judge: held-out images.
    """
    clipping = replace(table, weight_method=WeightMethod.MSE)
    choices = []
    for choice in table.choices:
        mse = judge.quality(_lowering(choice), graph, clipping, Method.AUTO)
        found = {WeightMethod.MAX: choice.tuned_db, WeightMethod.MSE: mse}
        choices.append(replace(choice, weights_db=found))
    gains = [c.weights_db[WeightMethod.MSE] - c.weights_db[WeightMethod.MAX] for c in choices]
    pays = sum(gains) / len(gains) >= _LEAST_WEIGHTS_DB
    return WeightMethod.MSE if pays else WeightMethod.MAX, tuple(choices)


def with_choices(
    graph: Graph, table: CalibrationTable, choices: tuple[Choice, ...]
) -> CalibrationTable:
    """Returns the table with the thresholds of method auto that the choices make of it."""
    for choice in choices:
        table = _scaled(graph, table, _lowering(choice), choice.method, choice.factors)
    return replace(table, method=Method.AUTO, choices=choices)


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    """Chooses the thresholds of one lowering."""

    lowering: Lowering
    graph: Graph
    judge: Judge

    def run(self, table: CalibrationTable, progress: Progress) -> Choice:
        """Returns the best method and the factors that improve on it."""
        qualities = {method: self._quality(table, method, {}) for method in CANDIDATES}
        method = max(CANDIDATES, key=lambda m: qualities[m])
        best, factors = qualities[method], dict.fromkeys(self._groups(table), 1.0)
        stage = f"Searching thresholds ({self.lowering.name})"
        for done, group in enumerate(factors, start=1):
            best, factors = self._climb(table, method, group, (best, factors))
            progress(stage, done, len(factors), f"{group}: {best:.2f} dB")
        return Choice(
            target=self.lowering.name,
            images=self.judge.images,
            method=method,
            sqnr_db=qualities,
            factors={group: factor for group, factor in factors.items() if factor != 1},
            tuned_db=best,
        )

    def _climb(
        self,
        table: CalibrationTable,
        method: Method,
        group: str,
        start: tuple[float, dict[str, float]],
    ) -> tuple[float, dict[str, float]]:
        """Widens a group step by step while that helps; narrows it if widening never did."""
        best, factors = start
        for step in (STEP, 1 / STEP):
            while 1 / WIDEST < (factor := factors[group] * step) < WIDEST:
                trial = {**factors, group: factor}
                quality = self._quality(table, method, trial)
                if quality < best + LEAST_GAIN_DB:
                    break
                best, factors = quality, trial
            if factors[group] != 1:
                break
        return best, factors

    def _quality(
        self, table: CalibrationTable, method: Method, factors: Mapping[str, float]
    ) -> float:
        scaled = _scaled(self.graph, table, self.lowering, method, factors)
        return self.judge.quality(self.lowering, self.graph, scaled, Method.AUTO)

    def _groups(self, table: CalibrationTable) -> Sequence[str]:
        """Returns the groups that this lowering decides, from the logits back to the image."""
        names = (
            name
            for name in reversed(list(table.tensors))
            if _decides(self.lowering, table.tensors[name])
        )
        return list(dict.fromkeys(_group(self.graph, table, name) for name in names))


def _lowering(choice: Choice) -> Lowering:
    return next(lowering for lowering in lowerings() if lowering.name == choice.target)


def _decides(lowering: Lowering, seen: TensorRange) -> bool:
    return lowering.has_unsigned_grid or not seen.signed


def _scaled(
    graph: Graph,
    table: CalibrationTable,
    lowering: Lowering,
    method: Method,
    factors: Mapping[str, float],
) -> CalibrationTable:
    """Returns the table with a method's thresholds, times factors, as those of auto."""
    tensors = {}
    for name, seen in table.tensors.items():
        base = seen.thresholds[method]
        chosen = seen.thresholds.get(Method.AUTO, base)
        if _decides(lowering, seen):
            factor = factors.get(_group(graph, table, name), 1.0)
            chosen = _scaled_threshold(lowering, seen, (base, chosen), factor)
        tensors[name] = replace(seen, thresholds={**seen.thresholds, Method.AUTO: chosen})
    return replace(table, tensors=tensors)


def _scaled_threshold(
    lowering: Lowering, seen: TensorRange, thresholds: tuple[Threshold, Threshold], factor: float
) -> Threshold:
    """Returns the second threshold with the grid that the lowering decides taken from the first."""
    base, known = thresholds
    s8 = min(base.s8 * factor, seen.amax)
    if base.u8 is None:
        return Threshold(s8=s8)
    if lowering.has_unsigned_grid:
        return replace(known, u8=min(base.u8 * factor, seen.amax))
    return replace(known, s8=s8)


def _group(graph: Graph, table: CalibrationTable, tensor: str) -> str:
    """Returns a tensor's group: its resolution, what computes it, and whether it has a sign.

    The main branch in front of an Add, the Add's own result and what lies within a block have
    distributions of their own kinds.
    """
    size = "x".join(str(n) for n in graph.shapes.get(tensor, ())[1:]) or "vector"
    sign = "signed" if table.tensors[tensor].signed else "unsigned"
    return f"{size} {_computed_by(graph, tensor)} {sign}"


def _computed_by(graph: Graph, tensor: str) -> str:
    """Returns the operator that computes a tensor, looking through its ReLU; `image` for none."""
    node = graph.producers.get(tensor)
    if node is not None and node.op_type == "Relu":
        node = graph.producers.get(node.input[0])
    return "image" if node is None else str(node.op_type)

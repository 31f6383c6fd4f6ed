"""Recovery without training: a table to the same table with better weights and biases.

Layers are settled one after the other, from the image to the logits, each against what the
layers before it make of the images once they are settled. Rounding is fitted to TensorRT's
placement, simulated, and serves both lowerings; each of them has biases of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeres.calibration.observe import observation, observe
from edgeres.calibration.quality import Judge, judge
from edgeres.calibration.recovery.bias import fit_bias
from edgeres.calibration.recovery.cpu import cpu_biases
from edgeres.calibration.recovery.equalize import equalization_of
from edgeres.calibration.recovery.layers import (
    Fitted,
    QuantizedConvolution,
    geometry_of,
    layers_of,
    nearest_rounding,
    sample,
    window_of,
)
from edgeres.calibration.recovery.replay import ReplayPair, float_replay, quantized_replay
from edgeres.calibration.stages import range_of
from edgeres.core.methods import Method, Recover
from edgeres.core.recovery import Corrected, LayerError, Recovery
from edgeres.core.requests import CalibrationConfig
from edgeres.core.table import CalibrationTable, TensorRange, Threshold
from edgeres.errors import CalibrationError, DependencyError
from edgeres.onnx_file import LoadedModel
from edgeres.progress import Progress, silent, tracked
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.placement import Placement
from edgeres.quantization.recovered import (
    Parameters,
    equalized_parameters,
    parameters_of,
    with_parameters,
    with_weights,
)
from edgeres.quantization.rounding import pack
from edgeres.targets.base import cpu_target, lowerings, simulated_target
from edgeres.targets.tensorrt.placement import place_for_tensorrt

Array = NDArray[np.float32]
Fit = Callable[[QuantizedConvolution, Parameters], Fitted]

IMAGES = 320
"""Most images that recovery uses: ResNet-50's are 184 MiB of memory."""

LEAST_IMAGES = 10

_HELD_OUT = 5
"""One image in so many judges instead of being fitted."""

_BATCH = 8

_LEAST_GAIN_DB = 0.5
"""Gain on the held-out logits from which equalization is used: a draw of other images moves them by
0.1 to 0.2 dB. On trained ResNets, whose channels are balanced, it gained nothing."""


def recover(
    model: LoadedModel,
    table: CalibrationTable,
    images: Array,
    config: CalibrationConfig,
    *,
    progress: Progress = silent,
) -> CalibrationTable:
    """Returns the table with a recovery of the kind that `config` asks for.

    Args:
        model: the FP32 file that the table was made from.
        table: its thresholds; those of equalized activations change.
        images: (N, 3, H, W) float32, preprocessed by the table's contract; every fifth, at the
            end, judges and is not fitted.
        config: kind, seed and iterations.
        progress: receives each layer that was fitted.

    Raises:
        CalibrationError: too few images.
        DependencyError: AdaRound without torch.
        RunnerError: ONNX Runtime refused the model.
    """
    if len(images) < LEAST_IMAGES:
        raise CalibrationError(
            f"--recover {config.recover} was given {len(images)} images; it needs at least "
            f"{LEAST_IMAGES}, a fifth of them to judge it. Pass more --samples or more --data."
        )
    bench = _Bench.of(model.proto, images)
    before = bench.qualities(table)
    table, equalization = _equalized(bench, table)
    base = with_parameters(bench.graph, equalized_parameters(bench.graph, equalization))
    fitted = _fitted(bench, base, table, config, progress)
    weights = {name: found.weight for name, found in fitted.items()}
    biases = {
        cpu_target().lowering().name: cpu_biases(
            base, table, bench.images, fitted=bench.fitted, recovered=weights, progress=progress
        ),
        simulated_target().lowering().name: {name: found.shift for name, found in fitted.items()},
    }
    recovery = Recovery(
        kind=config.recover,
        method=table.method,
        seed=config.seed,
        samples=bench.fitted,
        held_out=bench.judge.images,
        lowerings={
            target: Corrected(before_db=before[target], after_db=before[target], biases=_tuples(of))
            for target, of in biases.items()
        },
        equalization=equalization,
        rounding={n: pack(found.up) for n, found in fitted.items() if found.up is not None},
        layers=tuple(
            LayerError(name=name, before=found.before, after=found.after)
            for name, found in fitted.items()
        ),
    )
    return _judged(bench, replace(table, recovery=recovery))


def _judged(bench: _Bench, table: CalibrationTable) -> CalibrationTable:
    """Returns the table with what its recovery does to the logits of each lowering."""
    recovery, after = table.recovery, bench.qualities(table)
    assert recovery is not None
    lowerings = {
        target: replace(found, after_db=after[target])
        for target, found in recovery.lowerings.items()
    }
    return replace(table, recovery=replace(recovery, lowerings=lowerings))


def _tuples(shifts: Mapping[str, Array]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(map(float, shift)) for name, shift in shifts.items()}


@dataclass(frozen=True, slots=True, eq=False)
class _Bench:
    """The trained network and the images, of which those at the end judge."""

    graph: Graph
    placement: Placement
    images: Array
    fitted: int
    judge: Judge

    @classmethod
    def of(cls, model: onnx.ModelProto, images: Array) -> _Bench:
        serialized, graph = model.SerializeToString(), view(model)
        fitted = len(images) - len(images) // _HELD_OUT
        parts = [images[i : i + _BATCH] for i in range(fitted, len(images), _BATCH)]
        held_out = judge(serialized, graph, parts)
        return cls(graph, place_for_tensorrt(graph), images, fitted, held_out)

    def qualities(self, table: CalibrationTable) -> dict[str, float]:
        """Returns the quality of the logits of the trained network by each lowering of a table."""
        return {
            lowering.name: self.judge.quality(lowering, self.graph, table, table.method)
            for lowering in lowerings()
        }

    def sqnr_db(self, graph: Graph, table: CalibrationTable) -> float:
        """Returns the quality of the logits of a network quantized for TensorRT."""
        return self.judge.quality(simulated_target().lowering(), graph, table, table.method)


def _equalized(
    bench: _Bench, table: CalibrationTable
) -> tuple[CalibrationTable, dict[str, tuple[float, ...]]]:
    """Returns the table and the factors of equalization; none where they do not pay."""
    factors = equalization_of(bench.graph)
    if not factors:
        return table, {}
    graph = with_parameters(bench.graph, equalized_parameters(bench.graph, factors))
    changed = _observed_again(bench, graph, table, list(factors))
    gain = bench.sqnr_db(graph, changed) - bench.sqnr_db(bench.graph, table)
    return (changed, factors) if gain >= _LEAST_GAIN_DB else (table, {})


def _observed_again(
    bench: _Bench, graph: Graph, table: CalibrationTable, tensors: list[str]
) -> CalibrationTable:
    """Returns the table with the thresholds that some activations have in another graph."""
    parts = range(0, bench.fitted, _BATCH)
    batches = (
        SimpleNamespace(images=bench.images[i : min(i + _BATCH, bench.fitted)]) for i in parts
    )
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    seen = observe(observation(model, graph, tensors), batches)
    ranges = {
        name: _with_auto(range_of(graph, name, found, table.percentile), table.tensors[name])
        for name, found in seen.items()
    }
    return replace(table, tensors={**table.tensors, **ranges})


def _with_auto(seen: TensorRange, old: TensorRange) -> TensorRange:
    """Returns the range with the share of it that method auto kept, where auto was used."""
    auto = old.thresholds.get(Method.AUTO)
    if auto is None:
        return seen
    share = seen.amax / old.amax if old.amax else 0.0
    kept = Threshold(s8=auto.s8 * share, u8=None if auto.u8 is None else auto.u8 * share)
    return replace(seen, thresholds={**seen.thresholds, Method.AUTO: kept})


def _fitted(
    bench: _Bench,
    base: Graph,
    table: CalibrationTable,
    config: CalibrationConfig,
    progress: Progress,
) -> dict[str, Fitted]:
    """Returns what was found for each quantized convolution, by name, in topological order."""
    names = bench.placement.weighted
    clipped = with_weights(base, table.weight_method, bench.placement)
    trained = {n.name: parameters_of(clipped, n) for n in clipped.nodes if n.name in names}
    nearest = {name: nearest_rounding(parameters) for name, parameters in trained.items()}
    own = with_parameters(clipped, trained)
    rounded = with_parameters(own, nearest)
    replays = ReplayPair(
        float_replay(base, bench.images),
        quantized_replay(rounded, bench.placement, table, bench.images, unsigned=False),
    )
    fit = _fits(own, replays, bench.fitted, config)
    layers = layers_of(own, bench.placement)
    fitted = {}
    for layer in tracked(layers, "Recovering", progress):
        name = layer.node.name
        replays.advance(layer.node)
        fitted[name] = fit(layer, trained[name])
        bias = trained[name].bias + fitted[name].shift
        replays.quantized.settle(layer.node, Parameters(fitted[name].weight, bias))
    return fitted


def _fits(graph: Graph, replays: ReplayPair, fitted: int, config: CalibrationConfig) -> Fit:
    """Returns what fits one layer, by the kind that was asked for."""
    if config.recover is Recover.BIAS:
        return lambda layer, trained: fit_bias(layer, nearest_rounding(trained), replays, fitted)
    adaround = _adaround()

    def fit(layer: QuantizedConvolution, trained: Parameters) -> Fitted:
        geometry = geometry_of(graph, layer.node)
        count = replays.exact.count(fitted)
        samples = sample(layer, geometry, window_of(graph, layer, count), replays, config.seed)
        schedule = adaround.Schedule(config.recover_iterations, config.seed)
        parts = samples.part(slice(count)), samples.part(slice(count, None))
        found: Fitted = adaround.fit_rounding(*parts, geometry, trained, schedule)
        return found

    return fit


def _adaround() -> ModuleType:
    """Returns the module that needs torch.

    Raises:
        DependencyError: torch is not installed.
    """
    try:
        from edgeres.calibration.recovery import adaround  # torch, and only AdaRound needs it
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise DependencyError(
            "--recover adaround needs torch, which is not installed. pip install "
            "'edgeres[export]' (a CPU build of torch serves), or pass --recover bias, which needs none."
        ) from error
    return adaround

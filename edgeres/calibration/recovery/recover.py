"""Recovery without training: a table to the same table with better weights and biases.

Layers are settled one after the other, from the image to the logits, each on what the layers
before it compute of the images once they are settled. Rounding is fitted to TensorRT's
placement, simulated, and serves both lowerings to INT8; each of them has biases of its own, and
FP8 has others.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeres.calibration.auto import with_choices
from edgeres.calibration.calibrate import range_of
from edgeres.calibration.observe import (
    Observation,
    calibrated_tensors,
    channel_peaks,
    observe,
    open_observation,
)
from edgeres.calibration.quality import is_gain
from edgeres.calibration.recovery.bias import fit_bias
from edgeres.calibration.recovery.cpu import cpu_biases
from edgeres.calibration.recovery.equalize import equalization_of
from edgeres.calibration.recovery.fp8 import fp8_fits, fp8_lowerings
from edgeres.calibration.recovery.gains import gaining, is_gain_together
from edgeres.calibration.recovery.layers import Fitted, layers_of, nearest_rounding
from edgeres.calibration.recovery.replay import ReplayPair, float_replay, integer_replay
from edgeres.calibration.recovery.trained import Start, TrainedNetwork, in_batches, split_of
from edgeres.calibration.recovery.windows import ExactOutputs, sample, samplings_of
from edgeres.core.methods import Recover
from edgeres.core.precision import Precision
from edgeres.core.recovery import Corrected, LayerError, Recovery
from edgeres.core.requests import CalibrationRequest
from edgeres.core.table import CalibrationTable
from edgeres.errors import CalibrationError, DependencyError
from edgeres.installation import install_hint
from edgeres.onnx_file import LoadedModel
from edgeres.plurals import counted
from edgeres.progress import Progress, silent, tracked
from edgeres.quantization.equalized import equalized_parameters
from edgeres.quantization.graph import Graph
from edgeres.quantization.parameters import Parameters, parameters_of, with_parameters
from edgeres.quantization.qdq.exact_pixels import exact_pixels
from edgeres.quantization.qdq.lowering import lower_for_tensorrt
from edgeres.quantization.recovered import with_weights
from edgeres.quantization.rounding import pack
from edgeres.quantization.thresholds import Distribution, merged
from edgeres.targets.base import cpu_target, lowerings, simulated_target

Array = NDArray[np.float32]

LEAST_IMAGES = 10


_LOG = logging.getLogger("edgeres.calibration")


def recover(
    model: LoadedModel,
    table: CalibrationTable,
    images: Array,
    config: CalibrationRequest,
    *,
    progress: Progress = silent,
) -> CalibrationTable:
    """Returns the table with a recovery of the kind that `config` requests.

    Args:
        model: the FP32 file that the table was made from.
        table: its thresholds; those of equalized activations change.
        images: (N, 3, H, W) float32, preprocessed by the table's contract; the last fifth, or half
            where classes are few, is not fitted but evaluated.
        config: kind, precision, seed and iterations.
        progress: receives each layer that was fitted.

    Raises:
        CalibrationError: too few images.
        DependencyError: AdaRound without torch.
        QuantizationError: FP8 for a network with grouped convolutions.
        RunnerError: ONNX Runtime refused the model.
    """
    if len(images) < LEAST_IMAGES:
        raise CalibrationError(
            f"--recover {config.recover} was given {counted(len(images), 'image')}; it needs at "
            f"least {LEAST_IMAGES}, some of them to evaluate it. Pass more --samples or more "
            "--data."
        )
    is_fp8 = config.precision is Precision.FP8
    forms = fp8_lowerings() if is_fp8 else lowerings()
    trained = TrainedNetwork.of(model.proto, images, split_of(model), forms)
    before = trained.qualities(table)
    correct = _fp8_correction if is_fp8 else _int8_correction
    correction = correct(trained, Start(table, {}, before), config, progress)
    start, fits = correction.start, correction.fits
    table = start.table
    recovery = Recovery(
        kind=config.recover or Recover.NONE,
        method=table.method,
        seed=config.seed,
        samples=correction.samples,
        held_out=trained.evaluator.images,
        lowerings={
            name: Corrected(
                before_db=float(before[name].mean()),
                after_db=float(before[name].mean()),
                biases={layer: tuple(map(float, shift)) for layer, shift in shifts.items()},
            )
            for name, shifts in correction.shifts.items()
        },
        equalization=start.equalization,
        rounding={name: pack(fit.up) for name, fit in fits.items() if fit.up is not None},
        layers=tuple(
            LayerError(name=name, before=fit.before, after=fit.after) for name, fit in fits.items()
        ),
    )
    # What the lowerings gain is known once they take the recovery from the table.
    after = trained.qualities(replace(table, recovery=recovery))
    applied = gaining(start.qualities, after)
    evaluated = {
        name: replace(
            corrected,
            after_db=float(after[name].mean()),
            applied=name in applied,
        )
        for name, corrected in recovery.lowerings.items()
    }
    return replace(table, recovery=replace(recovery, lowerings=evaluated))


def most_images(model: LoadedModel) -> int:
    """Returns how many images recovery of a model takes at most."""
    return split_of(model).images


@dataclass(frozen=True, slots=True, eq=False)
class _Correction:
    """What was fitted to a network."""

    start: Start
    """Equalized where that pays."""
    samples: int
    """Images that it was fitted on."""
    fits: Mapping[str, Fitted]
    """Each convolution, by name."""
    shifts: Mapping[str, Mapping[str, Array]]
    """What each lowering adds to the bias of each convolution, (O,)."""


def _int8_correction(
    trained: TrainedNetwork, start: Start, config: CalibrationRequest, progress: Progress
) -> _Correction:
    """Returns the correction of both lowerings to INT8."""
    if not config.keeps_channels:
        start = _equalized(trained, start)
    table = start.table
    base = with_parameters(trained.graph, equalized_parameters(trained.graph, start.equalization))
    rounds = config.recover is Recover.ADAROUND and _rounding_can_pay(trained, base, start)
    fits = _fit_layers(trained, base, table, config, progress, rounds=rounds)
    shifts = {
        cpu_target().lowering().name: cpu_biases(
            base,
            table,
            # Errors on further images are not reported.
            trained.few_replayed[: trained.few + 1],
            fitted=trained.few,
            recovered={name: fit.weight for name, fit in fits.items()},
            progress=progress,
        ),
        simulated_target().lowering().name: {name: fit.shift for name, fit in fits.items()},
    }
    return _Correction(start, trained.fitted, fits, shifts)


def _fp8_correction(
    trained: TrainedNetwork, start: Start, config: CalibrationRequest, progress: Progress
) -> _Correction:
    """Returns the correction of both forms of FP8; a float's steps need no equalization."""
    fits = fp8_fits(
        trained.graph, start.table, trained.few_replayed, fitted=trained.few, progress=progress
    )
    shifts = {name: fit.shift for name, fit in fits.items()}
    names = (lowering.name for lowering in trained.lowerings)
    return _Correction(start, trained.few, fits, dict.fromkeys(names, shifts))


def _equalized(trained: TrainedNetwork, start: Start) -> Start:
    """Returns the table with equalized channels; the same where they do not pay.

    The lowerings share the rescaled activations: their mean has to gain by more than chance, and
    none may lose.
    """
    table, before = start.table, start.qualities
    peaks = channel_peaks(_observation(trained.graph), in_batches(trained.images[: trained.few]))
    factors = equalization_of(trained.graph, peaks)
    if not factors:
        return start
    graph = with_parameters(trained.graph, equalized_parameters(trained.graph, factors))
    observation, ranges = _observation(graph), dict[str, Distribution]()
    # Where it pays on a few of the images, the ranges are those of all.
    for first, last in pairwise(sorted({0, trained.few, trained.fitted})):
        batches = in_batches(trained.images[first:last])
        observed = observe(observation, (SimpleNamespace(images=batch) for batch in batches))
        ranges = {n: merged(ranges[n], d) if n in ranges else d for n, d in observed.items()}
        tensors = {n: range_of(graph, n, d, table.percentile) for n, d in ranges.items()}
        equalized = replace(table, tensors={**table.tensors, **tensors})
        if table.choices:
            # Method auto's search is not repeated: its choices scale the new ranges.
            equalized = with_choices(graph, equalized, table.choices)
        after = trained.qualities(equalized, graph)
        harms = any(after[name].mean() < before[name].mean() for name in before)
        if harms or not is_gain_together(before, after):
            return start
    return Start(equalized, factors, after)


def _observation(graph: Graph) -> Observation:
    """Returns a session that measures the activations that are rounded somewhere."""
    model = onnx.ModelProto()
    # The observation empties what it is given.
    model.CopyFrom(graph.model)
    rounded = {
        graph.root(edge.tensor) for lowering in lowerings() for edge in lowering.place(graph).edges
    }
    return open_observation(
        model, graph, [name for name in calibrated_tensors(graph) if name in rounded]
    )


def _rounding_can_pay(trained: TrainedNetwork, base: Graph, start: Start) -> bool:
    """Whether the weights' rounding is a part of the error that would be missed.

    By what the logits gain without any of it. That is no bound of what AdaRound reaches, which fits
    what earlier layers and the activations' rounding left as well: but where it is no more than
    chance, so is most of that, and minutes of fitting are saved; biases are corrected alone.
    """
    evaluator, table = trained.evaluator, start.table
    activations = replace(trained.placement, weighted=frozenset())
    # The first convolution keeps what rounding it has where pixels are exact: none of it is fitted.
    pixels = exact_pixels(base, table.contract)
    exact = evaluator.qualities_in_float(
        lower_for_tensorrt(base, activations, table, pixels=pixels), base
    )
    rounded = start.qualities[simulated_target().lowering().name]
    pays = is_gain(rounded, exact)
    if not pays:
        _LOG.warning(
            "The logits are at %.2f dB, and at %.2f with weights that are not rounded at all, "
            "which is no more than chance on %s: little of their error is the weights' rounding, "
            "so that it is left to the nearest instead of AdaRound, and biases are corrected.",
            rounded.mean(), exact.mean(), counted(evaluator.images, "held-out image"),
        )  # fmt: skip
    return pays


def _fit_layers(
    trained: TrainedNetwork,
    base: Graph,
    table: CalibrationTable,
    config: CalibrationRequest,
    progress: Progress,
    *,
    rounds: bool,
) -> dict[str, Fitted]:
    """Returns each quantized convolution as fitted, by name, in topological order.

    Args:
        trained: the network and the images.
        base: the network, equalized.
        table: thresholds.
        config: what was requested, and its iterations.
        progress: receives each layer.
        rounds: whether the rounding is fitted, beside the biases.
    """
    if config.recover is Recover.ADAROUND:
        try:
            # Only here, since torch is an optional module that bias correction does not need.
            from edgeres.calibration.recovery.adaround import Schedule, fit_rounding
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise DependencyError(
                f"--recover adaround needs torch, which is not installed. {install_hint('torch')} "
                "Or pass --recover bias, which needs none."
            ) from error
    placement = trained.placement
    clipped = with_weights(base, table.weight_method, placement)
    parameters = {
        n.name: parameters_of(clipped, n) for n in clipped.nodes if n.name in placement.weighted
    }
    nearest = {name: nearest_rounding(values) for name, values in parameters.items()}
    stem = ""
    if (pixels := exact_pixels(base, table.contract)) is not None:
        # Its image is not rounded, and its weights are on a grid of the pixels' own.
        stem = str(pixels.stem.name)
        trained_stem = parameters[stem]
        nearest[stem] = Parameters(pixels.rounded(trained_stem.weight), trained_stem.bias)
        edges = tuple(edge for edge in placement.edges if edge.node != stem)
        placement = replace(placement, edges=edges)
    # Convolutions may share a weight; each gets one of its own, since each is settled alone.
    unshared = with_parameters(clipped, parameters)
    rounded = with_parameters(unshared, nearest)
    exact = float_replay(base, trained.replayed)
    quantized = integer_replay(rounded, placement, table, trained.replayed)
    replays = ReplayPair(exact, quantized)
    layers = layers_of(unshared, placement)
    sampled = [layer for layer in layers if rounds and layer.node.name != stem]
    samplings = samplings_of(unshared, sampled, quantized, trained.fitted, config.seed)
    outputs = ExactOutputs(exact, list(samplings.values()))
    fits = {}
    for layer in tracked(layers, "Recovering", progress):
        name = layer.node.name
        if name not in samplings:
            replays.advance(layer.node, layer.target)
            fit = fit_bias(layer, nearest[name], replays, trained.fitted)
            # Later layers read what this one computes once it is settled.
            quantized.shift(layer.node, layer.target, fit.shift)
        else:
            sampling = samplings[name]
            quantized.advance(layer.node, sampling.every)
            samples = sample(sampling, quantized, outputs.take(layer))
            count = quantized.count(trained.fitted)
            fit = fit_rounding(
                samples.part(slice(count)),
                samples.part(slice(count, None)),
                sampling.geometry,
                parameters[name],
                Schedule(config.recover_iterations, config.seed),
            )
            settled = Parameters(fit.weight, parameters[name].bias + fit.shift)
            quantized.settle(layer.node, settled)
        fits[name] = fit
    return fits

"""Recovery without training: a table to the same table with better weights and biases.

Layers are settled one after the other, from the image to the logits, each on what the layers
before it compute of the images once they are settled. Rounding is fitted to TensorRT's
placement, simulated, and serves both lowerings; each of them has biases of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeres.calibration.auto import with_choices
from edgeres.calibration.calibrate import has_few_classes, range_of
from edgeres.calibration.observe import (
    Observation,
    calibrated_tensors,
    channel_peaks,
    observe,
    open_observation,
)
from edgeres.calibration.quality import LogitEvaluator, is_gain
from edgeres.calibration.recovery.bias import fit_bias
from edgeres.calibration.recovery.cpu import cpu_biases
from edgeres.calibration.recovery.equalize import equalization_of
from edgeres.calibration.recovery.gains import Qualities, gaining, is_gain_together
from edgeres.calibration.recovery.layers import (
    Fitted,
    geometry_of,
    layers_of,
    nearest_rounding,
    sample,
    window_of,
)
from edgeres.calibration.recovery.replay import ReplayPair, float_replay, quantized_replay
from edgeres.core.methods import Recover
from edgeres.core.recovery import Corrected, LayerError, Recovery
from edgeres.core.requests import CalibrationRequest
from edgeres.core.table import CalibrationTable
from edgeres.errors import CalibrationError, DependencyError
from edgeres.installation import install_hint
from edgeres.onnx_file import LoadedModel
from edgeres.plurals import counted
from edgeres.progress import Progress, silent, tracked
from edgeres.quantization.equalized import equalized_parameters
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.parameters import Parameters, parameters_of, with_parameters
from edgeres.quantization.placement import Placement
from edgeres.quantization.qdq.exact_pixels import exact_pixels
from edgeres.quantization.qdq.lowering import lower_for_tensorrt
from edgeres.quantization.recovered import with_weights
from edgeres.quantization.rounding import pack
from edgeres.targets.base import cpu_target, lowerings, simulated_target

Array = NDArray[np.float32]

LEAST_IMAGES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Split:
    """How many images recovery takes, and how many of them it does not fit but evaluates."""

    images: int
    every: int
    """One image in so many is held out, from the last on."""
    few: int
    """So many of the fitted images show whether equalization pays, and the means of the CPU's
    biases; a rounding needs all."""


_MANY_CLASSES = _Split(images=320, every=5, few=64)
"""ResNet-50's are 184 MiB of memory."""

_FEW_CLASSES = _Split(images=512, every=2, few=256)
"""As many are fitted. Of ten logits 64 images show no gain of less than 0.6 dB, 256 of 0.3."""

_BATCH = 8

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
        config: kind, seed and iterations.
        progress: receives each layer that was fitted.

    Raises:
        CalibrationError: too few images.
        DependencyError: AdaRound without torch.
        RunnerError: ONNX Runtime refused the model.
    """
    if len(images) < LEAST_IMAGES:
        raise CalibrationError(
            f"--recover {config.recover} was given {counted(len(images), 'image')}; it needs at "
            f"least {LEAST_IMAGES}, some of them to evaluate it. Pass more --samples or more "
            "--data."
        )
    trained = _TrainedNetwork.of(model.proto, images, _split_of(model))
    before = trained.qualities(table)
    start = _Start(table, {}, before)
    if not config.keeps_channels:
        start = _equalized(trained, start)
    table = start.table
    base = with_parameters(trained.graph, equalized_parameters(trained.graph, start.equalization))
    rounds = config.recover is Recover.ADAROUND and _rounding_can_pay(trained, base, start)
    fits = _fit_layers(trained, base, table, config, progress, rounds=rounds)
    recovery = Recovery(
        kind=config.recover or Recover.NONE,
        method=table.method,
        seed=config.seed,
        samples=trained.fitted,
        held_out=trained.evaluator.images,
        lowerings={
            name: Corrected(
                before_db=float(before[name].mean()),
                after_db=float(before[name].mean()),
                biases={layer: tuple(map(float, shift)) for layer, shift in shifts.items()},
            )
            for name, shifts in _shifts(trained, base, table, fits, progress).items()
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
    return _split_of(model).images


def _split_of(model: LoadedModel) -> _Split:
    return _FEW_CLASSES if has_few_classes(model) else _MANY_CLASSES


@dataclass(frozen=True, slots=True, eq=False)
class _TrainedNetwork:
    """The trained network and the images, of which those at the end are held out."""

    graph: Graph
    placement: Placement
    images: Array
    split: _Split
    fitted: int
    """How many images to fit on, from the first."""
    evaluator: LogitEvaluator
    """Of the images behind them."""

    @classmethod
    def of(cls, model: onnx.ModelProto, images: Array, split: _Split) -> _TrainedNetwork:
        graph, fitted = view(model), len(images) - len(images) // split.every
        evaluator = LogitEvaluator.of(model, graph, _batches(images[fitted:]))
        return cls(
            graph, simulated_target().lowering().place(graph), images, split, fitted, evaluator
        )

    @property
    def few(self) -> int:
        """How many of the fitted images show a mean or a peak."""
        return min(self.fitted, self.split.few)

    @property
    def replayed(self) -> Array:
        """The images that are fitted, and a quarter of the others to see each layer's error."""
        return self.images[: self.fitted + max(1, self.evaluator.images // 4)]

    def qualities(
        self, table: CalibrationTable, graph: Graph | None = None
    ) -> dict[str, NDArray[np.float64]]:
        """Returns the quality of each image's logits by each lowering of a table.

        Args:
            table: thresholds, and a recovery if it has one.
            graph: what is lowered; None: the trained network.
        """
        lowered = graph or self.graph
        return {
            lowering.name: self.evaluator.qualities(lowering, lowered, table, table.method)
            for lowering in lowerings()
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Start:
    """What weights are rounded and biases corrected of."""

    table: CalibrationTable
    equalization: Mapping[str, tuple[float, ...]]
    """Factors of activations, whose ranges the table has."""
    qualities: Qualities
    """Of each image's logits, (images,), by lowering."""


def _equalized(trained: _TrainedNetwork, start: _Start) -> _Start:
    """Returns the table with equalized channels; the same where they do not pay.

    The lowerings share the rescaled activations: their mean has to gain by more than chance, and
    none may lose.
    """
    table, before = start.table, start.qualities
    peaks = channel_peaks(_observation(trained.graph), _batches(trained.images[: trained.few]))
    factors = equalization_of(trained.graph, peaks)
    if not factors:
        return start
    graph = with_parameters(trained.graph, equalized_parameters(trained.graph, factors))
    # Where it pays on a few of the images, the ranges are those of all.
    for count in sorted({trained.few, trained.fitted}):
        batches = _batches(trained.images[:count])
        rescaled = (SimpleNamespace(images=batch) for batch in batches)
        tensors = dict(table.tensors)
        for name, distribution in observe(_observation(graph), rescaled).items():
            tensors[name] = range_of(graph, name, distribution, table.percentile)
        equalized = replace(table, tensors=tensors)
        if table.choices:
            # Method auto's search is not repeated: its choices scale the new ranges.
            equalized = with_choices(graph, equalized, table.choices)
        after = trained.qualities(equalized, graph)
        harms = any(after[name].mean() < before[name].mean() for name in before)
        if harms or not is_gain_together(before, after):
            return start
    return _Start(equalized, factors, after)


def _batches(images: Array) -> list[Array]:
    return [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]


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


def _rounding_can_pay(trained: _TrainedNetwork, base: Graph, start: _Start) -> bool:
    """Whether the weights' rounding is a part of the error that would be missed.

    Without any of it the logits are as good as AdaRound could make them: where that is no more
    than chance, minutes of fitting are saved, and biases corrected alone.
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
            "AdaRound could bring the logits from %.2f to %.2f dB at most, which is what they are "
            "with float weights and no more than chance on %s: the rounding is "
            "left to the nearest, and biases are corrected.",
            rounded.mean(), exact.mean(), counted(evaluator.images, "held-out image"),
        )  # fmt: skip
    return pays


def _fit_layers(
    trained: _TrainedNetwork,
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
    replays = ReplayPair(
        float_replay(base, trained.replayed),
        quantized_replay(rounded, placement, table, trained.replayed, unsigned=False),
    )
    fits = {}
    for layer in tracked(layers_of(unshared, placement), "Recovering", progress):
        name = layer.node.name
        replays.advance(layer.node, layer.target)
        if not rounds or name == stem:
            replays.quantized.keep(layer.target)
            fit = fit_bias(layer, nearest[name], replays, trained.fitted)
            # Later layers read what this one computes once it is settled.
            replays.quantized.shift(layer.node, layer.target, fit.shift)
        else:
            count = replays.exact.count(trained.fitted)
            geometry, window = geometry_of(unshared, layer.node), window_of(unshared, layer, count)
            samples = sample(layer, geometry, window, replays, config.seed)
            fit = fit_rounding(
                samples.part(slice(count)),
                samples.part(slice(count, None)),
                geometry,
                parameters[name],
                Schedule(config.recover_iterations, config.seed),
            )
            settled = Parameters(fit.weight, parameters[name].bias + fit.shift)
            replays.quantized.settle(layer.node, settled)
        fits[name] = fit
    return fits


def _shifts(
    trained: _TrainedNetwork,
    base: Graph,
    table: CalibrationTable,
    fits: Mapping[str, Fitted],
    progress: Progress,
) -> dict[str, dict[str, Array]]:
    """Returns what each lowering adds to the bias of each convolution, (O,)."""
    return {
        cpu_target().lowering().name: cpu_biases(
            base,
            table,
            trained.replayed[trained.fitted - trained.few :],
            fitted=trained.few,
            recovered={name: fit.weight for name, fit in fits.items()},
            progress=progress,
        ),
        simulated_target().lowering().name: {name: fit.shift for name, fit in fits.items()},
    }

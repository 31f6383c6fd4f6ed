"""The stages: model and images to a table, model and table to a network for a builder."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

from edgeres.calibration.auto import choose_thresholds, choose_weights, with_choices
from edgeres.calibration.observe import (
    ImageBatch,
    Observation,
    calibrated_tensors,
    observation,
    observe,
)
from edgeres.calibration.quality import judge
from edgeres.calibration.sensitivity import measure_sensitivity
from edgeres.core.contract import Contract
from edgeres.core.methods import Method, WeightMethod
from edgeres.core.requests import CalibrationConfig
from edgeres.core.table import CalibrationTable, DataLineage, TensorRange
from edgeres.errors import CalibrationError
from edgeres.onnx_file import LoadedModel
from edgeres.progress import Progress, silent
from edgeres.quantization.graph import Graph, skeleton, view
from edgeres.quantization.grids import INT8
from edgeres.quantization.recovered import with_weights
from edgeres.quantization.thresholds import Distribution, merged, mse_amax, thresholds
from edgeres.targets.onnxruntime.strides import thinned_out
from edgeres.targets.tensorrt.placement import place_for_tensorrt
from edgeres.version import __version__

_LOG = logging.getLogger("edgeres.calibration")

_HOLD_EVERY = 8
_HELD_OUT = 64
"""Images that judge a search: enough that what they gain other images gain too (ResNet-50,
thresholds by group: 1.6 dB on these, 1.9 on others), few enough to run dozens of times."""


class HashedBatch(ImageBatch, Protocol):
    """A batch whose images can be recognised again."""

    @property
    def hashes(self) -> tuple[str, ...]:
        """A hash of each image's decoded pixels."""
        ...


def calibrate(
    model: LoadedModel,
    batches: Iterable[HashedBatch],
    config: CalibrationConfig,
    *,
    contract: Contract,
    data: str,
    progress: Progress = silent,
) -> CalibrationTable:
    """Returns the thresholds of every activation by every method, from one pass over `batches`.

    Method auto and the sensitivity hold one batch in eight out, 64 images at most, and judge by
    the logits of these. The ranges of the table are those of all images.

    Args:
        model: the FP32 file.
        batches: images preprocessed by `contract`.
        config: method, percentile and what the images were drawn by.
        contract: preprocessing of the batches.
        data: where the images come from, for the record.
        progress: receives each trial of a search.

    Raises:
        CalibrationError: no images, an activation that is NaN or infinite, a network with
            nothing to quantize, or too few images to hold some out.
        QuantizationError: the model's opset is too old.
        RunnerError: ONNX Runtime refused the model.
    """
    graph, seen = _observation(model)
    hashes: list[str] = []
    held: list[HashedBatch] = []
    stream = _recorded(batches, hashes)
    found = observe(seen, _without_held_out(stream, held) if config.searches else stream)
    whole = found
    if held:
        again = observe(seen, held)
        whole = {name: merged(shape, again[name]) for name, shape in found.items()}
    del seen  # the search opens sessions of its own
    table = CalibrationTable(
        model_sha256=model.artifact.sha256,
        data=DataLineage.of(data, hashes),
        contract=contract,
        method=config.method,
        percentile=config.percentile,
        samples=len(hashes),
        seed=config.seed,
        edgeres_version=__version__,
        weight_method=config.weight_method or WeightMethod.MAX,
        tensors=_ranges(graph, whole, config.percentile),
    )
    if not config.searches:
        return table
    blind = replace(table, tensors=_ranges(graph, found, config.percentile))
    return _searched(model, (blind, table), held, config, progress)


def _searched(
    model: LoadedModel,
    tables: tuple[CalibrationTable, CalibrationTable],
    held: list[HashedBatch],
    config: CalibrationConfig,
    progress: Progress,
) -> CalibrationTable:
    """Returns the second table with what is asked for and only the logits can tell.

    Thresholds are chosen on the first, whose ranges have not seen the images that judge, and
    made anew from the ranges of all images.
    """
    blind, table = tables
    if not held:
        raise CalibrationError(
            f"{table.samples} images in batches of {config.batch_size} are too few to hold some "
            f"out: one batch in {_HOLD_EVERY} judges the thresholds. Pass at least "
            f"{_HOLD_EVERY * config.batch_size} images, or --method mse without --sensitivity."
        )
    graph = view(model.proto)
    judging = judge(model.proto.SerializeToString(), graph, [batch.images for batch in held])
    if config.method is Method.AUTO:
        # Clipped once for the whole search, where weights by mse were asked for.
        own = with_weights(graph, table.weight_method, place_for_tensorrt(graph))
        by_max = replace(blind, weight_method=WeightMethod.MAX)
        choices = choose_thresholds(own, by_max, judging, progress)
        if config.weight_method is None:
            chosen = with_choices(graph, blind, choices)
            weights, choices = choose_weights(graph, chosen, judging)
            table = replace(table, weight_method=weights)
        table = with_choices(graph, table, choices)
    if config.sensitivity:
        table = replace(table, sensitivity=measure_sensitivity(graph, table, judging, progress))
    return table


def _ranges(
    graph: Graph, found: Mapping[str, Distribution], percentile: float
) -> dict[str, TensorRange]:
    return {name: range_of(graph, name, seen, percentile) for name, seen in found.items()}


def observed_ranges(model: LoadedModel, batches: Iterable[ImageBatch]) -> dict[str, float]:
    """Returns what `LoweredNetwork.ranges` would be after calibration on these images.

    Raises:
        CalibrationError: no images, or an activation that is NaN or infinite.
        RunnerError: ONNX Runtime refused the model.
    """
    _, seen = _observation(model)
    found = observe(seen, batches)
    return {name: mse_amax(shape, INT8) for name, shape in found.items()}


def _observation(model: LoadedModel) -> tuple[Graph, Observation]:
    """Returns what tells of all activations, and the structure of the network that it runs.

    Of a tensor that is read at a stride it tells what is read: the rest has no influence.

    Raises:
        CalibrationError: there is nothing to quantize.
    """
    observed = thinned_out(model.proto)
    graph = view(skeleton(observed))
    tensors = calibrated_tensors(graph)
    if not tensors:
        raise CalibrationError(
            f"{model.artifact.path} has no convolution with constant weights: there is nothing to quantize."
        )
    return graph, observation(observed, graph, tensors)


def _without_held_out(
    batches: Iterable[HashedBatch], held: list[HashedBatch]
) -> Iterator[HashedBatch]:
    """Passes batches on, and moves one in `_HOLD_EVERY` to `held` until there are enough."""
    for index, batch in enumerate(batches, start=1):
        if index % _HOLD_EVERY == 0 and sum(len(b.images) for b in held) < _HELD_OUT:
            held.append(batch)
        else:
            yield batch


def _recorded(batches: Iterable[HashedBatch], hashes: list[str]) -> Iterator[HashedBatch]:
    for batch in batches:
        hashes.extend(batch.hashes)
        yield batch


def range_of(graph: Graph, name: str, seen: Distribution, percentile: float) -> TensorRange:
    """Returns the thresholds of one activation by every method."""
    signed = not graph.is_non_negative(name)
    return TensorRange(
        amax=seen.amax,
        signed=signed,
        thresholds=thresholds(seen, signed=signed, percentile=percentile),
    )

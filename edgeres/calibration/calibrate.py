"""Model and images to a calibration table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgeres.batch_independence import IMAGES, check_batch_independence
from edgeres.calibration.auto import choose_thresholds, choose_weights, with_choices
from edgeres.calibration.logits import ending_in_logits
from edgeres.calibration.observe import (
    Observation,
    calibrated_tensors,
    observe,
    observed_tensors,
    open_observation,
)
from edgeres.calibration.quality import LogitEvaluator
from edgeres.calibration.saved_ranges import ObservedRanges
from edgeres.calibration.sensitivity import measure_sensitivity
from edgeres.core.batches import HashedBatch, ImageBatch
from edgeres.core.contract import Contract
from edgeres.core.methods import Method, WeightMethod
from edgeres.core.requests import CalibrationRequest
from edgeres.core.table import CalibrationTable, DataLineage, TensorRange
from edgeres.errors import CalibrationError
from edgeres.graph_structure import skeleton
from edgeres.onnx_file import LoadedModel
from edgeres.plurals import counted
from edgeres.progress import Progress, silent
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.grids import INT8
from edgeres.quantization.recovered import with_weights
from edgeres.quantization.thresholds import Distribution, merged, mse_amax, thresholds
from edgeres.session import run_session
from edgeres.targets.base import simulated_target
from edgeres.targets.onnxruntime.strides import thinned_out
from edgeres.version import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class _ValidationSplit:
    """The images that a search evaluates on; the ranges that it starts from do without them."""

    every: int
    """One batch in so many is held out."""
    images: int
    """Most images; the batch that reaches the number is the last."""


_MANY_CLASSES = _ValidationSplit(every=8, images=64)
"""Enough that what they gain other images gain too (ResNet-50, thresholds by group: 1.6 dB on
these, 1.9 on others), few enough to run dozens of times."""

_FEW_CLASSES = _ValidationSplit(every=2, images=256)
"""With ten logits the paired gain of one image has a standard deviation of about 3 dB, so that 64
images would choose by chance. Such networks are small: four times the images take seconds."""

_LEAST_CLASSES = 100
"""From so many logits on, one image's error is averaged over enough of them."""

PART_BATCHES = 8
"""Batches that a part of the images is a multiple of: of both splits, so that the first batch of a
part is never one that a search holds out."""


def calibrate(
    model: LoadedModel,
    batches: Iterable[HashedBatch],
    config: CalibrationRequest,
    *,
    contract: Contract,
    data: str,
    observed: ObservedRanges | None = None,
    progress: Progress = silent,
) -> CalibrationTable:
    """Returns the thresholds of every activation by every method, from one pass over `batches`.

    Method auto and the sensitivity hold batches out and evaluate the logits of these: one in
    eight, 64 images at most, or of a network of few classes one in two, 256 at most. The ranges of
    the table are those of all images.

    Args:
        model: the FP32 file.
        batches: images preprocessed by `contract`; with `observed` those held out alone.
        config: method, percentile and what the images were drawn by.
        contract: preprocessing of the batches.
        data: where the images come from, for the record.
        observed: what the images that are not held out came to, where they were run before.
        progress: receives each trial of a search.

    Raises:
        CalibrationError: no images, an activation that is NaN or infinite, a network with
            nothing to quantize, or too few images to hold some out.
        QuantizationError: the model's opset is too old.
        RunnerError: ONNX Runtime refused the model, or its logits depend on the batch.
    """
    searched = ending_in_logits(model)
    graph, observation = _observation(searched)
    split = _split_of(searched)
    hashes: list[str] = []
    validation: list[HashedBatch] = []
    search_ranges: Mapping[str, Distribution]
    if observed is None:
        independent = _independent(model, graph, observation, batches)
        fitted = _fitted(independent, config, split, 0, validation, hashes)
        search_ranges = observe(observation, fitted)
    else:
        hashes += observed.hashes
        validation += batches
        search_ranges = observed.distributions
    ranges = search_ranges
    logits: list[NDArray[np.float32]] = []
    if validation:
        added = observe(observation, validation, logits)
        ranges = {name: merged(shape, added[name]) for name, shape in ranges.items()}
    del observation  # the search opens sessions of its own
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
        tensors=_ranges(graph, ranges, config.percentile),
    )
    if config.searches:
        search_table = replace(table, tensors=_ranges(graph, search_ranges, config.percentile))
        if not validation:
            raise CalibrationError(
                f"{counted(table.samples, 'image')} in batches of {config.batch_size}: too few to "
                f"hold some out: one batch in {split.every} evaluates the thresholds. Pass at "
                f"least {counted(split.every * config.batch_size, 'image')}, or --method mse "
                "without --sensitivity."
            )
        images = tuple(batch.images for batch in validation)
        evaluator = LogitEvaluator(images, np.concatenate(logits))
        table = _searched(searched, table, search_table, evaluator, config, progress)
    return table


def _independent(
    model: LoadedModel, graph: Graph, observation: Observation, batches: Iterable[HashedBatch]
) -> Iterator[HashedBatch]:
    """Yields the batches; after the first the model has shown that its images do not mix."""
    for index, batch in enumerate(batches):
        yield batch
        # On the session that is open anyway, and behind what `observe` has to say of the images.
        if index == 0 and model.artifact.input.shape[0] is None:
            check_batch_independence(
                lambda images: run_session(
                    observation.session, [graph.output], {observation.input: images}
                )[0],
                batch.images[:IMAGES],
                name=str(model.artifact.path),
            )


def held_out(model: LoadedModel, images: int, config: CalibrationRequest) -> NDArray[np.int64]:
    """Returns the positions of the images that a search holds out, in whole batches."""
    size, split = config.batch_size, _split_of(model)
    return np.array([i for i in range(images) if _is_held_out(i // size, config, split)], np.int64)


def has_few_classes(model: LoadedModel) -> bool:
    """Returns whether it takes hundreds of images to see what a change does to the logits."""
    classes = model.artifact.num_classes
    return classes is not None and classes < _LEAST_CLASSES


def _split_of(model: LoadedModel) -> _ValidationSplit:
    return _FEW_CLASSES if has_few_classes(model) else _MANY_CLASSES


def _is_held_out(index: int, config: CalibrationRequest, split: _ValidationSplit) -> bool:
    """Returns whether the batch at this place, from 0, is held out of the ranges for a search."""
    turn, rest = divmod(index + 1, split.every)
    before = (turn - 1) * config.batch_size
    return config.searches and not rest and before < split.images


def _fitted(
    batches: Iterable[HashedBatch],
    config: CalibrationRequest,
    split: _ValidationSplit,
    first: int,
    validation: list[HashedBatch],
    hashes: list[str],
) -> Iterator[HashedBatch]:
    """Yields the batches to fit on; moves the others to `validation`, and all hashes to `hashes`."""
    for index, batch in enumerate(batches, start=first):
        hashes.extend(batch.hashes)
        if _is_held_out(index, config, split):
            validation.append(batch)
        else:
            yield batch


def observe_part(
    model: LoadedModel, batches: Iterable[HashedBatch], config: CalibrationRequest, first: int
) -> tuple[Mapping[str, Distribution], Sequence[str]]:
    """Returns what a part of the images comes to, and the hashes of all of them.

    Args:
        model: the FP32 file.
        batches: of the part.
        config: whether a search holds images out.
        first: place of the part's first batch among all, a multiple of `PART_BATCHES`.

    Raises:
        CalibrationError: as `calibrate`.
        RunnerError: as `calibrate`.
    """
    searched = ending_in_logits(model)
    graph, observation = _observation(searched)
    hashes: list[str] = []
    independent = _independent(model, graph, observation, batches)
    fitted = _fitted(independent, config, _split_of(searched), first, [], hashes)
    return observe(observation, fitted), hashes


def _searched(
    model: LoadedModel,
    table: CalibrationTable,
    search_table: CalibrationTable,
    evaluator: LogitEvaluator,
    config: CalibrationRequest,
    progress: Progress,
) -> CalibrationTable:
    """Returns the table with what only the logits can decide or measure, as requested.

    Thresholds are chosen on `search_table`, whose ranges lack the validation images: an extreme
    of theirs would be covered for them alone. The choices then scale the ranges of all images.
    """
    graph = view(model.proto)
    if config.method is Method.AUTO:
        # Requested weights by mse are clipped once, not in each trial of the search.
        clipped = with_weights(
            graph, table.weight_method, simulated_target().lowering().place(graph)
        )
        by_max = replace(search_table, weight_method=WeightMethod.MAX)
        choices = choose_thresholds(clipped, by_max, evaluator, progress)
        if config.weight_method is None:
            chosen = with_choices(graph, search_table, choices)
            weights, choices = choose_weights(graph, chosen, evaluator)
            table = replace(table, weight_method=weights)
        table = with_choices(graph, table, choices)
    if config.sensitivity:
        table = replace(table, sensitivity=measure_sensitivity(graph, table, evaluator, progress))
    return table


def _ranges(
    graph: Graph, distributions: Mapping[str, Distribution], percentile: float
) -> dict[str, TensorRange]:
    calibrated = frozenset(calibrated_tensors(graph))
    return {
        name: range_of(graph, name, d, percentile)
        if name in calibrated
        else TensorRange(amax=d.amax, signed=not graph.is_non_negative(name), thresholds={})
        for name, d in distributions.items()
    }


def observed_ranges(model: LoadedModel, batches: Iterable[ImageBatch]) -> dict[str, float]:
    """Returns what `LoweredNetwork.ranges` would be after calibration on these images.

    Raises:
        CalibrationError: no images, or an activation that is NaN or infinite.
        RunnerError: ONNX Runtime refused the model.
    """
    _, observation = _observation(model)
    distributions = observe(observation, batches)
    return {name: mse_amax(shape, INT8) for name, shape in distributions.items()}


def range_of(graph: Graph, name: str, distribution: Distribution, percentile: float) -> TensorRange:
    """Returns the thresholds of one activation by every method."""
    signed = not graph.is_non_negative(name)
    return TensorRange(
        amax=distribution.amax,
        signed=signed,
        thresholds=thresholds(distribution, signed=signed, percentile=percentile),
    )


def _observation(model: LoadedModel) -> tuple[Graph, Observation]:
    """Returns a session that measures all activations, and the structure of its network.

    Of a tensor that is read at a stride it measures what is read: the rest has no influence.

    Raises:
        CalibrationError: there is nothing to quantize.
    """
    observed = thinned_out(model.proto)
    graph = view(skeleton(observed))
    tensors = observed_tensors(graph)
    if not calibrated_tensors(graph):
        raise CalibrationError(
            f"{model.artifact.path} has no convolution with constant weights: there is nothing to "
            "quantize."
        )
    return graph, open_observation(observed, graph, tensors)

"""An ONNX model and images to a calibration table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeres.calibration.calibrate import calibrate, has_few_classes, held_out
from edgeres.calibration.logits import ending_in_logits
from edgeres.calibration.recovery.recover import LEAST_IMAGES, most_images, recover
from edgeres.calibration.saved_ranges import join_ranges
from edgeres.core.artifacts import contract_of
from edgeres.core.contract_options import NO_OPTIONS, ContractOptions
from edgeres.core.methods import Method, Recover
from edgeres.core.precision import Precision
from edgeres.core.requests import CalibrationRequest
from edgeres.core.table import (
    FEW_CALIBRATION_IMAGES,
    CalibrationTable,
    few_images_note,
    save_table,
)
from edgeres.files import check_outputs
from edgeres.images import Dataset, batches, load_dataset, noting_turned, select, take, turned_note
from edgeres.machine import several_kinds_note
from edgeres.normalization import normalize
from edgeres.onnx_file import LoadedModel, load_fp32
from edgeres.plurals import counted
from edgeres.progress import Progress, silent, tracked_batches
from edgeres.quantization.graph import view
from edgeres.quantization.qdq.placement import fp8_graph

_LOG = logging.getLogger("edgeres.workflows")


def calibrate_model(
    model: Path | LoadedModel,
    data: Path,
    config: CalibrationRequest,
    options: ContractOptions = NO_OPTIONS,
    *,
    output: Path | None = None,
    ranges: Sequence[Path] = (),
    recorded_as: str | None = None,
    progress: Progress = silent,
) -> CalibrationTable:
    """Returns the calibration table of an ONNX model.

    Args:
        model: the FP32 file, or what was read from it.
        data: images; labels are not used.
        config: method, sampling, and what to do beyond thresholds.
        options: preprocessing of a model that carries none.
        output: file that the table is written to; None: it is not.
        ranges: what parts of the images came to, run before; empty: all are run here.
        recorded_as: what the table calls `data`; None: its path.
        progress: receives how far calibration, a search and a recovery are.

    Raises:
        DataError: the images cannot be used.
        CalibrationError: ranges cannot be collected, or too few images for a recovery.
        DependencyError: AdaRound without torch.
        QuantizationError: FP8 for a network with grouped convolutions.
        ConfigError: no contract in the model and none in `options`, or one in both; or `output`
            is what is read.
        ArtifactError: the model is none, or the table cannot be written.
    """
    if output is not None:
        path = model if isinstance(model, Path) else model.artifact.path
        check_outputs([output], [path, data])
    loaded = load_fp32(model) if isinstance(model, Path) else model
    contract = contract_of(loaded.artifact, options)
    # Of the file's bytes nothing is read any more: with them the weights would be in memory twice.
    loaded = replace(normalize(loaded, contract), content=b"")
    warn_of_activation(loaded.artifact.path, loaded.artifact.activation)
    if config.precision is Precision.FP8:
        # A network that has no FP8 is refused before minutes of calibration.
        fp8_graph(view(loaded.proto))
    dataset = select(load_dataset(data, labelled=False), config.samples, config.seed)
    turned: list[int] = []
    observed, fitted = None, dataset
    if ranges:
        sha256 = loaded.artifact.sha256
        observed = join_ranges(ranges, model_sha256=sha256, contract=contract, images=len(dataset))
        fitted = take(dataset, held_out(loaded, len(dataset), config))
        if len(observed.machines) > 1:
            _LOG.warning("%s", several_kinds_note(observed.machines))
    # Ranges are those of the network behind the arithmetic of a byte input.
    prepared = contract.prepared
    with closing(batches(fitted, prepared, batch_size=config.batch_size)) as stream:
        noted = noting_turned(stream, turned)
        shown = progress if len(fitted) else silent
        images = tracked_batches(noted, len(fitted), "Calibrating", shown)
        table = calibrate(
            loaded,
            images,
            config,
            contract=contract,
            data=recorded_as or str(data),
            observed=observed,
            progress=progress,
        )
    if observed is not None:
        turned = list(observed.turned)
    if turned:
        _LOG.warning("%s", turned_note(dataset, turned, contract))
    distinct = len(set(table.data.image_hashes))
    if distinct < table.samples:
        _LOG.warning(
            "Of %s %d are distinct: copies add weight to a picture, and no "
            "range. Take the copies out of %s.",
            counted(table.samples, "calibration image"), distinct, data,
        )  # fmt: skip
    if distinct < FEW_CALIBRATION_IMAGES:
        _LOG.warning("%s", few_images_note(distinct))
    table = _recovered(ending_in_logits(loaded), table, dataset, config, progress)
    if output is not None:
        save_table(output, table)
    return table


def _recovered(
    model: LoadedModel,
    table: CalibrationTable,
    dataset: Dataset,
    config: CalibrationRequest,
    progress: Progress,
) -> CalibrationTable:
    """Returns the table with the recovery that was requested, or that method auto or FP8 gains by."""
    kind = config.recover or Recover.NONE
    if config.recover is None and len(dataset) >= LEAST_IMAGES:
        # INT8's takes, with many classes, several times as long as the search: only where requested.
        # FP8 has no search, and nothing else is requested by naming it.
        pays = config.method is Method.AUTO and has_few_classes(model)
        kind = Recover.BIAS if pays or config.precision is Precision.FP8 else Recover.NONE
    if kind is Recover.NONE:
        return table
    few = take(dataset, np.arange(min(len(dataset), most_images(model))))
    # Recovery replays layer after layer on the same images, so they are kept in memory;
    # calibration streams, since it needs each image once.
    with closing(batches(few, table.contract.prepared, batch_size=16)) as stream:
        kept = np.concatenate([batch.images for batch in stream])
    recovered = recover(model, table, kept, replace(config, recover=kind), progress=progress)
    recovery = recovered.recovery
    # What was not requested, and no lowering gains by, is left out of the table.
    is_wanted = config.recover is not None or (recovery is not None and recovery.changes_anything)
    return recovered if is_wanted else table


def load_normalized(path: Path, options: ContractOptions = NO_OPTIONS) -> LoadedModel:
    """Reads an FP32 model for calibration, in the form that quantization takes.

    Raises:
        ArtifactError: the file is none, or cannot be brought to that form.
        ConfigError: its preprocessing is unknown, given twice or of another image size.
    """
    model = load_fp32(path)
    return normalize(model, contract_of(model.artifact, options))


def warn_of_activation(path: Path, activation: str) -> None:
    """Warns of a model whose outputs are no logits."""
    if activation:
        _LOG.warning(
            "%s ends in %s: its outputs are taken for probabilities, and SQNR and cosine are of "
            "these, not of logits; export it without %s to compare logits",
            path,
            activation,
            activation,
        )

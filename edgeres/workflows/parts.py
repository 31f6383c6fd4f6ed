"""A part of the images on one machine of several: what bench and calibrate join to the whole."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from edgeres.calibration.calibrate import PART_BATCHES, observe_part
from edgeres.calibration.saved_ranges import save_ranges
from edgeres.core.artifacts import contract_of
from edgeres.core.bench_requests import BenchInputs, BenchRequest
from edgeres.core.contract_options import ContractOptions
from edgeres.core.requests import CalibrationRequest
from edgeres.errors import ConfigError
from edgeres.evaluation.saved_outcomes import save_outcomes
from edgeres.images import batches, check_labels, noting_turned, order_classes
from edgeres.images.part import Part
from edgeres.machine import machine_kind
from edgeres.normalization import normalize
from edgeres.onnx_file import load_fp32
from edgeres.progress import Progress, tracked_batches
from edgeres.serialization import load_document
from edgeres.workflows.bench import evaluate_images
from edgeres.workflows.bench_pair import load_pair

PART_UNIT = 48
"""Images that a part of bench is a multiple of: whole batches of 1, 2, 3, 4, 6, 8, 12, 16 or 24."""


def unit_of(config: CalibrationRequest) -> int:
    """Returns the images that a part of a calibration is a multiple of."""
    return PART_BATCHES * config.batch_size


def bench_part(
    inputs: BenchInputs, config: BenchRequest, part: Path, output: Path, progress: Progress
) -> None:
    """Evaluates the images of a part and writes the outcomes.

    Raises:
        ConfigError: the part does not begin with a batch.
        EdgeresError: as `bench_engine`.
    """
    loaded = _load(part)
    pair = load_pair(inputs, config)
    dataset = order_classes(loaded.dataset(inputs.data), pair.engine.classes)
    check_labels(dataset, pair.engine.num_classes, pair.engine.classes)
    batch_size, _ = pair.batches(config)
    # Other batches could give other last bits than those of one machine.
    _check_begin(loaded, batch_size)
    with pair.reference.runner, pair.engine.runner:
        outcomes, turned = evaluate_images(pair, dataset, batch_size, progress)
    save_outcomes(
        output,
        outcomes,
        engine_sha256=pair.engine.sha256,
        reference_sha256=pair.reference.sha256,
        first=loaded.first,
        turned=turned,
        machine=machine_kind(),
    )


def calibrate_part(
    model: Path,
    data: Path,
    config: CalibrationRequest,
    options: ContractOptions,
    part: Path,
    output: Path,
    progress: Progress,
) -> None:
    """Collects the ranges of a part of the images and writes them.

    Raises:
        ConfigError: the part does not begin with a batch.
        EdgeresError: as `calibrate_model`.
    """
    loaded = _load(part)
    _check_begin(loaded, unit_of(config))
    network = load_fp32(model)
    contract = contract_of(network.artifact, options)
    network = normalize(network, contract)
    dataset = loaded.dataset(data)
    turned: list[int] = []
    with closing(batches(dataset, contract.prepared, batch_size=config.batch_size)) as stream:
        noted = noting_turned(stream, turned)
        images = tracked_batches(noted, len(dataset), "Calibrating", progress)
        distributions, hashes = observe_part(
            network, images, config, loaded.first // config.batch_size
        )
    save_ranges(
        output,
        distributions,
        model_sha256=network.artifact.sha256,
        contract=contract,
        first=loaded.first,
        hashes=hashes,
        turned=turned,
        machine=machine_kind(),
    )


def _load(part: Path) -> Part:
    return load_document(part, Part, remedy="Run the whole command again.")


def _check_begin(part: Part, unit: int) -> None:
    if part.first % unit:
        raise ConfigError(
            f"A part begins at image {part.first}, which is no multiple of {unit}: its batches would "
            "not be those of one machine. Pass --batch-size with the engine's batch."
        )

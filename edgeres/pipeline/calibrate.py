"""An ONNX model and images to a calibration table."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from edgeres.artifacts import CalibrationTable, OnnxArtifact, save_table
from edgeres.contract import NO_OPTIONS, Contract, ContractOptions
from edgeres.data import batches, load_dataset, select
from edgeres.errors import ConfigError
from edgeres.files import check_writable
from edgeres.model_file import describe_model
from edgeres.pipeline.track import Track, untracked
from edgeres.quantize import calibrate
from edgeres.spec import CalibrationConfig


def calibrate_model(
    model: Path,
    data: Path,
    config: CalibrationConfig,
    options: ContractOptions = NO_OPTIONS,
    *,
    output: Path | None = None,
    track: Track = untracked,
) -> CalibrationTable:
    """Returns the calibration table of an ONNX model, and writes it where `output` says.

    Raises:
        DataError: the images cannot be used.
        CalibrationError: ranges cannot be observed.
        ConfigError: no contract in the model and none in `options`, or one in both; or `output`
            is what is read.
        ArtifactError: the model is none, or the table cannot be written.
    """
    if output is not None:
        check_writable(output, model, data)
    artifact = describe_model(model)
    contract = contract_of(artifact, options)
    dataset = select(load_dataset(data, labelled=False), config.samples, config.seed)
    with closing(batches(dataset, contract, batch_size=config.batch_size)) as stream:
        seen = track(stream, len(dataset), "Calibrating")
        table = calibrate(artifact, seen, config, contract=contract, data=str(data))
    if output is not None:
        save_table(output, table)
    return table


def contract_of(artifact: OnnxArtifact, options: ContractOptions) -> Contract:
    """Returns the model's preprocessing, from its metadata or, where it has none, from `options`.

    Raises:
        ConfigError: neither has one, or both.
    """
    if artifact.contract is None and options.empty:
        raise ConfigError(
            f"{artifact.path} carries no preprocessing contract: it was not exported by edgeres. "
            "Say how its images were prepared: --preset NAME, or --mean, --std, --color, "
            "--input-size and --resize."
        )
    if artifact.contract is None:
        return options.resolve(_default_preset(artifact.input.shape[-1]))
    if not options.empty:
        raise ConfigError(
            f"{artifact.path} carries its own preprocessing contract ({artifact.contract}). Leave "
            "the preprocessing options out, or export the model again with them."
        )
    return artifact.contract


def _default_preset(size: int | None) -> str:
    return "cifar" if size == 32 else "imagenet"

"""An ONNX model and its table to an engine."""

from __future__ import annotations

from pathlib import Path

from edgeres.artifacts import CalibrationTable, EngineArtifact, OnnxArtifact
from edgeres.build import build_engine
from edgeres.errors import ConfigError
from edgeres.files import check_writable
from edgeres.model_file import Network, describe_model
from edgeres.pipeline.calibrate import contract_of
from edgeres.quantize import check_table, float_network, quantize_for_cpu, quantize_for_tensorrt
from edgeres.spec import (
    NO_OPTIONS,
    BuildConfig,
    Contract,
    ContractOptions,
    Method,
    Precision,
    Target,
)


def build_from_model(
    model: Path,
    config: BuildConfig,
    table: CalibrationTable | None = None,
    *,
    method: Method | None = None,
    options: ContractOptions = NO_OPTIONS,
    output: Path,
) -> EngineArtifact:
    """Builds an engine from an ONNX model and, for INT8, its calibration table.

    Raises:
        ConfigError: INT8 without a table, or a table that the precision has no use for.
        CalibrationError: the table is another model's.
        QuantizationError: the network cannot be lowered.
        BuildError: the target refused it.
        DependencyError: the target's package is missing.
        ArtifactError: files cannot be read or written.
    """
    check_writable(output)
    artifact = describe_model(model)
    contract = contract_of(artifact, options)
    network = _lowered(artifact, contract, config, table, method)
    return build_engine(network, config, contract, output=output)


def _lowered(
    artifact: OnnxArtifact,
    contract: Contract,
    config: BuildConfig,
    table: CalibrationTable | None,
    method: Method | None,
) -> Network:
    if config.precision is not Precision.INT8:
        if table is not None:
            raise ConfigError(
                f"--precision {config.precision} has no use for a calibration table. "
                "Leave it out, or pass --precision int8."
            )
        return float_network(artifact, config.precision)
    if table is None:
        raise ConfigError(
            "--precision int8 needs ranges. Pass --calibration TABLE.json from edgeres calibrate, "
            "or --calib-data PATH to calibrate now."
        )
    check_table(table, artifact, contract)
    if config.target is Target.ONNXRUNTIME:
        return quantize_for_cpu(artifact, table, method)
    return quantize_for_tensorrt(artifact, table, method, floats=config.float_layers)

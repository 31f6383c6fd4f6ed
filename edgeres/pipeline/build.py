"""An ONNX model and its table to an engine."""

from __future__ import annotations

from pathlib import Path

from edgeres.artifacts import CalibrationTable, EngineArtifact, OnnxArtifact, manifest_path
from edgeres.build import build_engine, types_of_network
from edgeres.contract import NO_OPTIONS, Contract, ContractOptions
from edgeres.errors import ConfigError
from edgeres.files import check_writable
from edgeres.model_file import Network, describe_model
from edgeres.pipeline.calibrate import contract_of
from edgeres.quantize import check_table, float_network, quantize_for_cpu, quantize_for_tensorrt
from edgeres.spec import BuildConfig, Method, Precision, Target


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
        ConfigError: INT8 without a table, or a table that the precision has no use for; or
            `output` is what is read.
        CalibrationError: the table is another model's.
        QuantizationError: the network cannot be lowered.
        BuildError: the target refused it.
        DependencyError: the target's package is missing.
        ArtifactError: files cannot be read or written.
    """
    check_build(config, has_ranges=table is not None, method=method, output=output, inputs=(model,))
    artifact = describe_model(model)
    contract = contract_of(artifact, options, None if table is None else table.contract)
    network = _lowered(artifact, contract, config, table, method)
    return build_engine(network, config, contract, output=output)


def check_build(
    config: BuildConfig,
    *,
    has_ranges: bool,
    method: Method | None,
    output: Path,
    inputs: tuple[Path, ...],
) -> None:
    """Checks what can be said of a build before any image is read for it.

    Args:
        config: what is to be built.
        has_ranges: whether there is a table, or images to make one from.
        method: that was asked for.
        output: the engine.
        inputs: the files that it is made from.

    Raises:
        ConfigError: INT8 without ranges, ranges or a method that the precision has no use for,
            or an engine or manifest in the place of an input.
        ArtifactError: the engine or its manifest cannot be written.
    """
    int8 = config.precision is Precision.INT8
    if int8 and not has_ranges:
        raise ConfigError(
            "--precision int8 needs ranges. Pass --calibration TABLE.json from edgeres calibrate, "
            "or --calib-data PATH to calibrate now."
        )
    if not int8 and (has_ranges or method is not None):
        raise ConfigError(
            f"--precision {config.precision} has no use for calibration. Leave --calibration, "
            "--calib-data and --method out, or pass --precision int8."
        )
    check_writable(output, *inputs)
    check_writable(manifest_path(output), *inputs)


def _lowered(
    artifact: OnnxArtifact,
    contract: Contract,
    config: BuildConfig,
    table: CalibrationTable | None,
    method: Method | None,
) -> Network:
    floats = types_of_network(config)
    if table is None:
        return float_network(artifact, floats)
    check_table(table, artifact, contract)
    if config.target is Target.ONNXRUNTIME:
        return quantize_for_cpu(artifact, table, method)
    return quantize_for_tensorrt(artifact, table, method, floats=floats)

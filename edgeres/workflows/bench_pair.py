"""Who is compared with whom, and what both are fed: from paths to runners that belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeres.core.artifacts import (
    EngineArtifact,
    LayerPrecision,
    Manifest,
    is_engine,
    load_engine,
    manifest_path,
)
from edgeres.core.bench_requests import BenchConfig, Timing
from edgeres.core.contract import NO_OPTIONS, Contract, ContractOptions
from edgeres.core.precision import Precision
from edgeres.core.table import load_table
from edgeres.core.verdict import Check
from edgeres.errors import ConfigError, MismatchError
from edgeres.evaluation.coverage import check_profile, coverage_checks
from edgeres.onnx_file import LoadedModel, load_onnx
from edgeres.quantization.lowering import check_table
from edgeres.targets.base import find_target, simulated_target, target_of
from edgeres.targets.onnxruntime.runner import model_runner, network_runner
from edgeres.targets.runner import Runner
from edgeres.targets.tensorrt.quantize import quantize_for_tensorrt
from edgeres.workflows.calibrate import contract_of
from edgeres.workflows.trusted_plan import trusted_plan


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRequest:
    """What `bench` judges, and on what."""

    engine: Path
    """An engine, or with `simulate` a calibration table."""
    reference: Path
    """The FP32 ONNX model, or another engine."""
    data: Path
    simulate: bool = False
    """Judge the accuracy of TensorRT's placement on the CPU, from a table."""
    contract: ContractOptions = NO_OPTIONS
    """Only for a reference without a contract of its own."""
    trust: bool = False
    """Run a plan that has no manifest: it is code, and the user vouches for it."""
    loadgen_logs: Path | None = None
    """Folder for the logs of MLPerf's LoadGen; None: they are not kept."""
    baseline: Path | None = None
    """JSON of an earlier run on the same images, which this one must not be worse than."""
    command: tuple[str, ...] = ()
    """Command line that asked for it, for the provenance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """What the engine, or its simulation, was made from and for."""

    engine_sha256: str
    reference_sha256: str
    model_sha256: str
    table_sha256: str | None
    target: str
    precision: Precision | None
    """None where only the user knows."""
    versions: Mapping[str, str]
    """Of the libraries that built the engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """Who is compared with whom, and what both are fed."""

    reference: Runner
    engine: Runner
    contract: Contract
    num_classes: int
    calibration_images: tuple[str, ...]
    """Hashes of the images that the engine was calibrated on."""
    lineage: Lineage
    classes: tuple[str, ...]
    layers: tuple[LayerPrecision, ...]
    ranges: Mapping[str, float]
    """Calibrated range of each activation; empty without INT8."""
    model: LoadedModel | None
    """The reference, where it is an ONNX file."""
    checks: tuple[Check, ...] = ()
    """Of what the engine runs, before it is run."""


def find_contest(request: BenchRequest, config: BenchConfig) -> Contest:
    """Returns engine and reference, neither open yet, once they are known to belong together.

    Raises:
        MismatchError: the engine does not belong to the reference or to this machine, or does not
            take the batches of `config`.
        ConfigError: preprocessing was given twice, or a plan to trust without its model.
        ArtifactError: a file cannot be read.
    """
    return _simulation(request) if request.simulate else _contest(request, config)


def check_timing(contest: Contest, config: BenchConfig) -> None:
    """Refuses a mode of the GPU's before any image is judged.

    Raises:
        ConfigError: the engine runs on the CPU.
    """
    if config.timing not in find_target(contest.lineage.target).timings:
        raise ConfigError(
            f"--timing {config.timing} needs a GPU, and {contest.engine.name} has none. Use "
            f"--timing {Timing.END_TO_END}, or build the engine with --target tensorrt."
        )


def _contest(request: BenchRequest, config: BenchConfig) -> Contest:
    artifact = _engine(request)
    manifest = artifact.manifest
    check_profile(request.engine, manifest, config)
    reference = _reference(request, manifest)
    if reference.contract != manifest.contract:
        raise MismatchError(
            f"{request.engine} expects {manifest.contract}, but {request.reference} expects "
            f"{reference.contract}: they cannot be judged on the same images. Build the engine "
            "again."
        )
    return Contest(
        reference=reference.runner,
        engine=target_of(manifest).open(artifact),
        contract=manifest.contract,
        num_classes=manifest.output.shape[-1] or 0,
        calibration_images=manifest.calibration_images,
        lineage=Lineage(
            engine_sha256=manifest.engine_sha256,
            reference_sha256=reference.sha256,
            model_sha256=manifest.model_sha256,
            table_sha256=manifest.table_sha256,
            target=manifest.target,
            precision=manifest.precision,
            versions=manifest.versions,
        ),
        classes=manifest.classes,
        layers=manifest.layers,
        ranges=manifest.ranges,
        model=reference.model,
        checks=coverage_checks(artifact),
    )


def _engine(request: BenchRequest) -> EngineArtifact:
    """Returns the engine, or on the user's word a plan that has no manifest."""
    if not request.trust or manifest_path(request.engine).exists():
        return load_engine(request.engine)
    if is_engine(request.reference):
        raise ConfigError(
            f"--trust takes the preprocessing of {request.engine} from the reference, which has to "
            "be its ONNX model. Pass that with --reference."
        )
    model = load_onnx(request.reference)
    return trusted_plan(
        request.engine, model.artifact, contract_of(model.artifact, request.contract, None)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reference:
    runner: Runner
    contract: Contract
    sha256: str
    model: LoadedModel | None


def _reference(request: BenchRequest, manifest: Manifest) -> _Reference:
    """Returns the reference; an ONNX model must be the engine's own."""
    if is_engine(request.reference):
        return _other_engine(request)
    model = load_onnx(request.reference)
    if model.artifact.sha256 != manifest.model_sha256:
        raise MismatchError(
            f"{request.engine} was built from a model with sha256 "
            f"{manifest.model_sha256[:12]}, but "
            f"{request.reference} is {model.artifact.sha256[:12]}: other weights, or exported again since. "
            "Build the engine again from this model, or pass the model that it was built from."
        )
    return _Reference(
        runner=model_runner(model),
        contract=contract_of(model.artifact, request.contract, manifest.contract),
        sha256=model.artifact.sha256,
        model=model,
    )


def _other_engine(request: BenchRequest) -> _Reference:
    other = load_engine(request.reference)
    if not request.contract.empty:
        raise ConfigError(
            f"{request.reference} is an engine and carries its own preprocessing contract. "
            "Leave the preprocessing options out."
        )
    return _Reference(
        runner=target_of(other.manifest).open(other),
        contract=other.manifest.contract,
        sha256=other.manifest.engine_sha256,
        model=None,
    )


def _simulation(request: BenchRequest) -> Contest:
    model = load_onnx(request.reference)
    table = load_table(request.engine)
    contract = contract_of(model.artifact, request.contract, table.contract)
    check_table(table, model.artifact, contract)
    network = quantize_for_tensorrt(model, table)
    return Contest(
        reference=model_runner(model),
        engine=network_runner(network, f"TensorRT's placement, {table.method}, simulated"),
        contract=contract,
        num_classes=model.artifact.num_classes,
        calibration_images=table.data.image_hashes,
        lineage=Lineage(
            engine_sha256=table.sha256,
            reference_sha256=model.artifact.sha256,
            model_sha256=model.artifact.sha256,
            table_sha256=table.sha256,
            target=simulated_target().name,
            precision=Precision.INT8,
            versions={"edgeres": table.edgeres_version},
        ),
        classes=model.artifact.classes,
        layers=network.layers,
        ranges=network.ranges,
        model=model,
    )

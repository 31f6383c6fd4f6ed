"""Engine and reference, loaded once and known to belong together: what bench compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from edgeres.batch_independence import QUANTIZED_TOLERANCE, TOLERANCE
from edgeres.core.artifacts import (
    PROBABILITIES,
    EngineArtifact,
    LayerPrecision,
    contract_of,
    is_engine,
    load_engine,
)
from edgeres.core.bench_requests import BATCH_SIZE, BenchInputs, BenchRequest, Timing
from edgeres.core.contract import Contract
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.core.table import load_table
from edgeres.core.tuning import Sensitivity
from edgeres.core.verdict import (
    Check,
    DataRecord,
    Emulation,
    FileRecord,
    Provenance,
    RunGroup,
    processors_of,
)
from edgeres.deploy.deepstream import approximated
from edgeres.errors import ArtifactError, ConfigError, MismatchError
from edgeres.evaluation.coverage import check_profile, coverage_checks, foreign_notes
from edgeres.evaluation.evaluate import Outcomes
from edgeres.evaluation.throughput import with_streams
from edgeres.graph_checks import low_precision
from edgeres.machine import Machine
from edgeres.normalization import normalize
from edgeres.onnx_file import LoadedModel, load_fp32, load_onnx
from edgeres.quantization.lowering import check_table
from edgeres.quantization.qdq.network import quantize_for_tensorrt
from edgeres.targets.base import Target, simulated_target, target_of, targets
from edgeres.targets.loading import batch_tolerance, load_any_engine
from edgeres.targets.runner import Runner
from edgeres.targets.session_runner import model_runner, network_runner
from edgeres.workflows.calibrate import warn_of_activation


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What an engine is compared with."""

    runner: Runner
    contract: Contract
    sha256: str
    model_sha256: str
    """Of the model that it is, or was built from."""
    model: LoadedModel | None
    """The FP32 model; None where it is an engine, or quantized."""
    activation: str
    """Operator that it ends in, such as Softmax; empty for logits."""
    batch: tuple[int, int] | None = None
    """Smallest and largest batch that it takes; None: any."""
    batch_tolerance: float | None = None
    """How far an image's logits in a batch may be from those alone, as a fraction of their spread;
    None: they are not compared."""
    lowered: str = ""
    """What it is where it is not in FP32; empty where it is."""

    @property
    def gives_probabilities(self) -> bool:
        """Whether its outputs, and the engine's, are probabilities and no logits."""
        return self.activation in PROBABILITIES


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedEngine:
    """The engine of a bench, or a simulation of one, with what it was built from and for."""

    runner: Runner
    contract: Contract
    target: Target
    is_timed: bool
    """Whether it is run as it will be; else its accuracy alone counts."""
    precision: Precision | None
    """None where only the user knows."""
    sha256: str
    model_sha256: str
    table_sha256: str | None
    versions: Mapping[str, str]
    """Of the libraries that built it."""
    num_classes: int
    classes: tuple[str, ...]
    layers: tuple[LayerPrecision, ...]
    ranges: Mapping[str, float]
    """Calibrated range of each activation; empty without INT8."""
    calibration_images: tuple[str, ...]
    """Hashes of the images that it was calibrated on."""
    sensitivity: Sensitivity | None
    selection_images: tuple[str, ...] = ()
    """Hashes of the images that its mixed precision was chosen on."""
    checks: tuple[Check, ...] = ()
    """Of what it runs, before it is run."""
    notes: tuple[str, ...] = ()
    """What is known of an engine that another tool made, in sentences."""
    emulated: Emulation | None = None
    """How another runtime prepares its images; None: by its contract."""
    batch: tuple[int, int] | None = None
    """Smallest and largest batch that it takes; None: any."""
    batch_tolerance: float | None = None
    """Largest difference of logits between batches, of another tool's engine; None: edgeres' own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPair:
    """Engine and reference, neither open yet, that take the same images."""

    engine: EvaluatedEngine
    reference: Reference

    @property
    def contract(self) -> Contract:
        """Preprocessing of both."""
        return self.engine.contract

    def batches(self, config: BenchRequest) -> tuple[int, int]:
        """Returns the images per inference for accuracy and for latency: requested, or taken."""
        limits = [limit for limit in (self.engine.batch, self.reference.batch) if limit]
        largest = min([BATCH_SIZE, *(high for _, high in limits)])
        smallest = max([1, *(low for low, _ in limits)])
        return (
            largest if config.batch_size is None else config.batch_size,
            smallest if config.latency_batch is None else config.latency_batch,
        )

    def group(self, config: BenchRequest, images: str, machine: Machine) -> RunGroup:
        """Returns what an earlier run must share to be compared over time.

        Args:
            config: batch and timing.
            images: fingerprint of those that are evaluated.
            machine: this one.
        """
        engine = self.engine
        return RunGroup(
            model_sha256=engine.model_sha256,
            reference_sha256=self.reference.sha256,
            target=engine.target.name,
            precision=None if engine.precision is None else engine.precision.value,
            machine=processors_of(machine.cpu, machine.gpus),
            images=images,
            batch=self.batches(config)[1] if engine.is_timed else None,
            timing=str(config.timing) if engine.is_timed else None,
            emulated=None if engine.emulated is None else str(engine.emulated.destination),
        )

    def provenance(
        self, inputs: BenchInputs, outcomes: Outcomes, *, seed: int, started: datetime
    ) -> Provenance:
        """Returns which files, versions and images a verdict on this pair is about."""
        engine = self.engine
        return Provenance(
            command=inputs.command,
            started=started.isoformat(timespec="seconds"),
            engine=FileRecord(path=str(inputs.engine), sha256=engine.sha256),
            reference=FileRecord(path=str(inputs.reference), sha256=self.reference.sha256),
            model_sha256=engine.model_sha256,
            table_sha256=engine.table_sha256,
            data=DataRecord(
                path=str(inputs.data),
                fingerprint=outcomes.fingerprint,
                samples=len(outcomes.labels),
                seed=seed,
            ),
            target=engine.target.name,
            precision=None if engine.precision is None else engine.precision.value,
            versions=engine.versions,
            emulated=engine.emulated,
        )


def load_pair(inputs: BenchInputs, config: BenchRequest) -> BenchPair:
    """Returns engine and reference, each file read once.

    Raises:
        MismatchError: the engine does not belong to the reference or to this machine, or does not
            take the batches of `config`.
        ConfigError: preprocessing was given twice, a plan to trust without its model, a timing
            mode that the engine's target does not have, or more streams than the machine.
        ArtifactError: a file cannot be read, or a reference is in less than FP32.
    """
    pair = _simulated_pair(inputs) if inputs.simulate else _engine_pair(inputs, config)
    warn_of_activation(inputs.reference, pair.reference.activation)
    if config.timing not in pair.engine.target.timings:
        raise ConfigError(
            f"--timing {config.timing} needs a GPU, and {pair.engine.runner.name} has none. Use "
            f"--timing {Timing.END_TO_END}, or build the engine with --target tensorrt."
        )
    if not pair.engine.target.is_timed:
        requested = {
            "--strict": config.strict,
            "--min-speedup": config.min_speedup is not None,
            "--scenario": config.loadgen is not None,
            "--profile": config.profile,
            "--streams": config.streams is not None,
        }
        if named := [option for option, is_requested in requested.items() if is_requested]:
            raise ConfigError(
                f"{', '.join(named)} times an engine, and {inputs.engine} is the file that one is "
                "built from. Leave it out, or bench the engine."
            )
    if config.streams is not None:
        # Before minutes of evaluation: nothing is opened yet.
        with_streams(pair.engine.runner, config, config.streams)
    if pair.engine.contract != pair.reference.contract:
        raise MismatchError(
            f"{inputs.engine} expects {pair.engine.contract}, but {inputs.reference} expects "
            f"{pair.reference.contract}: they cannot be evaluated on the same images. Build the "
            "engine again."
        )
    if inputs.prepared_as is None:
        return pair
    emulated = Emulation(
        destination=inputs.prepared_as, contract=approximated(pair.engine.contract)
    )
    return replace(pair, engine=replace(pair.engine, emulated=emulated))


def _engine_pair(inputs: BenchInputs, config: BenchRequest) -> BenchPair:
    """Returns an engine and what it is compared with."""
    if is_engine(inputs.reference):
        return _pair_of_engines(inputs, config)
    model = (load_onnx if inputs.quantized_reference else load_fp32)(inputs.reference)
    quantized = low_precision(model.proto)
    _check_request(inputs, lowered=bool(quantized))
    artifact = model.artifact
    engine = load_any_engine(
        inputs.engine, reference=artifact, options=inputs.contract, trust=inputs.trust
    )
    contract = contract_of(artifact, inputs.contract, engine.manifest.contract)
    model = normalize(model, contract)
    reference = _model_reference(model, contract)
    if quantized:
        reference = replace(
            reference,
            model=None,
            batch_tolerance=QUANTIZED_TOLERANCE,
            lowered=f"a model with {quantized}",
        )
    _check_related(inputs, engine, reference)
    return BenchPair(engine=_evaluated(engine, config), reference=reference)


def _pair_of_engines(inputs: BenchInputs, config: BenchRequest) -> BenchPair:
    """Returns an engine and another one that it is compared with."""
    if not inputs.contract.empty:
        raise ConfigError(
            f"{inputs.reference} is an engine and carries its own preprocessing contract. "
            "Leave the preprocessing options out."
        )
    other = load_engine(inputs.reference)
    target = target_of(other.manifest)
    lowered = other.manifest.precision not in {Precision.FP32, None}
    if lowered and not inputs.quantized_reference:
        raise ArtifactError(
            f"{inputs.reference} is an engine in {other.manifest.precision}, and no FP32 "
            "reference: compared with it, an engine that lost as much accuracy keeps any "
            "limit. Pass the FP32 model or an FP32 engine of it; two engines are compared as "
            "they are with --quantized-reference."
        )
    _check_request(inputs, lowered=lowered)
    reference = Reference(
        runner=target.open(other),
        contract=other.manifest.contract,
        sha256=other.manifest.engine_sha256,
        model_sha256=other.manifest.model_sha256,
        model=None,
        activation=other.manifest.activation,
        batch=other.manifest.batch_limits,
        lowered=f"an engine in {other.manifest.precision}" if lowered else "",
    )
    engine = load_any_engine(inputs.engine, reference=other.manifest, trust=inputs.trust)
    _check_related(inputs, engine, reference)
    return BenchPair(engine=_evaluated(engine, config), reference=reference)


def _check_request(inputs: BenchInputs, *, lowered: bool) -> None:
    """Refuses to call an FP32 reference a quantized one."""
    if inputs.quantized_reference and not lowered:
        raise ConfigError(
            "--quantized-reference is for what was quantized or lowered, and "
            f"{inputs.reference} is in FP32. Leave it out."
        )


def _simulated_pair(inputs: BenchInputs) -> BenchPair:
    """Returns TensorRT's placement, computed on the CPU, and the model that it is made from."""
    if is_engine(inputs.reference):
        raise ConfigError(
            f"--simulate lowers the FP32 model, and {inputs.reference} is an engine. Pass the "
            "ONNX model with --reference."
        )
    if is_engine(inputs.engine) or inputs.engine.suffix in {t.suffix for t in targets().values()}:
        raise ConfigError(
            f"--simulate evaluates a calibration table before there is an engine, and "
            f"{inputs.engine} is one. Pass the table that edgeres calibrate wrote, or leave "
            "--simulate out."
        )
    model, table = load_fp32(inputs.reference), load_table(inputs.engine)
    artifact = model.artifact
    contract = contract_of(artifact, inputs.contract, table.contract)
    check_table(table, artifact, contract, simulated_target().lowering(), Precision.INT8)
    model = normalize(model, contract)
    floats = inputs.float_layers or BuildRequest().float_layers
    network = quantize_for_tensorrt(model, table, floats=floats)
    name = f"TensorRT's placement, {table.method}, {floats} floats, simulated"
    engine = EvaluatedEngine(
        runner=network_runner(network, name),
        contract=contract,
        target=simulated_target(),
        is_timed=False,
        precision=Precision.INT8,
        # There is no engine file; the table is what decides all of the simulated network.
        sha256=table.sha256,
        model_sha256=artifact.sha256,
        table_sha256=table.sha256,
        versions={"edgeres": table.edgeres_version},
        num_classes=artifact.num_classes,
        classes=artifact.classes,
        layers=network.layers,
        ranges=network.ranges,
        calibration_images=table.data.image_hashes,
        sensitivity=table.sensitivity,
    )
    return BenchPair(engine=engine, reference=_model_reference(model, contract))


def _check_related(inputs: BenchInputs, engine: EngineArtifact, reference: Reference) -> None:
    """Refuses an engine of other weights than the FP32 reference's, or with another head."""
    ends = engine.manifest.activation
    if ends != reference.activation:
        shown = [f"in {end or 'logits'}" for end in (ends, reference.activation)]
        raise MismatchError(
            f"{engine.path} ends {shown[0]}, {reference.runner.name} ends {shown[1]}: their outputs "
            "cannot be compared. Export both with the same head."
        )
    built_from, other = engine.manifest.model_sha256, reference.model_sha256
    # With other weights the drop would be more than what quantization costs. What was quantized is
    # another file by its nature, and has a warning instead.
    if built_from != other and not reference.lowered:
        relation = "was built from" if reference.model is None else "is"
        raise MismatchError(
            f"{inputs.engine} was built from a model with sha256 {built_from[:12]}, but "
            f"{inputs.reference} {relation} {other[:12]}: other weights, or exported again since. "
            "Build the engine again from this model, or pass the model that it was built from."
        )


def _model_reference(model: LoadedModel, contract: Contract) -> Reference:
    sha256 = model.artifact.sha256
    return Reference(
        runner=model_runner(model),
        contract=contract,
        sha256=sha256,
        model_sha256=sha256,
        model=model,
        activation=model.artifact.activation,
        batch_tolerance=TOLERANCE,
    )


def _evaluated(engine: EngineArtifact, config: BenchRequest) -> EvaluatedEngine:
    manifest = engine.manifest
    check_profile(engine.path, manifest, config)
    target = target_of(manifest)
    return EvaluatedEngine(
        runner=target.open(engine),
        contract=manifest.contract,
        target=target,
        is_timed=target.is_timed,
        precision=manifest.precision,
        sha256=manifest.engine_sha256,
        model_sha256=manifest.model_sha256,
        table_sha256=manifest.table_sha256,
        versions=manifest.versions,
        # None is a dynamic dimension; 0 classes is then refused with the labels.
        num_classes=manifest.output.shape[-1] or 0,
        classes=manifest.classes,
        layers=manifest.layers,
        ranges=manifest.ranges,
        calibration_images=manifest.calibration_images,
        selection_images=() if manifest.search is None else manifest.search.image_hashes,
        sensitivity=manifest.sensitivity,
        checks=coverage_checks(engine),
        notes=foreign_notes(engine),
        batch=manifest.batch_limits,
        batch_tolerance=batch_tolerance(manifest),
    )

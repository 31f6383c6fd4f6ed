"""An engine, its reference and labelled images to a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeres.artifacts import LayerPrecision, Manifest, is_engine, load_engine, load_table
from edgeres.benchmark import benchmark_pair
from edgeres.compare import compare, paired_accuracy, with_loadgen, with_stability
from edgeres.contract import NO_OPTIONS, Contract, ContractOptions
from edgeres.data import Dataset, batches, check_labels, load_dataset, select, take
from edgeres.environment import (
    NoEnergy,
    Stability,
    describe_machine,
    open_gpu,
    open_meter,
    watch,
)
from edgeres.errors import ConfigError, DataError, MismatchError
from edgeres.evaluate import evaluate_pair, found_again
from edgeres.loadgen import check_loadgen, run_loadgen
from edgeres.model_file import describe_model
from edgeres.pipeline.calibrate import contract_of
from edgeres.pipeline.coverage import check_profile, coverage_checks
from edgeres.pipeline.doubts import Judged, find_doubts, with_doubts
from edgeres.pipeline.energy import measure_energies
from edgeres.pipeline.track import Track, untracked
from edgeres.quantize import check_table, quantize_for_tensorrt
from edgeres.regression import against_baseline, baseline_checks, check_same_images
from edgeres.results import (
    Check,
    Comparison,
    DataRecord,
    Energies,
    FileRecord,
    LoadGenResult,
    PairedLatency,
    PastRun,
    Provenance,
    load_run,
)
from edgeres.runners import Runner, engine_runner, model_runner, network_runner
from edgeres.spec import BenchConfig, LoadGenConfig, Precision, Target


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
    loadgen_logs: Path | None = None
    """Folder for the logs of MLPerf's LoadGen; None: they are not kept."""
    baseline: Path | None = None
    """JSON of an earlier run on the same images, which this one must not be worse than."""
    command: tuple[str, ...] = ()
    """Command line that asked for it, for the provenance."""


def bench_engine(
    request: BenchRequest, config: BenchConfig, *, track: Track = untracked
) -> Comparison:
    """Returns the verdict on an engine: accuracy and latency against the reference.

    Raises:
        MismatchError: the engine does not belong to the reference, the images or this machine.
        DataError: the images or labels cannot be used.
        RunnerError: inference failed or gave NaN.
        ConfigError: a limit that nothing will be measured for.
        ArtifactError: files cannot be read.
    """
    _check_request(request, config)
    started = datetime.now(timezone.utc)
    baseline = None if request.baseline is None else load_run(request.baseline)
    contest = _simulated(request) if request.simulate else _contest(request, config)
    labelled = load_dataset(request.data)
    check_labels(labelled, contest.num_classes)
    dataset = select(labelled, config.samples, config.seed)
    with contest.reference as reference, contest.engine as engine:
        with closing(batches(dataset, contest.contract, batch_size=config.batch_size)) as stream:
            outcomes = evaluate_pair(reference, engine, track(stream, len(dataset), "Judging"))
        if baseline is not None:
            check_same_images(outcomes.fingerprint, baseline)
        measured = None if request.simulate else _measured(contest, dataset, config)
        loadgen = _loadgen(contest, dataset, config.loadgen, request.loadgen_logs)
        judged = _judged(request, contest, labelled)
        doubts = find_doubts(reference, outcomes.reference, judged, config, track)
    again = found_again(outcomes.hashes, contest.calibration_images)
    environment = {
        **describe_machine().to_dict(),
        "engine": engine.name,
        "reference": reference.name,
    }
    accuracy = paired_accuracy(outcomes, dataset.image_name)
    latency = None if measured is None else measured.latency
    verdict = compare(accuracy, latency, config, environment, _warnings(again, len(dataset)))
    data = DataRecord(
        path=str(request.data),
        fingerprint=outcomes.fingerprint,
        samples=len(dataset),
        seed=config.seed,
    )
    provenance = _provenance(request, contest.lineage, data, started)
    verdict = replace(
        verdict,
        layers=contest.layers,
        classes=contest.classes,
        provenance=provenance,
        checks=(*contest.checks, *verdict.checks),
    )
    verdict = with_doubts(_with_measurement(verdict, measured, config), doubts)
    if loadgen is not None:
        verdict = with_loadgen(verdict, loadgen, config)
    return verdict if baseline is None else _with_baseline(verdict, baseline, config)


def _judged(request: BenchRequest, contest: _Contest, labelled: Dataset) -> Judged:
    return Judged(
        reference=request.reference,
        dataset=labelled,
        contract=contest.contract,
        classes=contest.classes,
        ranges=contest.ranges,
        model_sha256=contest.lineage.model_sha256,
    )


def _check_request(request: BenchRequest, config: BenchConfig) -> None:
    """Refuses what nothing will be measured for, and what cannot be measured, before it begins."""
    if request.simulate:
        _check_simulation(config)
    if config.loadgen is not None:
        check_loadgen()
    elif request.loadgen_logs is not None:
        raise ConfigError(
            "--loadgen-logs keeps the logs of a scenario, and none is asked for. Pass --scenario."
        )


def _check_simulation(config: BenchConfig) -> None:
    if config.strict:
        raise ConfigError(
            "--strict judges a measurement, and --simulate makes none. Leave one of them out."
        )
    if config.min_speedup is not None:
        raise ConfigError(
            "--min-speedup needs a latency, and --simulate measures none. Leave one of them out."
        )
    if config.loadgen is not None:
        raise ConfigError(
            "--scenario times an engine, and --simulate has none. Leave one of them out."
        )


def _with_baseline(verdict: Comparison, baseline: PastRun, config: BenchConfig) -> Comparison:
    run = PastRun.of(verdict, "this run")
    regression = against_baseline(run, baseline)
    checks = baseline_checks(regression, config.max_slowdown)
    return replace(verdict, regression=regression, checks=(*verdict.checks, *checks))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """What was taken on the machine that the engine is for."""

    latency: PairedLatency
    stability: Stability
    energy: Energies | NoEnergy


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contest:
    """Who is compared with whom, and what both are fed."""

    reference: Runner
    engine: Runner
    contract: Contract
    num_classes: int
    calibration_images: tuple[str, ...]
    lineage: _Lineage
    classes: tuple[str, ...]
    layers: tuple[LayerPrecision, ...] = ()
    ranges: Mapping[str, float]
    """Calibrated range of each activation; empty without INT8."""
    checks: tuple[Check, ...] = ()
    """Of what the engine runs, before it is run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lineage:
    """What the engine, or its simulation, was made from and for."""

    engine_sha256: str
    reference_sha256: str
    model_sha256: str
    table_sha256: str | None
    target: Target
    precision: Precision
    versions: Mapping[str, str]


def _contest(request: BenchRequest, config: BenchConfig) -> _Contest:
    artifact = load_engine(request.engine)
    manifest = artifact.manifest
    check_profile(request.engine, manifest, config)
    reference, contract, reference_sha256 = _reference(request, manifest)
    if contract != manifest.contract:
        raise MismatchError(
            f"{request.engine} expects {manifest.contract}, but {request.reference} expects "
            f"{contract}: they cannot be judged on the same images. Build the engine again."
        )
    return _Contest(
        reference=reference,
        engine=engine_runner(artifact),
        contract=manifest.contract,
        num_classes=manifest.output.shape[-1] or 0,
        calibration_images=manifest.calibration_images,
        lineage=_Lineage(
            engine_sha256=manifest.engine_sha256,
            reference_sha256=reference_sha256,
            model_sha256=manifest.model_sha256,
            table_sha256=manifest.table_sha256,
            target=manifest.target,
            precision=manifest.precision,
            versions=manifest.versions,
        ),
        classes=manifest.classes,
        layers=manifest.layers,
        ranges=manifest.ranges,
        checks=coverage_checks(artifact),
    )


def _reference(request: BenchRequest, manifest: Manifest) -> tuple[Runner, Contract, str]:
    """Returns the reference's runner, contract and hash; an ONNX model must be the engine's own."""
    if is_engine(request.reference):
        other = load_engine(request.reference)
        if not request.contract.empty:
            raise ConfigError(
                f"{request.reference} is an engine and carries its own preprocessing contract. "
                "Leave the preprocessing options out."
            )
        return engine_runner(other), other.manifest.contract, other.manifest.engine_sha256
    model = describe_model(request.reference)
    if model.sha256 != manifest.model_sha256:
        raise MismatchError(
            f"{request.engine} was built from a model with sha256 "
            f"{manifest.model_sha256[:12]}, but "
            f"{request.reference} is {model.sha256[:12]}: other weights, or exported again since. "
            "Build the engine again from this model, or pass the model that it was built from."
        )
    contract = contract_of(model, request.contract, manifest.contract)
    return model_runner(model), contract, model.sha256


def _simulated(request: BenchRequest) -> _Contest:
    model = describe_model(request.reference)
    table = load_table(request.engine)
    contract = contract_of(model, request.contract, table.contract)
    check_table(table, model, contract)
    network = quantize_for_tensorrt(model, table)
    return _Contest(
        reference=model_runner(model),
        engine=network_runner(network, f"TensorRT's placement, {table.method}, simulated"),
        contract=contract,
        num_classes=model.num_classes,
        calibration_images=table.data.image_hashes,
        lineage=_Lineage(
            engine_sha256=table.sha256,
            reference_sha256=model.sha256,
            model_sha256=model.sha256,
            table_sha256=table.sha256,
            target=Target.TENSORRT,
            precision=Precision.INT8,
            versions={"edgeres": table.edgeres_version},
        ),
        classes=model.classes,
        layers=network.layers,
        ranges=table.ranges,
    )


def _measured(contest: _Contest, dataset: Dataset, config: BenchConfig) -> _Measured:
    """Times both networks under the guard's eye, then meters them."""
    images = _latency_images(contest, dataset, config.latency_batch)
    on_gpu = contest.lineage.target is not Target.ONNXRUNTIME
    with watch(gpu=open_gpu() if on_gpu else None) as guard:
        latency = benchmark_pair(contest.reference, contest.engine, images, config)
    return _Measured(
        latency=latency,
        stability=guard.report(),
        energy=measure_energies(
            contest.reference, contest.engine, images, partial(open_meter, gpu=on_gpu)
        )
        if config.energy
        else NoEnergy(reason="It was not asked for (--no-energy)."),
    )


def _loadgen(
    contest: _Contest, dataset: Dataset, config: LoadGenConfig | None, logs: Path | None
) -> LoadGenResult | None:
    """Lets LoadGen drive the engine on images in memory, where that is asked for."""
    if config is None:
        return None
    count = min(config.images, len(dataset))
    images = _latency_images(contest, dataset, count)
    return run_loadgen(contest.engine, images, config, logs)


def _latency_images(contest: _Contest, dataset: Dataset, wanted: int) -> NDArray[np.float32]:
    if len(dataset) < wanted:
        raise DataError(
            f"A latency batch of {wanted} needs as many images; the data has {len(dataset)}. "
            "Pass a smaller --latency-batch or more images."
        )
    few = take(dataset, np.arange(wanted))
    return next(iter(batches(few, contest.contract, batch_size=wanted))).images


def _with_measurement(
    verdict: Comparison, measured: _Measured | None, config: BenchConfig
) -> Comparison:
    if measured is None:
        return replace(verdict, energy_reason="The engine was not run on its target.")
    verdict = with_stability(verdict, measured.stability, config)
    if isinstance(measured.energy, NoEnergy):
        return replace(verdict, energy_reason=measured.energy.reason)
    return replace(verdict, energy=measured.energy)


def _provenance(
    request: BenchRequest, lineage: _Lineage, data: DataRecord, started: datetime
) -> Provenance:
    return Provenance(
        command=request.command,
        started=started.isoformat(timespec="seconds"),
        engine=FileRecord(path=str(request.engine), sha256=lineage.engine_sha256),
        reference=FileRecord(path=str(request.reference), sha256=lineage.reference_sha256),
        model_sha256=lineage.model_sha256,
        table_sha256=lineage.table_sha256,
        data=data,
        target=lineage.target.value,
        precision=lineage.precision.value,
        versions=lineage.versions,
    )


def _warnings(again: int, samples: int) -> tuple[str, ...]:
    if not again:
        return ()
    return (
        f"{again} of the {samples} images were also used for calibration: the accuracy of the "
        "engine on them is flattered. Judge on images that calibration has not seen.",
    )

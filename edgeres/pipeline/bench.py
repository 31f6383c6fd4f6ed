"""An engine, its reference and labelled images to a verdict."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeres.artifacts import (
    EngineArtifact,
    Manifest,
    OnnxArtifact,
    is_engine,
    load_engine,
    load_table,
    manifest_path,
)
from edgeres.benchmark import benchmark_pair
from edgeres.compare import compare, paired_accuracy
from edgeres.contract import NO_OPTIONS, Contract, ContractOptions
from edgeres.data import Dataset, batches, check_labels, load_dataset, select, take
from edgeres.environment import describe_machine
from edgeres.errors import ConfigError, DataError, MismatchError
from edgeres.evaluate import evaluate_pair, found_again
from edgeres.model_file import describe_model
from edgeres.pipeline.calibrate import contract_of
from edgeres.pipeline.plans import reference_engine, trusted_plan
from edgeres.pipeline.track import Track, untracked
from edgeres.quantize import check_table, quantize_for_tensorrt
from edgeres.results import Comparison, PairedLatency
from edgeres.runners import Runner, engine_runner, model_runner, network_runner
from edgeres.spec import BenchConfig, Target, Timing


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
    if request.simulate and config.min_speedup is not None:
        raise ConfigError(
            "--min-speedup needs a latency, and --simulate measures none. Leave one of them out."
        )
    contest = _simulated(request) if request.simulate else _contest(request)
    _check_timing(contest, config)
    labelled = load_dataset(request.data)
    check_labels(labelled, contest.num_classes)
    dataset = select(labelled, config.samples, config.seed)
    with contest.reference as reference, contest.engine as engine:
        with closing(batches(dataset, contest.contract, batch_size=config.batch_size)) as stream:
            outcomes = evaluate_pair(reference, engine, track(stream, len(dataset), "Judging"))
        latency = None if request.simulate else _latency(contest, dataset, config)
    again = found_again(outcomes.hashes, contest.calibration_images)
    environment = {
        **describe_machine().to_dict(),
        "engine": engine.name,
        "reference": reference.name,
    }
    return compare(
        paired_accuracy(outcomes), latency, config, environment, _warnings(again, len(dataset))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contest:
    """Who is compared with whom, and what both are fed."""

    reference: Runner
    engine: Runner
    contract: Contract
    num_classes: int
    calibration_images: tuple[str, ...]
    model: OnnxArtifact | None = None
    """The reference, where it is an ONNX file."""
    target: Target = Target.ONNXRUNTIME


def _engine(request: BenchRequest) -> EngineArtifact:
    """Returns the engine, or on the user's word a plan that has no manifest."""
    if not request.trust or manifest_path(request.engine).exists():
        return load_engine(request.engine)
    if is_engine(request.reference):
        raise ConfigError(
            f"--trust takes the preprocessing of {request.engine} from the reference, which has to "
            "be its ONNX model. Pass that with --reference."
        )
    model = describe_model(request.reference)
    return trusted_plan(request.engine, model, contract_of(model, request.contract, None))


def _contest(request: BenchRequest) -> _Contest:
    artifact = _engine(request)
    manifest = artifact.manifest
    reference, contract = _reference(request, manifest)
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
        model=None if is_engine(request.reference) else describe_model(request.reference),
        target=manifest.target,
    )


def _reference(request: BenchRequest, manifest: Manifest) -> tuple[Runner, Contract]:
    """Returns the reference's runner and its contract; an ONNX model must be the engine's own."""
    if is_engine(request.reference):
        other = load_engine(request.reference)
        if not request.contract.empty:
            raise ConfigError(
                f"{request.reference} is an engine and carries its own preprocessing contract. "
                "Leave the preprocessing options out."
            )
        return engine_runner(other), other.manifest.contract
    model = describe_model(request.reference)
    if model.sha256 != manifest.model_sha256:
        raise MismatchError(
            f"{request.engine} was built from a model with sha256 "
            f"{manifest.model_sha256[:12]}, but "
            f"{request.reference} is {model.sha256[:12]}: other weights, or exported again since. "
            "Build the engine again from this model, or pass the model that it was built from."
        )
    return model_runner(model), contract_of(model, request.contract, manifest.contract)


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
    )


def _check_timing(contest: _Contest, config: BenchConfig) -> None:
    """Refuses a mode of the GPU's before any image is judged."""
    if config.timing is not Timing.END_TO_END and contest.target is Target.ONNXRUNTIME:
        raise ConfigError(
            f"--timing {config.timing} needs a GPU, and {contest.engine.name} has none. Use "
            f"--timing {Timing.END_TO_END}, or build the engine with --target tensorrt."
        )


def _latency(contest: _Contest, dataset: Dataset, config: BenchConfig) -> PairedLatency:
    wanted = config.latency_batch
    if len(dataset) < wanted:
        raise DataError(
            f"A latency batch of {wanted} needs as many images; the data has {len(dataset)}. "
            "Pass a smaller --latency-batch or more images."
        )
    few = take(dataset, np.arange(wanted))
    images = next(iter(batches(few, contest.contract, batch_size=wanted))).images
    if contest.model is None or contest.target is Target.ONNXRUNTIME:
        return benchmark_pair(contest.reference, contest.engine, images, config)
    alike = reference_engine(contest.model, contest.contract, contest.target, batch=wanted)
    with engine_runner(alike) as reference:
        return benchmark_pair(reference, contest.engine, images, config)


def _warnings(again: int, samples: int) -> tuple[str, ...]:
    if not again:
        return ()
    return (
        f"{again} of the {samples} images were also used for calibration: the accuracy of the "
        "engine on them is flattered. Judge on images that calibration has not seen.",
    )

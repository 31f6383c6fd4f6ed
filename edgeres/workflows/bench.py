"""An engine, its reference and labelled images to a verdict."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime, timezone

from edgeres.core.bench_requests import BenchConfig
from edgeres.core.verdict import (
    DataRecord,
    Environment,
    FileRecord,
    Provenance,
    Verdict,
    load_run,
)
from edgeres.errors import ConfigError
from edgeres.evaluation.compare import paired_accuracy
from edgeres.evaluation.evaluate import Outcomes, evaluate_pair
from edgeres.evaluation.loadgen import check_loadgen
from edgeres.evaluation.regression import check_same_images
from edgeres.evaluation.verdict import NOT_RUN, build_verdict
from edgeres.images import batches, check_labels, load_dataset, select
from edgeres.machine import describe_machine
from edgeres.progress import Progress, silent, tracked_batches
from edgeres.workflows.bench_pair import BenchRequest, Lineage, check_timing, find_contest
from edgeres.workflows.measure import drive, measure
from edgeres.workflows.validity import check_validity


def bench_engine(
    request: BenchRequest, config: BenchConfig, *, progress: Progress = silent
) -> Verdict:
    """Returns the verdict on an engine: accuracy and latency against the reference.

    Raises:
        MismatchError: the engine does not belong to the reference, the images or this machine.
        DataError: the images or labels cannot be used.
        RunnerError: inference failed or gave NaN.
        ConfigError: a limit that nothing will be measured for.
        ArtifactError: files cannot be read.
        DependencyError: a scenario is asked for, and LoadGen is not installed.
    """
    _check_request(request, config)
    started = datetime.now(timezone.utc)
    baseline = None if request.baseline is None else load_run(request.baseline)
    contest = find_contest(request, config)
    check_timing(contest, config)
    labelled = load_dataset(request.data)
    check_labels(labelled, contest.num_classes)
    dataset = select(labelled, config.samples, config.seed)
    with contest.reference as reference, contest.engine as engine:
        with closing(batches(dataset, contest.contract, batch_size=config.batch_size)) as stream:
            outcomes = evaluate_pair(
                reference, engine, tracked_batches(stream, len(dataset), "Evaluating", progress)
            )
        if baseline is not None:
            check_same_images(outcomes.fingerprint, baseline)
        measured = None if request.simulate else measure(contest, dataset, config)
        loadgen = drive(contest, dataset, config.loadgen, request.loadgen_logs)
        validity = check_validity(request.reference, contest, labelled, outcomes, config, progress)
    return build_verdict(
        config,
        accuracy=paired_accuracy(outcomes, dataset.image_name),
        environment=Environment(
            machine=describe_machine(), engine_name=engine.name, reference_name=reference.name
        ),
        provenance=_provenance(request, contest.lineage, outcomes, config.seed, started),
        latency=None if measured is None else measured.latency,
        stability=None if measured is None else measured.stability,
        energy=NOT_RUN if measured is None else measured.energy,
        loadgen=loadgen,
        coverage=contest.checks,
        validity=validity,
        baseline=baseline,
        layers=contest.layers,
        classes=contest.classes,
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


def _provenance(
    request: BenchRequest, lineage: Lineage, outcomes: Outcomes, seed: int, started: datetime
) -> Provenance:
    return Provenance(
        command=request.command,
        started=started.isoformat(timespec="seconds"),
        engine=FileRecord(path=str(request.engine), sha256=lineage.engine_sha256),
        reference=FileRecord(path=str(request.reference), sha256=lineage.reference_sha256),
        model_sha256=lineage.model_sha256,
        table_sha256=lineage.table_sha256,
        data=DataRecord(
            path=str(request.data),
            fingerprint=outcomes.fingerprint,
            samples=len(outcomes.labels),
            seed=seed,
        ),
        target=lineage.target,
        precision=None if lineage.precision is None else lineage.precision.value,
        versions=lineage.versions,
    )

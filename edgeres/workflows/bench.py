"""An engine, its reference and labelled images to a verdict."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import datetime, timezone

from edgeres.core.bench_requests import BenchConfig
from edgeres.core.verdict import (
    DataRecord,
    Environment,
    FileRecord,
    PastRun,
    Provenance,
    Verdict,
    load_run,
    run_of,
)
from edgeres.errors import ConfigError
from edgeres.evaluation.compare import compare, paired_accuracy, with_loadgen, with_stability
from edgeres.evaluation.evaluate import Outcomes, evaluate_pair, found_again
from edgeres.evaluation.loadgen import check_loadgen
from edgeres.evaluation.regression import against_baseline, baseline_checks, check_same_images
from edgeres.images import Dataset, batches, check_labels, load_dataset, select
from edgeres.machine import NoEnergy, describe_machine
from edgeres.progress import Progress, silent, tracked_batches
from edgeres.workflows.bench_pair import BenchRequest, Contest, Lineage, check_timing, find_contest
from edgeres.workflows.measure import Measured, drive, measure
from edgeres.workflows.validity import Judged, find_doubts, with_doubts


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
        judged = _judged(request, contest, labelled)
        doubts = find_doubts(reference, outcomes.reference, judged, config, progress)
    accuracy = paired_accuracy(outcomes, dataset.image_name)
    latency = None if measured is None else measured.latency
    environment = Environment(
        machine=describe_machine(), engine_name=engine.name, reference_name=reference.name
    )
    provenance = _provenance(request, contest.lineage, outcomes, config.seed, started)
    warnings = _warnings(outcomes, contest)
    verdict = compare(accuracy, latency, config, environment, provenance, warnings)
    verdict = replace(
        verdict,
        layers=contest.layers,
        classes=contest.classes,
        checks=(*contest.checks, *verdict.checks),
    )
    verdict = with_doubts(_with_measurement(verdict, measured, config), doubts)
    if loadgen is not None:
        verdict = with_loadgen(verdict, loadgen, config)
    return verdict if baseline is None else _with_baseline(verdict, baseline, config)


def _judged(request: BenchRequest, contest: Contest, labelled: Dataset) -> Judged:
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


def _with_measurement(verdict: Verdict, measured: Measured | None, config: BenchConfig) -> Verdict:
    if measured is None:
        return replace(verdict, energy_reason="The engine was not run on its target.")
    verdict = with_stability(verdict, measured.stability, config)
    if isinstance(measured.energy, NoEnergy):
        return replace(verdict, energy_reason=measured.energy.reason)
    return replace(verdict, energy=measured.energy)


def _with_baseline(verdict: Verdict, baseline: PastRun, config: BenchConfig) -> Verdict:
    run = run_of(verdict, "this run")
    regression = against_baseline(run, baseline)
    checks = baseline_checks(regression, config.max_slowdown)
    return replace(verdict, regression=regression, checks=(*verdict.checks, *checks))


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


def _warnings(outcomes: Outcomes, contest: Contest) -> tuple[str, ...]:
    again = found_again(outcomes.hashes, contest.calibration_images)
    if not again:
        return ()
    return (
        f"{again} of the {len(outcomes.labels)} images were also used for calibration: the "
        "accuracy of the engine on them is flattered. Judge on images that calibration has not "
        "seen.",
    )

"""Every combination of a sweep to an engine and a verdict, in a folder that can be resumed.

A combination is done when its verdict is there, an engine when its manifest is: both appear whole
or not at all, so whatever was killed is begun again and nothing else is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeres.core.artifacts import load_engine, manifest_path
from edgeres.core.bench_requests import BenchInputs
from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest, CalibrationRequest
from edgeres.core.sweep import Sweep, SweepCase, SweepInputs, SweepPlan, SweepRequest, SweepRun
from edgeres.core.verdict import PastRun, load_run
from edgeres.errors import ArtifactError, ConfigError, EdgeresError
from edgeres.estimation.arithmetic import Arithmetic
from edgeres.estimation.estimate import EstimateRequest, estimate_network
from edgeres.estimation.network import network_of
from edgeres.evaluation.fronts import Point, standings
from edgeres.files import make_folder, write_report
from edgeres.machine import has_nvidia_gpu
from edgeres.machine.board_names import board_called
from edgeres.onnx_file import load_fp32
from edgeres.progress import Progress, silent
from edgeres.report.sweep import sweep_markdown, sweep_page
from edgeres.serialization import load_document, save_json
from edgeres.targets.base import Target, find_target
from edgeres.workflows.bench import bench_engine
from edgeres.workflows.build import BuildInputs, SelectionData, build_from_model
from edgeres.workflows.calibrate import calibrate_model

PLAN = "plan.json"
RESULT = "sweep.json"
_STAGE = "Sweeping"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """A combination with the run that its verdict holds."""

    case: SweepCase
    run: PastRun


def run_sweep(inputs: SweepInputs, request: SweepRequest, *, progress: Progress = silent) -> Sweep:
    """Builds, benches and compares every combination that its target has.

    What the folder holds already is kept; without a GPU, combinations of its targets are
    estimated where a board is named.

    Raises:
        ConfigError: nothing to do, a combination without what it needs, or the folder is another
            sweep's.
        EdgeresError: what build-engine and bench raise.
    """
    cases = tuple(_cases(request))
    quantizes = any(case.precision.quantizes for case in cases)
    _check(inputs, request, cases, quantizes=quantizes)
    model = load_fp32(inputs.model)
    for folder in (inputs.output, inputs.output / "engines", inputs.output / "verdicts"):
        make_folder(folder)
    _check_plan(inputs, request, model.artifact.sha256)
    table = _table(inputs, progress) if quantizes else None
    measured: list[_Measured] = []
    others: list[SweepRun] = []
    for done, case in enumerate(cases):
        progress(_STAGE, done, len(cases), case.name)
        if reason := _obstacle(find_target(case.target)):
            others.append(_elsewhere(inputs, request, case, reason))
            continue
        verdict = _verdict_path(inputs, case)
        if not verdict.exists():
            _bench(inputs, request, case, _built(inputs, request, case, table), verdict)
        measured.append(_Measured(case=case, run=load_run(verdict)))
    progress(_STAGE, len(cases), len(cases), "done")
    by_name = {run.name: run for run in (*_standing(measured), *others)}
    sweep = Sweep(
        model_sha256=model.artifact.sha256, runs=tuple(by_name[case.name] for case in cases)
    )
    save_json(inputs.output / RESULT, sweep)
    write_report(inputs.output / "sweep.md", sweep_markdown(sweep))
    write_report(inputs.output / "index.html", sweep_page(sweep))
    return sweep


def _cases(request: SweepRequest) -> Iterator[SweepCase]:
    """Yields the combinations that the targets have."""
    for name in request.targets:
        target = find_target(name)
        for precision in (p for p in request.precisions if p in target.precisions):
            methods: Sequence[Method | None] = request.methods or (None,)
            for method in methods if precision.quantizes else (None,):
                for batch in request.batches:
                    yield SweepCase(target=name, precision=precision, method=method, batch=batch)


def _check(
    inputs: SweepInputs, request: SweepRequest, cases: Sequence[SweepCase], *, quantizes: bool
) -> None:
    """Refuses a sweep that lacks something, before anything is built."""
    if not cases:
        have = "; ".join(f"{n}: {', '.join(find_target(n).precisions)}" for n in request.targets)
        raise ConfigError(f"No target has any of these precisions. They have: {have}.")
    if quantizes and inputs.table is None and inputs.calibration_data is None:
        raise ConfigError(
            "int8 and mixed need ranges. Pass --calibration TABLE.json from edgeres calibrate, or "
            "--calib-data PATH, other images than --data."
        )
    mixed = any(case.precision is Precision.MIXED for case in cases)
    complete = inputs.selection_data is not None and request.max_drop_pp is not None
    if mixed and not complete:
        raise ConfigError(
            "mixed needs --judge-data, labelled images, and --max-drop, its budget in percentage "
            "points. Pass both, or leave mixed out."
        )


def _check_plan(inputs: SweepInputs, request: SweepRequest, model_sha256: str) -> None:
    """Writes what the folder belongs to; a folder that has it already must be of the same."""
    bench, table = request.bench, inputs.table
    plan = SweepPlan(
        model_sha256=model_sha256,
        table_sha256=None if table is None else hashlib.sha256(table.read_bytes()).hexdigest(),
        data=str(inputs.data.resolve()),
        calibration_data=_resolved(inputs.calibration_data),
        selection_data=_resolved(inputs.selection_data),
        max_drop_pp=request.max_drop_pp,
        samples=bench.samples,
        seed=bench.seed,
        iterations=bench.iterations,
        warmup=bench.warmup,
        timing=str(bench.timing),
        streams=bench.streams,
    )
    path = inputs.output / PLAN
    if not path.exists():
        save_json(path, plan)
        return
    saved = load_document(path, SweepPlan, remedy="Pass another folder with -o.")
    for name in SweepPlan.__dataclass_fields__:
        before, now = getattr(saved, name), getattr(plan, name)
        if before != now:
            raise ConfigError(
                f"{inputs.output} is the folder of another sweep: its {name} is {before}, this "
                f"one's is {now}. Pass another folder with -o, or the same options to resume."
            )


def _resolved(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())


def _table(inputs: SweepInputs, progress: Progress) -> Path:
    """Returns the table's file, calibrated into the folder where images were given."""
    if inputs.table is not None:
        return inputs.table
    path = inputs.output / "table.json"
    if not path.exists() and inputs.calibration_data is not None:
        calibrate_model(
            inputs.model,
            inputs.calibration_data,
            CalibrationRequest(),
            output=path,
            progress=progress,
        )
    return path


def _obstacle(target: Target) -> str | None:
    """Returns why a target cannot run on this machine; None where it can."""
    if not target.is_installed():
        return f"{target.name} is not installed here"
    if target.uses_gpu and not has_nvidia_gpu():
        return f"{target.name} needs an NVIDIA GPU, and this machine shows none"
    return None


def _verdict_path(inputs: SweepInputs, case: SweepCase) -> Path:
    return inputs.output / "verdicts" / f"{case.name}.json"


def _built(inputs: SweepInputs, request: SweepRequest, case: SweepCase, table: Path | None) -> Path:
    """Returns the engine of a combination, built where the folder does not have it whole."""
    target = find_target(case.target)
    engine = inputs.output / "engines" / f"{case.engine}{target.suffix}"
    if manifest_path(engine).exists():
        try:
            load_engine(engine)
        except ArtifactError:
            # Killed between the two files: it is built again.
            pass
        else:
            return engine
    mixed = case.precision is Precision.MIXED
    build = BuildRequest(
        target=case.target,
        precision=case.precision,
        max_drop_pp=request.max_drop_pp if mixed else None,
    )
    if target.takes_profile:
        build = replace(build, batch=(1, min(request.batches), max(request.batches)))
    selection = None
    if mixed and inputs.selection_data is not None:
        selection = SelectionData(data=inputs.selection_data)
    build_from_model(
        BuildInputs(
            model=inputs.model,
            output=engine,
            table=table if case.precision.quantizes else None,
            selection=selection,
            method=case.method,
        ),
        build,
    )
    return engine


def _bench(
    inputs: SweepInputs, request: SweepRequest, case: SweepCase, engine: Path, output: Path
) -> None:
    """Benches an engine and writes its verdict."""
    bench = BenchInputs(engine=engine, reference=inputs.model, data=inputs.data)
    config = replace(request.bench, latency_batch=case.batch)
    save_json(output, bench_engine(bench, config))


def _standing(measured: Sequence[_Measured]) -> Iterator[SweepRun]:
    """Yields the measured runs with their places on the fronts."""
    points = [
        Point(
            name=one.case.name,
            group=one.case.batch,
            top1=one.run.top1,
            latency_ms=None if one.run.latency is None else one.run.latency.engine.p50_ms,
            images_per_s=None
            if one.run.throughput is None
            else one.run.throughput.engine_images_per_s,
        )
        for one in measured
    ]
    for one, point, place in zip(measured, points, standings(points), strict=True):
        yield SweepRun(
            name=one.case.name,
            precision=one.case.precision,
            method=one.case.method,
            batch=one.case.batch,
            target=one.case.target,
            board=None,
            verdict=f"verdicts/{one.case.name}.json",
            outcome=None if one.run.outcome is None else str(one.run.outcome),
            top1=one.run.top1,
            p50_ms=point.latency_ms,
            images_per_s=point.images_per_s,
            streams=None if one.run.throughput is None else one.run.throughput.streams,
            estimated=False,
            on_front=place.on_latency_front or place.on_throughput_front,
            on_latency_front=place.on_latency_front,
            on_throughput_front=place.on_throughput_front,
            dominated_by=place.dominated_by,
            reason="",
        )


def _elsewhere(
    inputs: SweepInputs, request: SweepRequest, case: SweepCase, reason: str
) -> SweepRun:
    """Returns a run that cannot be made here: an estimate where a board is named."""
    run = SweepRun(
        name=case.name,
        precision=case.precision,
        method=case.method,
        batch=case.batch,
        target=case.target,
        board=request.board,
        verdict=None,
        outcome=None,
        top1=None,
        p50_ms=None,
        images_per_s=None,
        streams=None,
        estimated=False,
        on_front=False,
        on_latency_front=False,
        on_throughput_front=False,
        dominated_by=(),
        reason=reason,
    )
    if request.board is None:
        return replace(run, reason=f"{reason}; --board NAME would estimate it")
    # Which layers a search would keep from INT8 is not known without it.
    if case.precision is Precision.MIXED:
        return replace(run, reason=f"{reason}; what mixed keeps from INT8 is chosen on the target")
    try:
        estimated = EstimateRequest(
            board=board_called(request.board, request.power_mode),
            precisions=(Arithmetic(str(case.precision)),),
            batches=(case.batch,),
        )
    except EdgeresError as error:
        return replace(run, reason=f"{reason}; {error}")
    (one,) = estimate_network(network_of(str(inputs.model)), estimated).estimates
    return replace(run, estimated=True, p50_ms=one.latency_ms, images_per_s=one.images_per_s)

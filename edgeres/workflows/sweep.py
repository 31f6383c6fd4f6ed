"""Every combination of a sweep to an engine and a verdict, in a folder that can be resumed.

A combination is done when its verdict is there, an engine when its manifest is: both appear whole
or not at all, so whatever was killed is begun again and nothing else is.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from edgeres.core.artifacts import load_engine, manifest_path
from edgeres.core.bench_requests import BenchInputs, BenchRequest
from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest, CalibrationRequest
from edgeres.core.sweep import Sweep, SweepCase, SweepInputs, SweepPlan, SweepRequest, SweepRun
from edgeres.core.verdict import load_run
from edgeres.errors import ArtifactError, ConfigError, EdgeresError
from edgeres.estimation.arithmetic import Arithmetic
from edgeres.estimation.estimate import EstimateRequest, estimate_network
from edgeres.estimation.network import network_of
from edgeres.evaluation.sweeps import Measured, board_group, comparable, placed_runs
from edgeres.files import make_folder, write_report
from edgeres.machine.board_names import board_called
from edgeres.onnx_file import load_fp32
from edgeres.progress import Progress, silent
from edgeres.report.sweep import sweep_markdown, sweep_page
from edgeres.serialization import load_document, save_json
from edgeres.targets.base import find_target
from edgeres.workflows.bench import bench_engine
from edgeres.workflows.build import BuildInputs, SelectionData, build_from_model
from edgeres.workflows.calibrate import calibrate_model

PLAN = "plan.json"
RESULT = "sweep.json"
BOARDS = "boards"
"""Folder with one for each board, of what the sweep's own folder has for this machine."""
_STAGE = "Sweeping"


class Place(Protocol):
    """Where engines are built and benched; its methods raise an EdgeresError where they fail."""

    def obstacle(self, target: str) -> str | None:
        """Returns why a target cannot run there; None where it can."""

    def build(self, inputs: BuildInputs, request: BuildRequest) -> None:
        """Builds an engine there, and writes it here."""

    def bench(self, inputs: BenchInputs, request: BenchRequest, output: Path) -> None:
        """Benches an engine there, and writes the verdict here."""


class SweepBoard(Place, Protocol):
    """A board of its own."""

    name: str

    def close(self) -> None:
        """Ends what runs there."""


class _ThisMachine:
    """Where no boards are named."""

    def obstacle(self, target: str) -> str | None:
        return find_target(target).obstacle()

    def build(self, inputs: BuildInputs, request: BuildRequest) -> None:
        build_from_model(inputs, request)

    def bench(self, inputs: BenchInputs, request: BenchRequest, output: Path) -> None:
        save_json(output, bench_engine(inputs, request))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What every board of a sweep does."""

    inputs: SweepInputs
    request: SweepRequest
    cases: tuple[SweepCase, ...]
    tables: Mapping[Precision, Path]
    """Of each precision that has scales."""


def run_sweep(
    inputs: SweepInputs,
    request: SweepRequest,
    *,
    boards: Sequence[SweepBoard] = (),
    progress: Progress = silent,
) -> Sweep:
    """Builds, benches and compares every combination that its target has.

    What the folder holds already is kept; without a GPU, combinations of its targets are
    estimated where a board is named.

    Args:
        inputs: model, images, ranges, and the folder.
        request: the combinations.
        boards: that each run all of them, side by side; empty: this machine does. What fails on a
            board is a run that failed, and the others go on.
        progress: receives how many runs are done.

    Raises:
        ConfigError: nothing to do, a combination without what it needs, or the folder is another
            sweep's.
        EdgeresError: what build-engine and bench raise on this machine.
    """
    cases = tuple(_cases(request))
    quantizes = any(case.precision.quantizes for case in cases)
    _check(inputs, request, cases, quantizes=quantizes)
    model = load_fp32(inputs.model)
    make_folder(inputs.output)
    _check_plan(inputs, request, model.artifact.sha256)
    tables = _tables(inputs, cases, progress)
    work = _Work(inputs=inputs, request=request, cases=cases, tables=tables)
    if boards:
        entries = _run_side_by_side(boards, work, progress)
    else:
        entries = _run_on(_ThisMachine(), None, work, progress)
    measured = tuple(each for each in entries if isinstance(each, Measured))
    groups = comparable(measured) if boards else ()
    # What this machine has measured stands in one table.
    compared = [members for _, members in groups] if boards else [measured]
    placed = {(run.board, run.name): run for each in compared for run in placed_runs(each)}
    sweep = Sweep(
        model_sha256=model.artifact.sha256,
        runs=tuple(
            placed[each.board, each.case.name] if isinstance(each, Measured) else each
            for each in entries
        ),
        groups=tuple(board_group(*group) for group in groups),
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


def _tables(
    inputs: SweepInputs, cases: Sequence[SweepCase], progress: Progress
) -> dict[Precision, Path]:
    """Returns each precision's table, calibrated into the folder where images were given."""
    tables: dict[Precision, Path] = {}
    for precision in (case.precision for case in cases if case.precision.quantizes):
        request = CalibrationRequest.for_engine(precision)
        # A recovery is for one precision, and FP8 has one where it pays.
        own = "table.json" if request == CalibrationRequest() else f"table.{precision}.json"
        path = tables[precision] = inputs.table or inputs.output / own
        if not path.exists() and inputs.calibration_data is not None:
            calibrate_model(
                inputs.model, inputs.calibration_data, request, output=path, progress=progress
            )
    return tables


def _run_side_by_side(
    boards: Sequence[SweepBoard], work: _Work, progress: Progress
) -> tuple[Measured | SweepRun, ...]:
    """Returns the runs of all boards, each of which has a thread here."""
    count, runs, one_by_one = itertools.count(), len(boards) * len(work.cases), threading.Lock()

    def run_on(board: SweepBoard) -> tuple[Measured | SweepRun, ...]:
        def step(stage: str, done: float, total: float, note: str = "") -> None:
            # Each board ends with a step of its own.
            if done < total:
                with one_by_one:
                    progress(stage, next(count), runs, f"{board.name}: {note}")

        return _run_on(board, board.name, work, step)

    with ThreadPoolExecutor(len(boards)) as pool:
        futures = [pool.submit(run_on, board) for board in boards]
        try:
            done = [future.result() for future in futures]
        except BaseException:
            for board in boards:
                board.close()
            raise
    progress(_STAGE, runs, runs, "done")
    return tuple(entry for entries in done for entry in entries)


def _run_on(
    place: Place, name: str | None, work: _Work, progress: Progress
) -> tuple[Measured | SweepRun, ...]:
    """Returns what became of each combination on a board, or on this machine."""
    root = work.inputs.output if name is None else work.inputs.output / BOARDS / name
    for folder in (root, root / "engines", root / "verdicts"):
        make_folder(folder)
    entries: list[Measured | SweepRun] = []
    refused: dict[str, str] = {}
    for done, case in enumerate(work.cases):
        progress(_STAGE, done, len(work.cases), case.name)
        verdict = root / "verdicts" / f"{case.name}.json"
        if not verdict.exists():
            if reason := place.obstacle(case.target):
                entries.append(_elsewhere(work, case, name, reason))
                continue
            try:
                # An engine that cannot be built is not tried for each batch.
                if case.engine in refused:
                    raise ArtifactError(refused[case.engine])
                try:
                    engine = _built(place, work, case, root / "engines")
                except EdgeresError as error:
                    refused[case.engine] = str(error)
                    raise
                bench = BenchInputs(
                    engine=engine, reference=work.inputs.model, data=work.inputs.data
                )
                place.bench(bench, replace(work.request.bench, latency_batch=case.batch), verdict)
            except EdgeresError as error:
                if name is None:
                    raise
                entries.append(replace(_missing(case, name, str(error)), failed=True))
                continue
        where = str(verdict.relative_to(work.inputs.output))
        entries.append(Measured(case=case, run=load_run(verdict), verdict=where, board=name))
    progress(_STAGE, len(work.cases), len(work.cases), "done")
    return tuple(entries)


def _built(place: Place, work: _Work, case: SweepCase, folder: Path) -> Path:
    """Returns the engine of a combination, built where the folder does not have it whole."""
    request, target = work.request, find_target(case.target)
    engine = folder / f"{case.engine}{target.suffix}"
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
    if mixed and work.inputs.selection_data is not None:
        selection = SelectionData(data=work.inputs.selection_data)
    place.build(
        BuildInputs(
            model=work.inputs.model,
            output=engine,
            table=work.tables.get(case.precision),
            selection=selection,
            method=case.method,
        ),
        build,
    )
    return engine


def _missing(case: SweepCase, board: str | None, reason: str) -> SweepRun:
    """Returns a run without a figure."""
    return SweepRun(
        name=case.name,
        precision=case.precision,
        method=case.method,
        batch=case.batch,
        target=case.target,
        board=board,
        reason=reason,
    )


def _elsewhere(work: _Work, case: SweepCase, board: str | None, reason: str) -> SweepRun:
    """Returns a run that cannot be made there: an estimate where a board is named to estimate for."""
    request = work.request
    if board is not None:
        return _missing(case, board, reason)
    run = _missing(case, request.board, reason)
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
    (one,) = estimate_network(network_of(str(work.inputs.model)), estimated).estimates
    return replace(run, estimated=True, p50_ms=one.latency_ms, images_per_s=one.images_per_s)

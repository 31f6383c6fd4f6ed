"""A sweep over boards: the runs of one machine, each board's own, whatever fails on one of them."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from commands import refusal, run
from digits import Digits

from edgeres.core.bench_requests import BenchRequest
from edgeres.core.precision import Precision
from edgeres.core.sweep import Sweep, SweepInputs, SweepRequest
from edgeres.errors import ArtifactError, ConfigError
from edgeres.fleet.inputs import job_file, job_input
from edgeres.fleet.inventory import Board
from edgeres.fleet.job import Job, JobError, JobResult
from edgeres.fleet.rack import RackBoard
from edgeres.fleet.status import BoardFacts, BoardStatus
from edgeres.progress import Progress
from edgeres.workflows import run_sweep

FACTS = BoardFacts(
    edgeres="0.1.0", python="3.11", model="a board", gpus=(), jetpack=None, tensorrt=None,
    power_mode="25W", unavailable=(), advice=(), obstacles={"tensorrt": "tensorrt is not there"},
)  # fmt: skip
REQUEST = SweepRequest(
    precisions=(Precision.INT8,),
    targets=("onnxruntime",),
    batches=(1, 2),
    bench=BenchRequest(samples=40, iterations=3, energy=False, streams=1),
)
_ONE_BY_ONE = threading.Lock()


class Carrier:
    """Runs jobs in this process, in a folder with their files alone; counts them."""

    def __init__(self, folder: Path, failing: Callable[[Job], None] = lambda job: None) -> None:
        """Takes where jobs run, and what happens to each."""
        self.folder = folder
        self.failing = failing
        self.jobs: list[str] = []

    def run(
        self, job: Job, sources: Mapping[str, Path], target: Path, progress: Progress
    ) -> JobResult:
        """Runs a job as `boards run` does."""
        self.failing(job)
        self.jobs.append(job.words[0])
        # The folder and standard output are the process's.
        with _ONE_BY_ONE:
            own = self.folder / str(len(self.jobs))
            for file in job.files:
                (own / file.name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(sources[file.sha256], own / file.name)
            for name in job.outputs:
                (own / name).parent.mkdir(parents=True, exist_ok=True)
            before = Path.cwd()
            os.chdir(own)
            try:
                done = run(*job.words)
            finally:
                os.chdir(before)
        there = [name for name in job.outputs if (own / name).exists()]
        for name in there:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(own / name, target / name)
        return JobResult(
            exit_code=done.exit_code,
            signal=None,
            stdout=done.stdout,
            messages=done.stderr,
            outputs=tuple(job_file(own / name, name) for name in there),
            folder=str(own),
        )

    def status(self) -> BoardStatus:
        """What a machine of its own reports."""
        return BoardStatus(holder=None, facts=FACTS)

    def close(self) -> None:
        """Nothing runs on."""


@pytest.fixture
def inputs(digits: Digits, tmp_path: Path) -> SweepInputs:
    """Of a sweep into a new folder."""
    return SweepInputs(
        model=digits.model, data=digits.test, output=tmp_path / "out", table=digits.table
    )


def boards(folder: Path, **failing: Callable[[Job], None]) -> tuple[RackBoard, ...]:
    """Returns boards by name, with what happens to each job on them."""
    rack = []
    for name, happens in failing.items():
        rack.append(RackBoard(name, Carrier(folder / "boards" / name, happens), job_input))
        rack[-1].examine(None)
    return tuple(rack)


def jobs(board: RackBoard) -> list[str]:
    """Returns the commands that ran on a board."""
    carrier = board._carrier
    assert isinstance(carrier, Carrier)
    return carrier.jobs


def fine(job: Job) -> None:
    """Lets a job run."""


def lost(job: Job) -> None:
    """The cable was pulled."""
    raise ArtifactError("desk cannot be reached.")


def failed(sweep: Sweep) -> list[tuple[str | None, str, bool]]:
    """Returns the runs without a figure."""
    return [(run.board, run.reason, run.failed) for run in sweep.runs if run.verdict is None]


def test_each_board_has_the_engines_and_verdicts_of_one_machine(
    inputs: SweepInputs, digits: Digits, tmp_path: Path
) -> None:
    """Byte for byte, with what was requested of bench; the fronts are those of the medians."""
    rack = boards(tmp_path, desk=fine, shelf=fine)
    sweep = run_sweep(inputs, REQUEST, boards=rack)
    assert [(run.board, run.batch) for run in sweep.runs] == [
        ("desk", 1), ("desk", 2), ("shelf", 1), ("shelf", 2),
    ]  # fmt: skip
    assert [jobs(board) for board in rack] == [["build-engine", "bench", "bench"]] * 2
    for run_ in sweep.runs:
        assert run_.verdict is not None
        verdict = json.loads((inputs.output / run_.verdict).read_text())
        assert verdict["accuracy"]["samples"] == 40
        assert verdict["latency"]["batch_size"] == run_.batch
        assert verdict["latency"]["engine"]["samples"] == 3
        assert verdict["throughput"]["measured"]["streams"] == 1
        assert verdict["energy_reason"] == "not requested" or verdict["energy"] is None
        engine = inputs.output / "boards" / str(run_.board) / "engines" / "onnxruntime.int8.onnx"
        assert engine.read_bytes() == digits.engine.read_bytes()
    (group,) = sweep.groups
    assert [board.name for board in group.boards] == ["desk", "shelf"]
    for row in group.runs:
        own = [run.p50_ms or 0.0 for run in sweep.runs if run.batch == row.run.batch]
        assert row.run.p50_ms == pytest.approx(sum(own) / 2)
        assert row.spread_pct == pytest.approx(100 * (max(own) - min(own)) / (sum(own) / 2))
    page = (inputs.output / "index.html").read_text()
    assert "<h2>" in page
    assert "spread %" in (inputs.output / "sweep.md").read_text()


def test_a_lost_board_harms_no_other_and_is_resumed(inputs: SweepInputs, tmp_path: Path) -> None:
    """What the others have measured is kept; the next run does what is missing and nothing else."""
    asked = []

    def lost_at_bench(job: Job) -> None:
        asked.append(job.words[0])
        if job.words[0] == "bench":
            lost(job)

    first = boards(tmp_path / "1", desk=lost_at_bench, shelf=fine)
    sweep = run_sweep(inputs, REQUEST, boards=first)
    assert failed(sweep) == [("desk", "desk cannot be reached.", True)] * 2
    # Once it is lost, nobody waits for it again.
    assert asked == ["build-engine", "bench"]
    again = boards(tmp_path / "2", desk=fine, shelf=lost)
    sweep = run_sweep(inputs, REQUEST, boards=again)
    assert failed(sweep) == []
    assert [jobs(board) for board in again] == [["bench", "bench"], []]


def test_what_fails_on_a_board_is_that_run_alone(inputs: SweepInputs, tmp_path: Path) -> None:
    """A verdict that crashes is one; an engine that cannot be built is not tried for each batch."""
    tried = []

    def crashes(job: Job) -> None:
        if "--latency-batch=1" in job.words:
            raise JobError("On desk the command was ended by SIGSEGV.", 139)

    def refuses(job: Job) -> None:
        tried.append(job.words[0])
        raise JobError("On shelf: no memory.")

    sweep = run_sweep(inputs, REQUEST, boards=boards(tmp_path, desk=crashes, shelf=refuses))
    assert [(board, reason.split()[-1]) for board, reason, _ in failed(sweep)] == [
        ("desk", "SIGSEGV."), ("shelf", "memory."), ("shelf", "memory."),
    ]  # fmt: skip
    assert tried == ["build-engine"]
    assert [run.batch for run in sweep.runs if run.verdict] == [2]


def test_what_a_board_does_not_have_is_no_failure(inputs: SweepInputs, tmp_path: Path) -> None:
    """As on one machine; a board in another power mode than the inventory wants measures nothing."""
    request = replace(REQUEST, targets=("tensorrt",), batches=(1,))
    (desk,) = boards(tmp_path, desk=fine)
    assert failed(run_sweep(inputs, request, boards=(desk,))) == [
        ("desk", "tensorrt is not there", False)
    ]
    wanted = Board(name="desk", host="desk", edgeres="edgeres", tags=(), power_mode="15W")
    desk.examine(wanted)
    other = replace(inputs, output=tmp_path / "other")
    ((_, reason, is_failed),) = failed(
        run_sweep(other, replace(REQUEST, batches=(1,)), boards=(desk,))
    )
    assert (is_failed, jobs(desk)) == (True, [])
    assert "power mode is 25W; the inventory wants 15W" in reason


def test_ctrl_c_ends_all_boards(inputs: SweepInputs, tmp_path: Path) -> None:
    """One that is waited for has its connection closed."""
    closed = threading.Event()

    def ended_by_user(job: Job) -> None:
        raise KeyboardInterrupt

    def waits(job: Job) -> None:
        closed.wait(10)
        raise ArtifactError("The connection was closed.")

    rack = boards(tmp_path, desk=ended_by_user, shelf=waits)
    rack[1]._carrier.close = closed.set  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run_sweep(inputs, REQUEST, boards=rack)
    assert (closed.is_set(), (inputs.output / "sweep.json").exists()) == (True, False)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a\nb"])
def test_a_board_s_name_is_that_of_its_folder(name: str, tmp_path: Path) -> None:
    """And leads nowhere else."""
    with pytest.raises(ConfigError, match="Rename it"):
        RackBoard(name, Carrier(tmp_path), job_input)


def test_an_estimate_and_a_measurement_are_not_both_had(digits: Digits, tmp_path: Path) -> None:
    """The board that --board names is not at hand; the one of --on is."""
    line = "sweep {model} --data {test} --calibration {table} -o {out} --on desk --board orin-nx-16"
    words = digits.words(line, out=tmp_path / "out")
    assert "orin-nx-16 is to be estimated, and --on measures" in refusal(*words, code=2)
    assert not (tmp_path / "out").exists()

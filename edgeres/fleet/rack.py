"""Boards that a sweep measures on: each combination as jobs of `build-engine` and `bench`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Protocol

from edgeres.core.artifacts import manifest_path
from edgeres.core.bench_requests import BenchInputs, BenchRequest
from edgeres.core.requests import BuildRequest
from edgeres.core.verdict import load_verdict
from edgeres.errors import ConfigError, EdgeresError
from edgeres.files import atomic_write
from edgeres.fleet.cluster import open_cluster
from edgeres.fleet.inputs import JobInput, job_input
from edgeres.fleet.inventory import Board
from edgeres.fleet.job import OUTPUTS, Job, JobError, JobResult
from edgeres.fleet.outcome import check_result, holder_here, place_outputs
from edgeres.fleet.scheduler import Scheduler
from edgeres.fleet.ssh import ssh_connection
from edgeres.fleet.status import BoardStatus
from edgeres.fleet.survey import wrong_power_mode
from edgeres.progress import Progress, silent
from edgeres.workflows.build import BuildInputs

_AT_ONCE = 16
"""Boards that are asked at the same time."""


class Carrier(Protocol):
    """What carries jobs to one board."""

    def run(
        self, job: Job, sources: Mapping[str, Path], target: Path, progress: Progress
    ) -> JobResult:
        """Sends what is missing there, runs a job, and brings its outputs back."""

    def status(self) -> BoardStatus:
        """Returns what the board is."""

    def close(self) -> None:
        """Ends what runs there."""


class RackBoard:
    """A board of a sweep; once it is lost, everything on it fails at once."""

    def __init__(
        self, name: str, carrier: Carrier, inputs: Callable[[Path, str], JobInput]
    ) -> None:
        """Asks nothing of the board yet.

        Args:
            name: of the board.
            carrier: an open connection.
            inputs: returns a file or folder, by its role, as a job has it.

        Raises:
            ConfigError: the name cannot be that of a folder.
        """
        if not name.strip(".") or "/" in name or not name.isprintable():
            raise ConfigError(f"The board {name!r:.80} has no name for a folder. Rename it.")
        self.name = name
        self._carrier = carrier
        self._inputs = inputs
        self._obstacles: Mapping[str, str] = {}
        self._lost: EdgeresError | None = None

    def examine(self, wanted: Board | None) -> None:
        """Finds out what can run there; a board that is not as the inventory wants it is lost."""
        try:
            status = self._carrier.status()
        except EdgeresError as error:
            self._lost = error
            return
        self._obstacles = status.facts.obstacles
        if wanted is not None and (problem := wrong_power_mode(wanted, status)):
            self._lost = ConfigError(f"{problem} Set it there, or correct boards.toml.")

    def obstacle(self, target: str) -> str | None:
        """Returns why a target cannot run there; None where it can."""
        return self._obstacles.get(target)

    def build(self, inputs: BuildInputs, request: BuildRequest) -> None:
        """Builds an engine there, and writes it here.

        Raises:
            EdgeresError: it cannot be built there, or the board is lost.
        """
        read = {"model": inputs.model}
        options = [f"--target={request.target}", f"--precision={request.precision}"]
        if isinstance(inputs.table, Path):
            read["calibration"] = inputs.table
        if inputs.method is not None:
            options.append(f"--method={inputs.method}")
        if request.max_drop_pp is not None:
            options.append(f"--max-drop={request.max_drop_pp!r}")
        if inputs.selection is not None:
            read["judge-data"] = inputs.selection.data
        if request.batch != BuildRequest().batch:
            options.append(f"--batch={':'.join(map(str, request.batch))}")
        engine = f"{OUTPUTS}/output/{inputs.output.name}"
        targets = {
            engine: inputs.output,
            str(manifest_path(Path(engine))): manifest_path(inputs.output),
        }
        self._run("build-engine", read, [*options, f"--output={engine}"], targets)

    def bench(self, inputs: BenchInputs, request: BenchRequest, output: Path) -> None:
        """Benches an engine there, and writes the verdict here.

        Raises:
            EdgeresError: it gives no verdict there, or the board is lost.
        """
        read = {"engine": inputs.engine, "reference": inputs.reference, "data": inputs.data}
        options = [f"--iterations={request.iterations}", "--json"]
        for option, value in (
            ("--samples", request.samples),
            ("--latency-batch", request.latency_batch),
            ("--streams", request.streams),
        ):
            if value is not None:
                options.append(f"{option}={value}")
        if not request.energy:
            options.append("--no-energy")
        result = self._run("bench", read, options, {})
        with atomic_write(output) as temporary:
            temporary.write_text(result.stdout, encoding="utf-8")
            # What is no verdict would be taken for one by the next run.
            load_verdict(temporary)

    def close(self) -> None:
        """Ends what runs there."""
        self._lost = ConfigError("The sweep was ended.")
        self._carrier.close()

    def _run(
        self,
        command: str,
        read: Mapping[str, Path],
        options: Sequence[str],
        targets: Mapping[str, Path],
    ) -> JobResult:
        """Runs a command whose first input is its argument, and the others options."""
        if self._lost is not None:
            raise self._lost
        inputs = {role: self._inputs(path, role) for role, path in read.items()}
        (first, *others) = inputs.items()
        words = [command, first[1].word, *(f"--{role}={each.word}" for role, each in others)]
        job = Job(
            words=(*words, *options),
            files=tuple(file for each in inputs.values() for file in each.files),
            outputs=tuple(targets),
            holder=holder_here(),
        )
        sources = {name: path for each in inputs.values() for name, path in each.by_hash.items()}
        with tempfile.TemporaryDirectory(prefix="edgeres-") as folder:
            try:
                result = self._carrier.run(job, sources, Path(folder), silent)
            except JobError:
                raise
            except EdgeresError as error:
                self._lost = error
                raise
            check_result(result, self.name)
            place_outputs(result, targets, Path(folder))
        return result


@contextmanager
def ssh_rack(boards: Sequence[Board]) -> Iterator[tuple[RackBoard, ...]]:
    """Yields boards of an inventory, each behind a connection of its own."""
    inputs = cache(job_input)
    with ExitStack() as connections:
        rack = tuple(
            RackBoard(board.name, connections.enter_context(ssh_connection(board.ssh)), inputs)
            for board in boards
        )
        _examine(rack, boards)
        yield rack


@contextmanager
def cluster_rack(scheduler: Scheduler) -> Iterator[tuple[RackBoard, ...]]:
    """Yields the workers of a scheduler that are meant.

    Raises:
        EdgeresError: as `open_cluster`.
    """
    with open_cluster(scheduler) as cluster:
        shared = cluster.shared_folders()

        @cache
        def inputs(path: Path, role: str) -> JobInput:
            real = path.resolve()
            if any(real.is_relative_to(folder) for folder in shared):
                return JobInput(word=str(real))
            return job_input(path, role)

        rack = tuple(RackBoard(name, one, inputs) for name, one in cluster.boards().items())
        _examine(rack, [None] * len(rack))
        yield rack


def _examine(rack: Sequence[RackBoard], wanted: Sequence[Board | None]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(RackBoard.examine, rack, wanted))

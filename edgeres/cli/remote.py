"""Commands that can run on another machine: `--on`, and the job that a command line becomes."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from edgeres.cli.output import is_quiet, progress_bars, show_error
from edgeres.core.artifacts import load_engine, manifest_path
from edgeres.core.described import save_described
from edgeres.errors import ConfigError, DataError
from edgeres.files import atomic_write, check_outputs
from edgeres.fleet.cluster import Cluster, open_cluster
from edgeres.fleet.inventory import Board, find_boards, inventory_file, load_inventory
from edgeres.fleet.job import INPUTS, OUTPUTS, Job, JobError, JobFile, JobResult, sha256_of
from edgeres.fleet.scheduler import Scheduler
from edgeres.fleet.ssh import SshConnection, ssh_connection
from edgeres.printable import printable
from edgeres.progress import Progress

WRITTEN = frozenset({"output", "html", "markdown", "junit", "emit_trt_cache"})
"""Parameters, of whatever command, whose files it writes."""
_STAY_THERE = frozenset({"loadgen_logs", "timing_cache"})
"""Parameters whose files belong to the machine that runs the command."""
_OF_THIS_MACHINE = frozenset({"on", "scheduler", "plain_tcp", "mixed_python", "verbose", "quiet"})
"""Parameters that a job does not repeat."""
_WORDS = "edgeres.words"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalJob:
    """A job, and where its files are on this machine."""

    job: Job
    sources: dict[str, Path]
    """What is sent, by SHA-256."""
    targets: dict[str, Path]
    """Where the outputs go, by their names in the job."""


class RemoteCommand(click.Command):
    """A command with `--on`, which runs the same line on a board."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Adds the option."""
        super().__init__(*args, **options)
        self.params += [
            click.Option(
                ["--on"],
                metavar="BOARD",
                help="Run on a board of boards.toml, or on [USER@]HOST, over ssh; with --scheduler, "
                "on its worker of that name or tag:NAME.",
            ),
            *scheduler_options(),
        ]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keeps the words, which a job repeats."""
        ctx.meta[_WORDS] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command here, or on the board that `--on` names."""
        scheduler, on = taken_scheduler(ctx), ctx.params.pop("on")
        if on is None and scheduler is None:
            return super().invoke(ctx)
        with (
            progress_bars() as progress,
            tempfile.TemporaryDirectory(prefix="edgeres-") as folder,
            _connection(on, scheduler) as connection,
        ):
            if isinstance(connection, Cluster):
                local = self.job_for(ctx, connection, Path(folder), progress)
            else:
                local = local_job(self, ctx)
            result = connection.run(local.job, local.sources, Path(folder), progress)
            where = on or "the cluster"
            show_result(result, local, where, Path(folder))
        return ctx.exit(result.exit_code)

    def job_for(
        self, ctx: click.Context, cluster: Cluster, folder: Path, progress: Progress
    ) -> LocalJob:
        """Returns the job for a cluster; whatever it needs from there comes to a folder first."""
        return local_job(self, ctx)


def scheduler_options() -> list[click.Parameter]:
    """Returns the options that name a Dask scheduler; `taken_scheduler` reads them."""
    return [
        click.Option(
            ["--scheduler"],
            metavar="ADDRESS",
            help="Run on workers of a Dask scheduler, tls://HOST:PORT.",
        ),
        click.Option(
            ["--plain-tcp"], is_flag=True, help="Allow a scheduler elsewhere without encryption."
        ),
        click.Option(
            ["--mixed-python"],
            is_flag=True,
            help="Allow workers with another minor version of Python.",
        ),
    ]


def taken_scheduler(ctx: click.Context) -> Scheduler | None:
    """Takes the scheduler's options out of a command's parameters.

    Raises:
        ConfigError: what belongs to a scheduler without one, or an address without TLS.
    """
    address = ctx.params.pop("scheduler")
    allowed = {name: ctx.params.pop(name) for name in ("plain_tcp", "mixed_python")}
    if address is None:
        if named := [f"--{name.replace('_', '-')}" for name, given in allowed.items() if given]:
            raise ConfigError(f"{', '.join(named)} belongs to --scheduler ADDRESS. Pass that too.")
        return None
    return Scheduler(address=address, on=ctx.params.get("on"), **allowed)


@contextmanager
def _connection(on: str | None, scheduler: Scheduler | None) -> Iterator[Cluster | SshConnection]:
    """Yields what carries jobs: the cluster, or ssh to the board."""
    if scheduler is not None:
        with open_cluster(scheduler) as cluster:
            yield cluster
    elif on is not None:
        with ssh_connection(one_board(on).ssh) as connection:
            yield connection


def one_board(name: str) -> Board:
    """Returns the one board that `--on` names.

    Raises:
        ConfigError: a tag of several.
        ArtifactError: the inventory is damaged.
    """
    file = inventory_file()
    boards = find_boards(name, () if file is None else load_inventory(file))
    if len(boards) > 1:
        raise ConfigError(
            f"{name} names {len(boards)} boards: {', '.join(board.name for board in boards)}. "
            "Name one of them."
        )
    return boards[0]


def local_job(
    command: click.Command,
    ctx: click.Context,
    *,
    left_out: frozenset[str] = frozenset(),
    by_path: frozenset[str] = frozenset(),
) -> LocalJob:
    """Returns the job of a command line: its words with the paths that they have there.

    Args:
        command: of the line.
        ctx: of its parsing.
        left_out: parameters that the job does not have.
        by_path: parameters whose files are there already, under the same path.

    Raises:
        ConfigError: an option whose files stay where the command runs, or an output that is read.
        DataError: a file that is read is missing.
    """
    words, files, sources, targets = [str(command.name)], [], {}, {}
    read: list[Path] = []
    for parameter, text in typed_parameters(command, ctx, ctx.meta[_WORDS]):
        name = str(parameter.name)
        if name in left_out:
            continue
        if name in _STAY_THERE:
            raise ConfigError(
                f"{parameter.opts[0]} names files of the machine that runs the command. Leave it "
                "out, or run edgeres there."
            )
        if name in by_path:
            text = str(Path(text).resolve())
        elif is_path(parameter):
            path = Path(text)
            if name in WRITTEN:
                text = f"{OUTPUTS}/{name}/{path.name}"
                targets[text] = path
                if name == "output":
                    targets[str(manifest_path(Path(text)))] = manifest_path(path)
            else:
                text = f"{INPUTS}/{name}/{path.name}"
                read.append(path)
                for file, inside in _files_of(path):
                    known = job_file(file, f"{INPUTS}/{name}/{inside}")
                    files.append(known)
                    sources[known.sha256] = file.absolute()
        if isinstance(parameter, click.Option):
            # A short option would take the = for a part of its value.
            option = max(parameter.opts, key=len)
            words.append(f"{option}={text}" if text else option)
        else:
            words.append(text)
    check_outputs(targets.values(), read)
    if any(parameter.name == "recorded_as" for parameter in command.params):
        words.append(f"--recorded-as={ctx.params['data']}")
    job = Job(
        words=tuple(words),
        files=tuple(files),
        outputs=tuple(targets),
        holder=f"{getpass.getuser()}@{socket.gethostname()}",
        columns=shutil.get_terminal_size().columns,
    )
    return LocalJob(job=job, sources=sources, targets=targets)


def job_file(path: Path, name: str) -> JobFile:
    """Returns a file as a job names it.

    Raises:
        DataError: its name cannot be that of a file of a job.
        ArtifactError: it cannot be read.
    """
    try:
        return JobFile(name=name, sha256=sha256_of(path), size=path.stat().st_size)
    except ValueError as error:
        raise DataError(f"{path} cannot be sent: {error}. Rename it.") from error


def is_path(parameter: click.Parameter) -> bool:
    """Returns whether a parameter names a file or a folder."""
    return isinstance(parameter.type, click.Path)


def typed_parameters(
    command: click.Command, ctx: click.Context, words: Sequence[str]
) -> Iterator[tuple[click.Parameter, str]]:
    """Yields what was typed for a command, parameter by parameter, as text; empty for a flag."""
    given, _, order = command.make_parser(ctx).parse_args(list(words))
    for parameter in dict.fromkeys(order):
        name = str(parameter.name)
        if name not in given or name in _OF_THIS_MACHINE:
            continue
        value = given[name]
        if isinstance(parameter, click.Option) and parameter.is_flag:
            if not value and parameter.secondary_opts:
                # --no-energy, say, under its own spelling.
                parameter = click.Option(parameter.secondary_opts[:1], is_flag=True)
            yield parameter, ""
        else:
            for text in value if isinstance(value, list | tuple) else (value,):
                if isinstance(text, str):
                    yield parameter, text


def show_result(result: JobResult, local: LocalJob, on: str, folder: Path) -> None:
    """Shows what a job printed as the command would have, and places what it wrote.

    Raises:
        JobError: it ended with an error.
        ArtifactError: an output cannot be written.
    """
    messages = result.messages
    for there, here in sorted(local.targets.items(), reverse=True):
        messages = messages.replace(there, str(here))
    if not is_quiet():
        for line in _without_error(messages)[0]:
            show_error(line)
    check_result(replace(result, messages=messages), on)
    # A board may send back what was ordered, and nothing else.
    written = {file.name for file in result.outputs} & local.targets.keys()
    for name in sorted(written):
        beside = str(manifest_path(Path(name)))
        if beside in written:
            engine = load_engine(folder / name)
            target = local.targets[name]
            save_described(target, engine.content, manifest_path(target), engine.manifest)
        elif not any(name == str(manifest_path(Path(other))) for other in written):
            with atomic_write(local.targets[name]) as temporary:
                shutil.copyfile(folder / name, temporary)
    click.echo(printable(result.stdout, keep="\n"), nl=False)


def check_result(result: JobResult, on: str) -> None:
    """Checks that a job ended with a result.

    Raises:
        JobError: it ended with an error, or by a signal.
    """
    if result.signal is not None:
        raise JobError(
            f"On {on} the command was ended by {result.signal}. Nothing was written here.",
            result.exit_code,
        )
    if not result.stdout and result.exit_code:
        text = "\n".join(_without_error(result.messages)[1]).removeprefix("Error: ")
        raise JobError(f"On {on}: {text or 'the command failed'}", result.exit_code)


def _without_error(messages: str) -> tuple[list[str], list[str]]:
    """Returns the lines before the error, and those of the error."""
    lines = messages.splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith("Error: ")), len(lines))
    return lines[:first], lines[first:]


def _files_of(path: Path) -> Iterator[tuple[Path, str]]:
    """Yields the files of an input with their paths below its parameter's folder.

    Raises:
        DataError: there is no such file or folder.
    """
    if path.is_dir():
        visited = set()
        for folder, subfolders, names in os.walk(path, followlinks=True):
            # A folder that links lead to twice, or into itself, is sent once.
            real = Path(folder).resolve()
            if real in visited:
                subfolders.clear()
                continue
            visited.add(real)
            for file in (Path(folder) / name for name in sorted(names)):
                if file.is_file():
                    yield file, (path.name / file.relative_to(path)).as_posix()
    elif path.is_file():
        yield path, path.name
        # A manifest belongs to its engine.
        if (manifest := manifest_path(path)).is_file():
            yield manifest, manifest.name
    else:
        raise DataError(f"{path} does not exist. Check the path.")

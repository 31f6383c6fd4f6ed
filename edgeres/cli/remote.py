"""Commands that can run on another machine: `--on`, and the job that a command line becomes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from edgeres.cli.output import is_quiet, progress_bars, show_error
from edgeres.core.artifacts import manifest_path
from edgeres.errors import ConfigError
from edgeres.files import check_outputs
from edgeres.fleet.cluster import Cluster, open_cluster
from edgeres.fleet.inputs import job_input
from edgeres.fleet.inventory import Board, find_boards, inventory_file, load_inventory
from edgeres.fleet.job import OUTPUTS, Job, JobFile, JobResult
from edgeres.fleet.outcome import check_result, holder_here, place_outputs, without_error
from edgeres.fleet.scheduler import Scheduler
from edgeres.fleet.ssh import SshConnection, ssh_connection
from edgeres.plurals import counted
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

    on_help = (
        "Run on a board of boards.toml, or on [USER@]HOST, over ssh; with --scheduler, on its worker "
        "of that name or tag:NAME."
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        """Adds the option."""
        super().__init__(*args, **options)
        self.params += [
            click.Option(["--on"], metavar="BOARD", help=self.on_help),
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


def named_boards(name: str) -> tuple[Board, ...]:
    """Returns the boards that `--on` names: one, or all of a tag.

    Raises:
        ConfigError: no board has the tag.
        ArtifactError: the inventory is damaged.
    """
    file = inventory_file()
    return find_boards(name, () if file is None else load_inventory(file))


def one_board(name: str) -> Board:
    """Returns the one board that `--on` names.

    Raises:
        ConfigError: a tag of several.
        ArtifactError: the inventory is damaged.
    """
    boards = named_boards(name)
    if len(boards) > 1:
        raise ConfigError(
            f"{name} names {counted(len(boards), 'board')}: "
            f"{', '.join(board.name for board in boards)}. Name one of them."
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
    words, targets = [str(command.name)], dict[str, Path]()
    files, sources, read = list[JobFile](), dict[str, Path](), list[Path]()
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
                known = job_input(path, name)
                text = known.word
                read.append(path)
                files += known.files
                sources |= known.by_hash
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
        holder=holder_here(),
        columns=shutil.get_terminal_size().columns,
    )
    return LocalJob(job=job, sources=sources, targets=targets)


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
        for line in without_error(messages)[0]:
            show_error(line)
    check_result(replace(result, messages=messages), on)
    place_outputs(result, local.targets, folder)
    click.echo(printable(result.stdout, keep="\n"), nl=False)

"""`edgeres boards`."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from edgeres.cli.options import PATH, common_options
from edgeres.cli.output import progress_bars, show, show_json, show_status, write_progress
from edgeres.cli.remote import WRITTEN, is_path, typed_parameters
from edgeres.errors import ConfigError
from edgeres.fleet.inventory import FILE, inventory_file, load_inventory
from edgeres.fleet.job import SHARED, Job, check_paths, read_job
from edgeres.fleet.run import run_job
from edgeres.fleet.scheduler import SCHEDULER_TIMEOUT_S, worker_command
from edgeres.fleet.status import board_status
from edgeres.fleet.store import JOB_FILE, Store, default_root
from edgeres.fleet.survey import SurveyedBoard, survey_board
from edgeres.input_files import JSON, read_bytes
from edgeres.progress import tracked

_AT_ONCE = 16
"""Boards that are asked at the same time."""


@click.group()
def boards() -> None:
    """Show the boards of boards.toml, and run the commands that arrive on this one.

    \b
    Example:
      edgeres boards list
      edgeres bench resnet50.int8.plan --reference resnet50.onnx --data val/ --on orin-desk
    """


_inventory_option = click.option(
    "--inventory", type=PATH, help="[default: boards.toml here, or in ~/.config/edgeres]"
)


@boards.command("list")
@_inventory_option
@common_options
def list_command(inventory: Path | None, as_json: bool) -> None:
    """Show each board: whether it can be reached, and who measures on it.

    \b
    Example:
      edgeres boards list
    """
    _survey(inventory, as_json, facts=False)


@boards.command()
@_inventory_option
@common_options
def check(inventory: Path | None, as_json: bool) -> None:
    """Show what each board can do, as edgeres doctor does there.

    \b
    Example:
      edgeres boards check
    """
    _survey(inventory, as_json, facts=True)


def _survey(inventory: Path | None, as_json: bool, *, facts: bool) -> None:
    file = inventory or inventory_file()
    if file is None:
        raise ConfigError(
            f"There is no {FILE} here nor in ~/.config/edgeres. Write one; a board is [NAME] with "
            'host = "USER@HOST".'
        )
    known = load_inventory(file)
    with progress_bars() as progress, ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        replies = [pool.submit(survey_board, board) for board in known]
        surveyed = tuple(each.result() for each in tracked(replies, "Asking boards", progress))
    if as_json:
        show_json({"boards": surveyed})
        return
    from rich.text import Text

    from edgeres.report.tables import plain_table

    table = plain_table("board", *(_FACTS if facts else _STATES))
    for board in surveyed:
        cells = (_FACTS if facts else _STATES).values()
        style = "" if board.reachable and board.problem is None else "yellow"
        table.add_row(Text(board.name, style), *(Text(cell(board)) for cell in cells))
    show(table)
    for board in surveyed:
        if board.problem is not None:
            show_status(f"{board.name}: {board.problem}")


def _fact(name: str) -> Callable[[SurveyedBoard], str]:
    """Returns what reads a fact of a board as text."""

    def read(board: SurveyedBoard) -> str:
        value = getattr(board.facts, name, None)
        return ", ".join(value) if isinstance(value, tuple) else value or "-"

    return read


_STATES: Mapping[str, Callable[[SurveyedBoard], str]] = {
    "host": lambda board: board.host,
    "tags": lambda board: ", ".join(board.tags) or "-",
    "reachable": lambda board: "yes" if board.reachable else "no",
    "held by": lambda board: board.holder or ("nobody" if board.reachable else "-"),
}
_FACTS: Mapping[str, Callable[[SurveyedBoard], str]] = {
    "model": _fact("model"),
    "GPU": _fact("gpus"),
    "JetPack": _fact("jetpack"),
    "TensorRT": _fact("tensorrt"),
    "power mode": _fact("power_mode"),
    "edgeres": _fact("edgeres"),
    "to do first": _fact("advice"),
}


@boards.command()
@click.argument("address")
@click.option("--tag", "tags", multiple=True, metavar="NAME", help="Tag that jobs are placed by.")
@click.option("--name", help="Name of the board. [default: this machine's]")
@click.option(
    "--shared",
    type=PATH,
    multiple=True,
    help="Folder that jobs may read by its path, the same on every machine.",
)
@click.option(
    "--death-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=SCHEDULER_TIMEOUT_S,
    metavar="SECONDS",
    help="End when no scheduler is there for so long.",
)
@click.option("--plain-tcp", is_flag=True, help="Allow a scheduler elsewhere without encryption.")
@common_options
def worker(
    address: str,
    tags: tuple[str, ...],
    name: str | None,
    shared: tuple[Path, ...],
    death_timeout: float,
    plain_tcp: bool,
    as_json: bool,
) -> None:
    """Run the jobs of a Dask scheduler on this board, one at a time, until either is ended.

    Certificates are those of Dask's configuration. A plain `dask worker` with --resources board=1
    does the same.

    \b
    Example:
      edgeres boards worker tls://10.0.0.2:8786 --tag orin-nx --tag jetpack-6
    """
    name = name or socket.gethostname()
    line = worker_command(address, tags, name, death_timeout_s=death_timeout, plain_tcp=plain_tcp)
    folders = os.pathsep.join(str(folder.resolve()) for folder in shared)
    if as_json:
        show_json({"command": line})
        sys.stdout.flush()
    # Dask's own command takes this process over, and its signals.
    os.execve(line[0], line, os.environ | ({SHARED: folders} if folders else {}))


@boards.command(hidden=True)
def receive() -> None:
    """Keep the job on stdin, and print which of its files are missing here."""
    text = sys.stdin.buffer.read()
    show_json(Store(default_root()).receive(read_job(text), text))


@boards.command(hidden=True)
@click.argument("name")
def run(name: str) -> None:
    """Run a job that was received; it ends when stdin does."""
    cancelled = threading.Event()

    def monitor_stdin() -> None:
        # Whoever ordered the job holds the other end, and a lost connection closes it too.
        while os.read(0, 4096):
            pass
        cancelled.set()

    store = Store(default_root())
    folder = store.folder_of(name)
    job = read_job(read_bytes(folder / JOB_FILE, JSON))
    _check_words(job, folder)
    store.lay_out(job, folder)
    threading.Thread(target=monitor_stdin, daemon=True).start()
    show_json(run_job(job, folder, progress=write_progress, cancelled=cancelled))


@boards.command(hidden=True)
@common_options
def status(as_json: bool) -> None:
    """Print who measures on this machine, and what it is, as JSON."""
    show_json(board_status())


def _check_words(job: Job, folder: Path) -> None:
    """Checks that a job's options name no file outside its folder."""
    # The commands know which of their options are paths; a job does not.
    root = click.get_current_context().find_root()
    assert isinstance(root.command, click.Group)
    command = root.command.commands[job.words[0]]
    # Below main's, whose settings decide which options ask for help.
    with click.Context(command, parent=root, info_name=job.words[0]) as context:
        typed = typed_parameters(command, context, job.words[1:])
        paths = [(each.name in WRITTEN, Path(text)) for each, text in typed if is_path(each)]
    check_paths(
        tuple(path for written, path in paths if not written),
        tuple(path for written, path in paths if written),
        folder,
    )

"""`edgeres boards`."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from edgeres.cli.options import PATH, common_options
from edgeres.cli.output import progress_bars, show, show_json, show_status, write_progress
from edgeres.cli.remote import typed_parameters
from edgeres.errors import ConfigError
from edgeres.fleet.inventory import FILE, inventory_file, load_inventory
from edgeres.fleet.job import Job, check_paths, read_job
from edgeres.fleet.run import run_job
from edgeres.fleet.store import JOB_FILE, Store, default_root
from edgeres.fleet.survey import SurveyedBoard, board_status, survey_board
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


@boards.command("list")
@click.option("--inventory", type=PATH, help="[default: boards.toml here, or in ~/.config/edgeres]")
@common_options
def list_command(inventory: Path | None, as_json: bool) -> None:
    """Show each board: whether it can be reached, and who measures on it.

    \b
    Example:
      edgeres boards list
    """
    _survey(inventory, as_json, facts=False)


@boards.command()
@click.option("--inventory", type=PATH, help="[default: boards.toml here, or in ~/.config/edgeres]")
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
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = _FACTS if facts else _STATES
    for name in ("board", *columns):
        table.add_column(name, overflow="fold")
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
    group = click.get_current_context().find_root().command
    assert isinstance(group, click.Group)
    command = group.commands[job.words[0]]
    with click.Context(command, info_name=job.words[0]) as context:
        typed = typed_parameters(command, context, job.words[1:])
        paths = [Path(text) for each, text in typed if isinstance(each.type, click.Path)]
    check_paths(tuple(paths), folder)

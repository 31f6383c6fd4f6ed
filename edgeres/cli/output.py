"""Results to stdout, progress and log to stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import TaskID

    from edgeres.progress import Progress

COMMAND = "edgeres.command"
"""Key of the context's meta that holds the words of the command line."""


def show(renderable: RenderableType) -> None:
    """Prints a rich table or text on stdout."""
    from rich.console import Console  # 40 ms, only for commands that print a table

    Console(file=sys.stdout, highlight=False, soft_wrap=False).print(renderable)


def show_json(value: Any) -> None:
    """Prints the JSON object of a dataclass or a mapping on stdout."""
    from edgeres.serialization import json_text  # msgspec, only for commands that print JSON

    click.echo(json_text(value), nl=False)


def show_status(line: str) -> None:
    """Prints one line on what is being done on stderr, unless the command is quiet."""
    if not is_quiet():
        click.echo(line, err=True)


def command_line() -> tuple[str, ...]:
    """Returns the words of the running command."""
    words: tuple[str, ...] = click.get_current_context().meta[COMMAND]
    return words


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Shows a bar with the time left on stderr for each stage that reports to what it yields."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(stderr=True)
    hidden = is_quiet() or not console.is_terminal
    with Bars(*columns, console=console, transient=True, disable=hidden) as bars:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: float, total: float, note: str = "") -> None:
            if stage not in tasks or done < bars.tasks[-1].completed:
                for task in tasks.values():
                    bars.update(task, visible=False)
                tasks[stage] = bars.add_task(stage, total=total, note=note)
            bars.update(tasks[stage], completed=done, total=total, note=note)

        yield show


def is_quiet() -> bool:
    """Returns whether the running command has -q."""
    context = click.get_current_context(silent=True)
    return bool(context and context.meta.get("edgeres.quiet"))


def log_to_stderr() -> None:
    """Sends the library's log to stderr; warnings and worse unless -v or -q is given."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("edgeres")
    logger.handlers = [handler]
    logger.setLevel(logging.WARNING)

"""Results to stdout, progress and log to stderr."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import RenderableType

S = TypeVar("S", bound=Sized)


def show(renderable: RenderableType) -> None:
    """Prints a rich table or text on stdout."""
    from rich.console import Console  # 40 ms, only for commands that print a table

    Console(file=sys.stdout, highlight=False, soft_wrap=False).print(renderable)


def show_json(value: Mapping[str, Any]) -> None:
    """Prints one JSON object on stdout."""
    click.echo(json.dumps(value, indent=1, allow_nan=False))


def say(line: str) -> None:
    """Prints one line on what is being done on stderr, unless the command is quiet."""
    if not is_quiet():
        click.echo(line, err=True)


def track(stream: Iterable[S], total: int, label: str) -> Iterator[S]:
    """Passes batches on and shows a bar with the time left on stderr."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("done, left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    hidden = is_quiet() or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(label, total=total)
        for batch in stream:
            yield batch
            progress.advance(task, len(batch))


@contextmanager
def searching(label: str) -> Iterator[Callable[[float, str], None]]:
    """Shows a bar with the time left on stderr, moved by what it yields: (share done, text)."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[now]}"),
    )
    console = Console(stderr=True)
    hidden = is_quiet() or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(label, total=1.0, visible=False, now="")
        yield lambda share, now: progress.update(task, completed=share, now=now, visible=True)


def is_quiet() -> bool:
    """Whether the running command was told to be quiet."""
    context = click.get_current_context(silent=True)
    return bool(context and context.meta.get("edgeres.quiet"))


def log_to_stderr() -> None:
    """Sends the library's log to stderr; warnings and worse unless -v or -q say otherwise."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("edgeres")
    logger.handlers = [handler]
    logger.setLevel(logging.WARNING)

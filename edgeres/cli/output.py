"""Results to stdout, progress and log to stderr. Stdout is checked as any output file is."""

from __future__ import annotations

import io
import logging
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from os.path import samestat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeres.errors import ArtifactError, ConfigError
from edgeres.printable import printable, shortened
from edgeres.progress import PROGRESS_VARIABLE, progress_line

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from typing_extensions import Buffer

    from edgeres.cli.progress_display import ProgressDisplay
    from edgeres.progress import Progress

_DEFAULT_WIDTH = 80
"""Columns where the terminal has none to report."""

_STDOUT = 1
"""Its file descriptor."""

COMMAND = "edgeres.command"
"""Key of the context's meta that holds the words of the command line."""

_DISPLAY = "edgeres.display"
"""Key of the context's meta that holds the bars, while there are any."""


def show(renderable: RenderableType) -> None:
    """Prints a rich table or text on stdout."""
    from rich.console import Console  # 40 ms, only for commands that print a table

    # Without highlighting: rich would colour every number, and colour here has a meaning. Without
    # markup and emoji: `[/red]` and `:dog:` are names of classes and files like any other.
    console = Console(file=sys.stdout, highlight=False, soft_wrap=False, markup=False, emoji=False)
    # COLUMNS=0, as some CI systems set it, would print nothing at all.
    if console.width < 1:
        console.width = _DEFAULT_WIDTH
    with _bars_away():
        console.print(_Printable(renderable))


class _Printable:
    """A renderable whose text, line breaks apart, is shown and not obeyed by the terminal."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        # Here text and colours are still apart.
        for segment in console.render(self._inner, options):
            yield segment._replace(text=printable(segment.text, keep="\n"))


def show_json(value: Any) -> None:
    """Prints the JSON object of a dataclass or a mapping on stdout."""
    from edgeres.serialization import json_text  # msgspec, only for commands that print JSON

    # The text ends its own last line.
    click.echo(json_text(value), nl=False)


def show_status(line: str) -> None:
    """Prints one line on what is being done on stderr, unless the command is quiet."""
    if not is_quiet():
        # A status line that nobody can read is no reason to lose the result.
        with suppress(OSError), _bars_away():
            click.echo(shortened(printable(line)), err=True)


def show_error(line: str) -> None:
    """Prints why the command ends on stderr; where stderr fails too, the exit code is what remains."""
    with suppress(OSError):
        click.echo(shortened(printable(" ".join(line.split("\n")))), err=True)


class _Stdout(io.FileIO):
    """Standard output, whose errors explain that a result was lost."""

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            # What follows goes nowhere: the error is raised once, and Python's own flush of the
            # buffer, at exit, does not raise it again.
            with Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), self.fileno())
            # A reader that has enough, as head does, is no error; click ends quietly with 1.
            if isinstance(error, BrokenPipeError):
                raise
            raise _stdout_error(error) from error

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:
            raise _stdout_error(error) from error


def _stdout_error(error: OSError) -> ArtifactError:
    return ArtifactError(
        f"The result was not written to stdout, or not all of it: {error.strerror}. Redirect "
        "stdout to a file or a pipe that takes it, and run again."
    )


@contextmanager
def checked_stdout() -> Iterator[None]:
    """Replaces `sys.stdout` by one that reports what it cannot write, flush or close.

    A stream that a caller has put in the place of the process's own is left alone.

    Raises:
        ArtifactError: something was not written; click's own help and version included.
    """
    original = sys.stdout
    if original is not sys.__stdout__:
        yield
        return
    _reserve_descriptors()
    # Closing this copy reports what a network file system says only then, and leaves the
    # descriptor itself open for what libraries in C print.
    file = _Stdout(os.dup(_STDOUT), "w")
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(file),
        encoding=None if original is None else original.encoding,
        # A file name of no valid Unicode is shown with its bytes.
        errors="backslashreplace",
        line_buffering=file.isatty(),
    )
    try:
        yield
    finally:
        # click hides a stream whose reader has gone, and sets its own in its place.
        stream, sys.stdout = sys.stdout, original
        stream.flush()
        with suppress(BrokenPipeError):
            stream.close()


def _reserve_descriptors() -> None:
    """Opens those of stdin, stdout and stderr that are closed, so that no file gets their number.

    What a library prints could otherwise end up in the engine, for one. stdout is opened for
    reading, so that writing to it is still an error.
    """
    for descriptor, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        # Of the numbers that are free, the system hands out the lowest.
        if (opened := os.open(os.devnull, flags)) != descriptor:
            os.close(opened)


def check_stdout_is_free(paths: Iterable[Path], *, as_json: bool) -> None:
    """Checks that no output of a command goes where its result goes.

    Args:
        paths: that were typed.
        as_json: whether the result is one JSON object, which nothing may stand beside.

    Raises:
        ConfigError: one does, by its own name or another.
    """
    try:
        result = os.fstat(_STDOUT)
    except OSError:
        return
    for path in paths:
        try:
            status = path.stat()
        # Whatever is wrong with a path is reported where it is opened.
        except (OSError, ValueError):
            continue
        # A file is replaced under the result; /dev/null and the like take both.
        taken = stat.S_ISREG(status.st_mode) or (
            as_json and (stat.S_ISFIFO(status.st_mode) or os.isatty(_STDOUT))
        )
        if taken and samestat(status, result):
            raise ConfigError(
                f"{path} is where stdout goes, and both the result and this file would be "
                "written there. Pass another path, or redirect stdout to another file."
            )


def command_line() -> tuple[str, ...]:
    """Returns the words of the running command."""
    words: tuple[str, ...] = click.get_current_context().meta[COMMAND]
    return words


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Shows a bar with the time left on stderr for each stage that reports to what it yields.

    Where another program reads the progress, it is written as lines instead.
    """
    if os.environ.get(PROGRESS_VARIABLE) == "json":
        yield write_progress
        return
    from rich.console import Console

    from edgeres.cli.progress_display import ProgressDisplay  # rich

    console = Console(stderr=True, markup=False, emoji=False)
    # In a log file every redrawn bar would be another line.
    hidden = is_quiet() or not console.is_terminal
    context = click.get_current_context(silent=True)
    meta = {} if context is None else context.meta
    with ProgressDisplay.opened(console, hidden=hidden) as display:
        meta[_DISPLAY] = display
        try:
            yield display
        finally:
            del meta[_DISPLAY]


def _bars_away() -> AbstractContextManager[None]:
    """Takes the bar, where there is one, off the terminal while something is written there."""
    context = click.get_current_context(silent=True)
    display: ProgressDisplay | None = None if context is None else context.meta.get(_DISPLAY)
    return nullcontext() if display is None else display.away()


def write_progress(stage: str, done: float, total: float, note: str = "") -> None:
    """Writes one step to stderr as a line for another program; a `Progress`."""
    # A reader that is gone is no reason to lose the result.
    with suppress(OSError):
        sys.stderr.write(progress_line(stage, done, total, note))
        sys.stderr.flush()


def is_quiet() -> bool:
    """Returns whether the running command has -q."""
    context = click.get_current_context(silent=True)
    return bool(context and context.meta.get("edgeres.quiet"))


class _Handler(logging.Handler):
    """Writes each record to stderr, on a line of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        # A warning that nobody can read is no reason to lose the result.
        with suppress(OSError), _bars_away():
            click.echo(self.format(record), err=True)


class _Formatter(logging.Formatter):
    """One line for each record, whatever names of files it holds."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record as it is shown; a traceback keeps its lines."""
        return printable(super().format(record), keep="\n" if record.exc_info else "")


def log_to_stderr() -> None:
    """Sends the library's log to stderr; warnings and worse unless -v or -q is given."""
    handler = _Handler()
    handler.setFormatter(_Formatter("%(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("edgeres")
    logger.handlers = [handler]
    logger.setLevel(logging.WARNING)

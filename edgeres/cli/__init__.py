"""The command line: a thin shell over `edgeres.workflows`. Nothing imports it.

A command's module is loaded when the command is named, and what it runs when it runs, so that help
and completion answer at once: numpy, onnx, onnxruntime and torch take up to seconds to load.
"""

from __future__ import annotations

import importlib
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from edgeres.cli.output import COMMAND, checked_stdout, log_to_stderr, show_error
from edgeres.errors import ArtifactError, EdgeresError
from edgeres.printable import printable, shortened
from edgeres.processes import split_off
from edgeres.version import __version__

INTERRUPTED = 130
"""Exit code after Ctrl-C. Source: POSIX shells, 128 + SIGINT."""

TERMINATED = 143
"""Exit code after SIGTERM, by the same rule."""


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does: whatever is half-written is removed."""


def _terminate(number: int, frame: FrameType | None) -> None:
    # A second one would interrupt the removal.
    signal.signal(number, signal.SIG_IGN)
    raise _Terminated


def _interrupt(number: int, frame: FrameType | None) -> None:
    # What is sent to a group of processes may come twice: here, and through the one that watches.
    signal.signal(number, lambda *_: signal.signal(number, signal.default_int_handler))
    raise KeyboardInterrupt


_HANDLERS = {
    signal.SIGTERM: (signal.SIG_DFL, _terminate),
    signal.SIGINT: (signal.default_int_handler, _interrupt),
}
"""Each signal's handler in a new process, and the one that stands in its place."""

SHORT_HELP = {
    "export": "Write a trained checkpoint as ONNX.",
    "calibrate": "Collect the ranges of a model's activations on images.",
    "build-engine": "Build an INT8, FP16, FP32 or mixed engine.",
    "bench": "Compare an engine with the FP32 reference.",
    "predict": "Classify images with an engine.",
    "deploy": "Hand an engine on to Triton, DeepStream or a program.",
    "compare": "Set engines side by side: accuracy against latency.",
    "sweep": "Build, bench and compare every combination.",
    "inspect": "Show what a model, table or engine is.",
    "estimate": "Estimate the latency on a board that is not at hand.",
    "explain": "Show what an architecture consists of.",
    "doctor": "Show what this machine can do, and what to install.",
    "boards": "Show the boards that --on reaches over ssh.",
    "demo": "Run the whole path on handwritten digits, offline.",
}
"""What each command is for, in the order of the path; `edgeres --help` loads no command for it."""


class _LazyCommands(Mapping[str, click.Command]):
    """The commands by name, each imported when it is looked up."""

    def __getitem__(self, name: str) -> click.Command:
        if name not in SHORT_HELP:
            raise KeyError(name)
        attribute = name.replace("-", "_")
        command: click.Command = getattr(
            importlib.import_module(f"edgeres.cli.{attribute}"), attribute
        )
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(SHORT_HELP)

    def __len__(self) -> int:
        return len(SHORT_HELP)


@contextmanager
def _escaped() -> Iterator[None]:
    """Lets click's own errors, which repeat what was typed, go through the one escaper."""
    try:
        yield
    except click.ClickException as error:
        error.message = shortened(printable(error.message))  # type: ignore[misc]  # final, and shown as it is
        raise


class _Commands(click.Group):
    """Turns an EdgeresError into its message and exit code, whatever command raised it."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Runs a command line; what stdout did not take ends it with an error.

        The words of the process itself, and not those that a program passes, are run in a child:
        whatever ends that, the exit code is 1 and there is a sentence.
        """
        if not args and options.get("args") is None and (ended := split_off()) is not None:
            if isinstance(ended, str):
                show_error(f"Error: {ended}")
            sys.exit(ended if isinstance(ended, int) else EdgeresError.exit_code)
        before = {}
        # Only a main thread may set a handler, and a caller's own stays.
        if threading.current_thread() is threading.main_thread():
            before = {n: old for n, (old, _) in _HANDLERS.items() if signal.getsignal(n) is old}
        for number in before:
            signal.signal(number, _HANDLERS[number][1])
        try:
            with checked_stdout():
                return super().main(*args, **options)
        except ArtifactError as error:
            show_error(f"Error: {error}")
            sys.exit(error.exit_code)
        finally:
            # What runs this in its own process, as tests do, can be ended afterwards too.
            for number, handler in before.items():
                signal.signal(number, handler)

    def invoke(self, ctx: click.Context) -> Any:
        # Here and not around main(), so that click's own errors keep their usage line and code.
        try:
            with _escaped():
                return super().invoke(ctx)
        except EdgeresError as error:
            show_error(f"Error: {error}")
            ctx.exit(error.exit_code)
        # click would turn it into `Aborted!` and exit code 1.
        except KeyboardInterrupt as error:
            show_error("Interrupted: nothing half-written was left behind.")
            ctx.exit(TERMINATED if isinstance(error, _Terminated) else INTERRUPTED)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keeps the words as they were typed, for what is to be repeated."""
        ctx.meta[COMMAND] = ("edgeres", *args)
        with _escaped():
            return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Lists the commands in the order of the path, not of the alphabet."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the commands' purposes, which click would load every command for."""
        with formatter.section("Commands"):
            formatter.write_dl(list(SHORT_HELP.items()))


@click.group(
    cls=_Commands,
    commands=_LazyCommands(),
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.version_option(__version__, "-V", "--version", prog_name="edgeres")
def main() -> None:
    """Take a trained ResNet to an INT8 or FP16 engine, and prove what it cost and won.

    \b
    The path:
      checkpoint --export--> ONNX --calibrate--> table --build-engine--> engine --bench--> verdict

    \b
    Example:
      edgeres demo
    """
    # Before any command's -v or -q, which change the level that this sets.
    log_to_stderr()

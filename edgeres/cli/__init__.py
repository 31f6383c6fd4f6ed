"""The command line: a thin shell over `edgeres.workflows`. Nothing imports it.

Commands import the pipeline when they run, not before, so that help and completion answer at
once: numpy, onnx, onnxruntime and torch take up to seconds to load.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from edgeres.cli.bench import bench
from edgeres.cli.build_engine import build_engine
from edgeres.cli.calibrate import calibrate
from edgeres.cli.compare import compare
from edgeres.cli.demo import demo
from edgeres.cli.doctor import doctor
from edgeres.cli.explain import explain
from edgeres.cli.export import export
from edgeres.cli.inspect import inspect
from edgeres.cli.output import COMMAND, checked_stdout, log_to_stderr, show_error
from edgeres.errors import ArtifactError, EdgeresError
from edgeres.version import __version__

INTERRUPTED = 130
"""Exit code after Ctrl-C. Source: POSIX shells, 128 + SIGINT."""


class _Commands(click.Group):
    """Turns an EdgeresError into its message and exit code, whatever command raised it."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Runs a command line; what stdout did not take ends it with an error."""
        try:
            with checked_stdout():
                return super().main(*args, **options)
        except ArtifactError as error:
            show_error(f"Error: {error}")
            sys.exit(error.exit_code)

    def invoke(self, ctx: click.Context) -> Any:
        # Here and not around main(), so that click's own errors keep their usage line and code.
        try:
            return super().invoke(ctx)
        except EdgeresError as error:
            show_error(f"Error: {error}")
            ctx.exit(error.exit_code)
        # click would turn it into `Aborted!` and exit code 1.
        except KeyboardInterrupt:
            show_error("Interrupted: nothing half-written was left behind.")
            ctx.exit(INTERRUPTED)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keeps the words as they were typed, for what is to be repeated."""
        ctx.meta[COMMAND] = ("edgeres", *args)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Lists the commands in the order of the path, not of the alphabet."""
        return list(self.commands)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
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


for _command in (export, calibrate, build_engine, bench, compare, inspect, explain, doctor, demo):
    main.add_command(_command)

"""`edgeres sweep`."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from edgeres.cli.options import (
    PATH,
    batch_size,
    common_options,
    gathered,
    request_options,
    separated,
)
from edgeres.cli.output import progress_bars, show, show_error, show_json, show_status
from edgeres.cli.remote import RemoteCommand, named_boards, taken_scheduler
from edgeres.core.bench_requests import BenchRequest
from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.core.sweep import SweepInputs, SweepRequest
from edgeres.errors import ConfigError, EdgeresError
from edgeres.names import known
from edgeres.plurals import counted

if TYPE_CHECKING:
    from edgeres.fleet.scheduler import Scheduler
    from edgeres.workflows.sweep import SweepBoard


class _OnBoards(RemoteCommand):
    """Runs here, and gives its combinations to the boards that `--on` and `--scheduler` name."""

    on_help = (
        "Measure on a board of boards.toml, on [USER@]HOST over ssh, or on all boards of tag:NAME; "
        "with --scheduler, on its workers of that name or tag. [default with --scheduler: all]"
    )

    def invoke(self, ctx: click.Context) -> Any:
        scheduler, on = taken_scheduler(ctx), ctx.params.pop("on")
        if (scheduler or on) and (named := ctx.params["board"] or ctx.params["power_mode"]):
            raise ConfigError(
                f"{named} is to be estimated, and --on measures. Leave out --board and "
                "--power-mode, or --on and --scheduler."
            )
        with ExitStack() as connections:
            ctx.params["boards"] = connections.enter_context(_rack(on, scheduler))
            return click.Command.invoke(self, ctx)


def _rack(
    on: str | None, scheduler: Scheduler | None
) -> AbstractContextManager[tuple[SweepBoard, ...]]:
    """Returns the boards that are named, behind open connections; none means this machine."""
    if on is None and scheduler is None:
        return nullcontext(())
    from edgeres.fleet.rack import cluster_rack, ssh_rack  # what bench needs

    return ssh_rack(named_boards(str(on))) if scheduler is None else cluster_rack(scheduler)


_file = request_options(SweepInputs)
_option = request_options(SweepRequest)
_measurement = request_options(BenchRequest)


@click.command(cls=_OnBoards)
@click.argument("model", type=PATH)
@_file("--data", help="Labelled images.")
@_file("--calibration", "table", help="Table from edgeres calibrate.")
@_file("--calib-data", "calibration_data", help="Images to calibrate on; never those of --data.")
@_option(
    "--precision",
    "precisions",
    default="fp32,int8",
    metavar="NAMES",
    callback=separated(lambda text: known(Precision, text)),
    help="Precisions, separated by commas; a target that lacks one goes without.",
)
@_option(
    "--method",
    "methods",
    default=None,
    metavar="NAMES",
    callback=separated(lambda text: known(Method, text)),
    help="Thresholds to build by, separated by commas. [default: the table's own]",
)
@_option(
    "--target",
    "targets",
    default="onnxruntime",
    metavar="NAMES",
    callback=separated(str),
    help="What runs the engines, separated by commas.",
)
@_option(
    "--batch",
    "batches",
    default="1",
    metavar="N,N",
    callback=separated(batch_size),
    help="Images per inference while latency is measured, separated by commas.",
)
@_file("--judge-data", "selection_data", help="Labelled images that mixed precision is chosen by.")
@_option("--max-drop", "max_drop_pp", metavar="PP", help="Budget of mixed.")
@_option("--board", metavar="NAME", help="Estimate for it where a target cannot run here.")
@_option("--power-mode", metavar="MODE", help="Of --board. [default: the board's own]")
@_measurement("--samples", metavar="N", help="Images to evaluate on. [default: all]")
@_measurement("--iterations", help="Timed inferences of each engine.")
@_measurement(
    "--streams",
    metavar="N",
    help="Measure images a second with N inferences under way. [default: from the latency]",
)
@_file(
    "-o",
    "--output",
    help="Folder of engines, verdicts, table and page; one that exists is resumed.",
)
@common_options
@gathered("inputs", SweepInputs)
# Before the measurement, which has a limit of that name too.
@gathered("request", SweepRequest)
@gathered("measurement", BenchRequest)
def sweep(
    inputs: SweepInputs,
    request: SweepRequest,
    measurement: BenchRequest,
    boards: tuple[SweepBoard, ...],
    as_json: bool,
) -> None:
    """Build, bench and compare MODEL in every combination of precision, method, target and batch.

    A folder gets an engine a precision, method and target, a verdict a combination, sweep.json, a
    table and a page with the Pareto fronts: accuracy against latency within a batch, and against
    images a second. The same line again resumes a sweep that was ended, and repeats nothing. With
    --on tag:NAME every board of that tag runs all combinations, side by side, one at a time each.

    \b
    Example:
      edgeres sweep resnet50.onnx --data val/ --calib-data train/ --batch 1,4,8 -o sweep/
      edgeres sweep resnet50.onnx --data val/ --calibration table.json --precision fp32,int8,mixed \\
        --judge-data held_out/ --max-drop 0.5 -o sweep/
      edgeres sweep resnet50.onnx --data val/ --calibration table.json --target onnxruntime,tensorrt \\
        --board orin-nano-8 -o sweep/
      edgeres sweep resnet50.onnx --data val.npz --calibration table.json --target tensorrt \\
        --on tag:orin-nx -o sweep/
    """
    request = replace(request, bench=replace(measurement, energy=False))
    with progress_bars() as progress:
        from edgeres.workflows import run_sweep  # onnxruntime

        result = run_sweep(inputs, request, boards=boards, progress=progress)
    if as_json:
        show_json(result)
    else:
        from edgeres.report import render_sweep

        show_status(f"{inputs.output}: sweep.json, sweep.md, index.html, engines and verdicts")
        show(render_sweep(result))
    if failed := [run for run in result.runs if run.failed]:
        show_error(
            f"Error: {len(failed)} of {counted(len(result.runs), 'run')} failed, the first on "
            f"{failed[0].board}: {failed[0].reason} The same line tries them again, and repeats "
            "nothing else."
        )
        click.get_current_context().exit(EdgeresError.exit_code)

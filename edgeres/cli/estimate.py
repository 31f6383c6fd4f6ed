"""`edgeres estimate`."""

from __future__ import annotations

from collections.abc import Callable

import click

from edgeres.cli.export import complete_architecture
from edgeres.cli.options import batch_size, common_options, separated, was_typed
from edgeres.cli.output import show, show_json
from edgeres.names import nearest

_PRECISIONS = ("fp32", "fp16", "int8", "fp8")
_TIMINGS = ("compute", "single-stream", "offline", "loop")


def _chosen(
    known: tuple[str, ...],
) -> Callable[[click.Context, click.Parameter, str | None], tuple[str, ...]]:
    """Returns a callback that splits names by commas and checks each."""

    def one(text: str) -> str:
        if text.lower() not in known:
            hint = nearest(text.lower(), known)
            raise click.BadParameter(f"{text!r} is none of {', '.join(known)}.{hint}")
        return text.lower()

    return separated(one)


@click.command()
@click.argument("model", metavar="MODEL|ARCH", required=False, shell_complete=complete_architecture)
@click.option("--board", metavar="NAME", help="Such as orin-nano-8 or t4; see --list-boards.")
@click.option(
    "--power-mode", metavar="MODE", help="Such as 15W or MAXN. [default: the board's own default]"
)
@click.option(
    "--precision",
    "precisions",
    metavar="NAMES",
    callback=_chosen(_PRECISIONS),
    help=f"Of {', '.join(_PRECISIONS)}, separated by commas. [default: all that the board has]",
)
@click.option(
    "--batch",
    "batches",
    metavar="N,N",
    default="1",
    callback=separated(batch_size),
    help="Images per inference, separated by commas.",
)
@click.option(
    "--timing",
    "timings",
    metavar="NAMES",
    default="compute",
    callback=_chosen(_TIMINGS),
    help=f"What a latency covers, of {', '.join(_TIMINGS)}.",
)
@click.option(
    "--measured",
    "measured_ms",
    type=float,
    metavar="MS",
    help="Latency that was measured: outside the interval, what would explain it.",
)
@click.option("--list-boards", is_flag=True, help="Show the boards and their power modes.")
@common_options
def estimate(
    model: str | None,
    board: str | None,
    power_mode: str | None,
    precisions: tuple[str, ...],
    batches: tuple[int, ...],
    timings: tuple[str, ...],
    measured_ms: float | None,
    list_boards: bool,
    as_json: bool,
) -> None:
    """Estimate latency and throughput on a board that is not at hand, with an 80 % interval.

    MODEL is an FP32 ONNX file, ARCH the name of an architecture, for which nothing else is needed.
    The interval comes from published rows of boards that the model was not fitted to. compute
    is the network alone as a CUDA graph, single-stream a query with its copies, offline the
    time between batches of several streams, loop a framework's loop without a CUDA graph.

    \b
    Example:
      edgeres estimate resnet50 --board orin-nano-8
      edgeres estimate resnet50.onnx --board agx-orin-64 --power-mode MAXN --precision int8,fp16
      edgeres estimate resnet18 --board t4 --batch 1,8,32 --timing single-stream,offline --json
      edgeres estimate resnet50 --board agx-orin-64 --precision int8 --measured 2.9
      edgeres estimate --list-boards
    """
    from edgeres.machine.board_names import board_called
    from edgeres.machine.boards import boards

    if list_boards:
        if typed := [
            each for each in ("model", "board", "power_mode", "measured_ms") if was_typed(each)
        ]:
            raise click.UsageError(
                f"--list-boards shows every board; {typed[0].replace('_', '-')} has no part in it."
            )
        modes = [mode for each in boards().values() for mode in each]
        if as_json:
            show_json({"schema_version": 1, "boards": modes})
            return
        from edgeres.report import render_boards

        show(render_boards(modes))
        return
    if model is None or board is None:
        missing = "MODEL|ARCH" if model is None else "--board NAME"
        raise click.UsageError(f"Missing {missing}; the boards: edgeres estimate --list-boards.")
    chosen = board_called(board, power_mode)
    from edgeres.estimation.arithmetic import Arithmetic
    from edgeres.estimation.estimate import EstimateRequest, estimate_network  # onnx
    from edgeres.estimation.model import EstimatedTiming
    from edgeres.estimation.network import network_of
    from edgeres.serialization import to_json

    request = EstimateRequest(
        board=chosen,
        precisions=tuple(Arithmetic(name) for name in precisions),
        batches=batches,
        timings=tuple(EstimatedTiming(name) for name in timings),
    )
    network = network_of(model)
    result = estimate_network(network, request)
    measured = None
    if measured_ms is not None:
        from edgeres.estimation.measured import explain_measurement

        measured = explain_measurement(network, request, measured_ms)
    if as_json:
        show_json(to_json(result) | ({} if measured is None else {"measured": measured}))
        return
    from edgeres.report import render_estimate

    show(render_estimate(result, is_default_mode=power_mode is None, measured=measured))

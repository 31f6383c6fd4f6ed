"""`edgeres explain`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeres.cli.export import complete_architecture
from edgeres.cli.options import PATH, Names, common_options, was_typed
from edgeres.cli.output import progress_bars, show, show_json, show_status
from edgeres.files import check_outputs, write_report
from edgeres.networks.compared import ILSVRC, ComparedNetwork, compared_network
from edgeres.networks.explain import Example, example_block, explain_architecture
from edgeres.networks.network import Network, ratios
from edgeres.networks.registry import COMPARED
from edgeres.serialization import to_json

if TYPE_CHECKING:
    from edgeres.estimation.estimate import BoardEstimate


@click.command()
@click.argument(
    "architecture", metavar="ARCH", required=False, shell_complete=complete_architecture
)
@click.option("--input-size", type=int, metavar="N", help="Side of the image. [default: its own]")
@click.option("--num-classes", type=int, metavar="N", help="Classes. [default: its own]")
@click.option(
    "--against",
    metavar="OTHER",
    shell_complete=complete_architecture,
    help=f"Another architecture, or {', '.join(COMPARED)}: both side by side, with ratios.",
)
@click.option("--ilsvrc", is_flag=True, help="Show depth and top-5 error at ILSVRC, with sources.")
@click.option("--block", type=Names(Example), help="Work out the weights of a kind of block.")
@click.option(
    "--gradients",
    is_flag=True,
    help="Gradients by depth, new and trained on digits, beside the net without skips (torch).",
)
@click.option("--steps", type=int, metavar="N", help="Training for --gradients. [default: 60]")
@click.option(
    "--board", metavar="NAME", help="Estimate its time there; see estimate --list-boards."
)
@click.option("--power-mode", metavar="MODE", help="Of --board. [default: the board's own default]")
@click.option("--svg", type=PATH, help="Draw ARCH, or plot its gradients, into this file.")
@common_options
def explain(
    architecture: str | None,
    input_size: int | None,
    num_classes: int | None,
    against: str | None,
    ilsvrc: bool,
    block: Example | None,
    gradients: bool,
    steps: int | None,
    board: str | None,
    power_mode: str | None,
    svg: Path | None,
    as_json: bool,
) -> None:
    """Show what an architecture consists of: blocks, parameters, MACs, bytes.

    ARCH may be left out with --block, which needs none. With --gradients the network and its
    counterpart without skip connections, or --against, are trained for some steps.

    \b
    Example:
      edgeres explain resnet50
      edgeres explain resnet34 --against plain34
      edgeres explain resnet152 --against vgg16
      edgeres explain resnet50 --board orin-nano-8
      edgeres explain --ilsvrc
      edgeres explain --block bottleneck
      edgeres explain wide_resnet50_2 --input-size 160 --svg wide.svg
      edgeres explain resnet56 --gradients --svg gradients.svg
    """
    if ilsvrc:
        _show_ilsvrc(as_json=as_json)
        return
    # An option that nothing would be done with is refused, never dropped in silence.
    if architecture is None:
        if block is None:
            raise click.UsageError("Missing ARCH. Name an architecture, or pass --block.")
        needing = ("against", "svg", "gradients", "steps", "input_size", "num_classes", "board")
        if typed := [f"--{name.replace('_', '-')}" for name in needing if was_typed(name)]:
            raise click.UsageError(f"{typed[0]} needs ARCH. Name an architecture, or leave it out.")
    if steps is not None and not gradients:
        raise click.UsageError("--steps needs --gradients: nothing else is trained.")
    if power_mode is not None and board is None:
        raise click.UsageError("--power-mode needs --board: it is a mode of a board.")
    if gradients and architecture is not None:
        if block is not None or board is not None:
            first = "--board" if block is None else "--block"
            raise click.UsageError(
                f"{first} and --gradients are two questions. Pass one at a time."
            )
        # Training is on the embedded digits, so the classifier's size is theirs.
        if num_classes is not None:
            raise click.UsageError(
                "--num-classes does not go with --gradients: the digits are ten."
            )
        _explain_gradients(architecture, against, input_size, steps, svg, as_json)
        return
    size = {"input_size": input_size, "num_classes": num_classes}
    network = None if architecture is None else explain_architecture(architecture, **size)
    other: Network | ComparedNetwork | None = None
    if against is not None:
        count = compared_network if against in COMPARED else explain_architecture
        other = count(against, **size)
    if network is not None and svg is not None:
        from edgeres.report import draw_network_svg  # rich, as all of report

        write_report(svg, draw_network_svg(network))
        show_status(f"{svg}: drawing of {network.spec.name}")
    estimates: tuple[BoardEstimate, ...] = ()
    if board is not None and network is not None:
        both = (network,) if other is None else (network, other)
        estimates = _estimates(both, board, power_mode)
    _show_structure(network, other, block, estimates, as_json=as_json)


def _estimates(
    networks: tuple[Network | ComparedNetwork, ...], board: str, power_mode: str | None
) -> tuple[BoardEstimate, ...]:
    """Returns what a board would do with each network, in every precision that it has."""
    from edgeres.estimation.estimate import EstimateRequest, estimate_network  # onnx
    from edgeres.estimation.network import architecture_network
    from edgeres.machine.board_names import board_called

    if named := [each.name for each in networks if isinstance(each, ComparedNetwork)]:
        raise click.UsageError(
            f"--board estimates registered architectures; {named[0]} is there to be counted. Leave "
            "--board or --against out."
        )
    request = EstimateRequest(board=board_called(board, power_mode))
    return tuple(
        estimate_network(architecture_network(each), request)
        for each in networks
        if isinstance(each, Network)
    )


def _show_structure(
    network: Network | None,
    other: Network | ComparedNetwork | None,
    block: Example | None,
    estimates: tuple[BoardEstimate, ...],
    *,
    as_json: bool,
) -> None:
    """Prints a network, alone or beside another, its time, and the weights of a kind of block."""
    if as_json:
        answer = {"schema_version": 1} if network is None else to_json(network)
        if network is not None and other is not None:
            answer |= {"against": other, "ratios": ratios(network, other)}
        if block is not None:
            answer |= {"block": example_block(block)}
        if estimates:
            answer |= {"estimates": estimates}
        show_json(answer)
        return
    from edgeres.report import (
        render_estimate,
        render_example,
        render_network,
        render_side_by_side,
    )

    if network is not None:
        show(render_network(network) if other is None else render_side_by_side(network, other))
    for each in estimates:
        show("")
        show(render_estimate(each, is_default_mode=not was_typed("power_mode")))
    if block is not None:
        if network is not None:
            show("")
        # There are two kinds, and the point of either is what it saves or costs beside the other.
        (counterpart,) = (each for each in Example if each is not block)
        show(render_example(example_block(block), example_block(counterpart)))


def _show_ilsvrc(*, as_json: bool) -> None:
    """Prints what papers report of ILSVRC; every other question is one of its own."""
    context = click.get_current_context()
    others = [name for name in context.params if name not in {"ilsvrc", "as_json"}]
    if typed := [name for name in others if was_typed(name)]:
        raise click.UsageError(
            f"--ilsvrc is a question of its own; {typed[0].replace('_', '-')} has no part in it."
        )
    if as_json:
        show_json({"schema_version": 1, "ilsvrc": ILSVRC})
        return
    from edgeres.report import render_ilsvrc

    show(render_ilsvrc())


def _explain_gradients(
    architecture: str,
    against: str | None,
    input_size: int | None,
    steps: int | None,
    svg: Path | None,
    as_json: bool,
) -> None:
    """Trains a network and its counterpart for some steps, and prints their gradients by depth."""
    # Training takes a minute, so a path that cannot be written is refused before it.
    if svg is not None:
        check_outputs([], reports=[svg])
    with progress_bars() as progress:
        from edgeres.workflows import gradient_stage  # torch

        stage = gradient_stage()
        request = stage.GradientRequest(
            architecture=architecture, against=against, input_size=input_size
        )
        if steps is not None:
            request = replace(request, steps=steps)
        comparison = stage.compare_gradients(request, progress)
    from edgeres.report import draw_plot_svg, gradient_plot, render_gradients

    if svg is not None:
        write_report(svg, draw_plot_svg(gradient_plot(comparison)))
        show_status(f"{svg}: gradients of {comparison.network.name} and {comparison.other.name}")
    if as_json:
        show_json({"schema_version": 1, "gradients": comparison})
    else:
        show(render_gradients(comparison))

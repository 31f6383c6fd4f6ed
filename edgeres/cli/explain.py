"""`edgeres explain`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeres.cli.export import complete_architecture
from edgeres.cli.options import PATH, Names, common_options
from edgeres.cli.output import progress_bars, say, show, show_json
from edgeres.files import atomic_write, check_writable
from edgeres.networks.explain import Example, example_block, explain_architecture
from edgeres.networks.network import BuildingBlock, Network, ratios
from edgeres.serialization import to_json

if TYPE_CHECKING:
    from rich.console import RenderableType


@click.command(short_help="Tell what an architecture consists of.")
@click.argument(
    "architecture", metavar="ARCH", required=False, shell_complete=complete_architecture
)
@click.option("--input-size", type=int, metavar="N", help="Side of the image. [default: its own]")
@click.option("--num-classes", type=int, metavar="N", help="Classes. [default: its own]")
@click.option(
    "--against",
    metavar="OTHER",
    shell_complete=complete_architecture,
    help="Another architecture: both side by side, with ratios.",
)
@click.option("--block", type=Names(Example), help="Work out the weights of a kind of block.")
@click.option(
    "--gradients",
    is_flag=True,
    help="Gradients by depth, new and trained on digits, beside the net without skips (torch).",
)
@click.option("--steps", type=int, metavar="N", help="Training for --gradients. [default: 60]")
@click.option("--svg", type=PATH, help="Draw ARCH, or plot its gradients, into this file.")
@common_options
def explain(
    architecture: str | None,
    input_size: int | None,
    num_classes: int | None,
    against: str | None,
    block: Example | None,
    gradients: bool,
    steps: int | None,
    svg: Path | None,
    as_json: bool,
) -> None:
    """Tell what an architecture consists of: blocks, parameters, MACs, bytes.

    ARCH may be left out with --block, which needs none. With --gradients the network and its
    counterpart without skip connections, or --against, are trained for some steps.

    \b
    Example:
      edgeres explain resnet50
      edgeres explain resnet34 --against plain34
      edgeres explain --block bottleneck
      edgeres explain wide_resnet50_2 --input-size 160 --svg wide.svg
      edgeres explain resnet56 --gradients --svg gradients.svg
    """
    if architecture is None:
        if block is None:
            raise click.UsageError("Missing ARCH. Name an architecture, or pass --block.")
        need_arch = {
            "--against": against,
            "--svg": svg,
            "--gradients": gradients or None,
            "--steps": steps,
            "--input-size": input_size,
            "--num-classes": num_classes,
        }
        for option, value in need_arch.items():
            if value is not None:
                raise click.UsageError(
                    f"{option} needs ARCH. Name an architecture, or leave it out."
                )
    if steps is not None and not gradients:
        raise click.UsageError("--steps needs --gradients: nothing else is trained.")
    if gradients and architecture is not None:
        if block is not None:
            raise click.UsageError("--block and --gradients are two questions. Pass one at a time.")
        if num_classes is not None:
            raise click.UsageError(
                "--num-classes does not go with --gradients: the digits are ten."
            )
        _explain_gradients(architecture, against, input_size, steps, svg, as_json)
        return
    size = {"input_size": input_size, "num_classes": num_classes}
    network = None if architecture is None else explain_architecture(architecture, **size)
    other = None if against is None else explain_architecture(against, **size)
    if network is not None and svg is not None:
        _draw(network, svg)
    if as_json:
        show_json(_answer(network, other, block))
        return
    for part in _parts(network, other, block):
        show(part)


def _draw(network: Network, svg: Path) -> None:
    from edgeres.report import draw_network_svg  # rich, as all of report

    _write(svg, draw_network_svg(network))
    say(f"{svg}: drawing of {network.spec.name}")


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _explain_gradients(
    architecture: str,
    against: str | None,
    input_size: int | None,
    steps: int | None,
    svg: Path | None,
    as_json: bool,
) -> None:
    from edgeres.report import draw_plot_svg, gradient_plot, render_gradients
    from edgeres.workflows import gradient_stage  # torch

    if svg is not None:
        check_writable(svg)
    stage = gradient_stage()
    given = {"input_size": input_size, "steps": steps}
    request = stage.GradientRequest(
        architecture=architecture,
        against=against,
        **{name: value for name, value in given.items() if value is not None},
    )
    with progress_bars() as progress:
        comparison = stage.compare_gradients(request, progress)
    if svg is not None:
        _write(svg, draw_plot_svg(gradient_plot(comparison)))
        say(f"{svg}: gradients of {comparison.network.name} and {comparison.other.name}")
    if as_json:
        show_json({"schema_version": 1, "gradients": comparison})
    else:
        show(render_gradients(comparison))


def _answer(
    network: Network | None, other: Network | None, example: Example | None
) -> dict[str, Any]:
    """Returns the object of `--json`: the network's own, with what else was asked for."""
    told = {"schema_version": 1} if network is None else to_json(network)
    if network is not None and other is not None:
        told |= {"against": other, "ratios": ratios(network, other)}
    if example is not None:
        told |= {"block": example_block(example)}
    return told


def _parts(
    network: Network | None, other: Network | None, example: Example | None
) -> Iterator[RenderableType]:
    from edgeres.report import render_example, render_network, render_side_by_side

    if network is not None:
        yield render_network(network) if other is None else render_side_by_side(network, other)
    if network is not None and example is not None:
        yield ""
    if example is not None:
        yield render_example(*_with_its_counterpart(example))


def _with_its_counterpart(example: Example) -> tuple[BuildingBlock, BuildingBlock]:
    (other,) = (each for each in Example if each is not example)
    return example_block(example), example_block(other)

"""`edgeres explain`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeres.cli.export import complete_architecture
from edgeres.cli.options import PATH, choice, common_options
from edgeres.cli.output import say, show, show_json
from edgeres.models.explain import Example, example_block, explain_architecture
from edgeres.models.network import BuildingBlock, Network, ratios

if TYPE_CHECKING:
    from rich.console import RenderableType


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
    help="Another architecture: both side by side, with ratios.",
)
@click.option("--block", type=choice(Example), help="Work out the weights of a kind of block.")
@click.option("--svg", type=PATH, help="Draw ARCH into this file.")
@common_options
def explain(
    architecture: str | None, against: str | None, block: str | None, as_json: bool, **rest: Any
) -> None:
    """Tell what an architecture consists of: blocks, parameters, MACs, bytes.

    ARCH may be left out with --block, which needs none.

    \b
    Example:
      edgeres explain resnet50
      edgeres explain resnet34 --against plain34
      edgeres explain --block bottleneck
      edgeres explain wide_resnet50_2 --input-size 160 --svg wide.svg
    """
    svg: Path | None = rest.pop("svg")
    if architecture is None:
        _check_alone(block, {"--against": against, "--svg": svg, **rest})
    network = None if architecture is None else explain_architecture(architecture, **rest)
    other = None if against is None else explain_architecture(against, **rest)
    example = None if block is None else Example(block)
    if network is not None and svg is not None:
        _draw(network, svg)
    if as_json:
        show_json(_answer(network, other, example))
        return
    for part in _parts(network, other, example):
        show(part)


def _check_alone(block: str | None, others: dict[str, object]) -> None:
    """Refuses a line without ARCH that needs one."""
    if block is None:
        raise click.UsageError("Missing ARCH. Name an architecture, or pass --block.")
    typed = [name for name, value in others.items() if value is not None]
    if typed:
        option = "--" + typed[0].removeprefix("--").replace("_", "-")
        raise click.UsageError(f"{option} needs ARCH. Name an architecture, or leave it out.")


def _draw(network: Network, svg: Path) -> None:
    from edgeres.files import whole_file
    from edgeres.report import draw_network_svg  # rich, as all of report

    with whole_file(svg) as temporary:
        temporary.write_text(draw_network_svg(network), encoding="utf-8")
    say(f"{svg}: drawing of {network.spec.name}")


def _answer(
    network: Network | None, other: Network | None, example: Example | None
) -> dict[str, Any]:
    """Returns the object of `--json`: the network's own, with what else was asked for."""
    told = {"schema_version": 1} if network is None else network.to_dict()
    if network is not None and other is not None:
        told |= {"against": other.to_dict(), "ratios": ratios(network, other)}
    if example is not None:
        told |= {"block": example_block(example).to_dict()}
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

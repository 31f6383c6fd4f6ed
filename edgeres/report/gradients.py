"""Gradients by depth as a table and a plot."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from edgeres.networks.gradients import GradientComparison, GradientProfile, NetworkGradients
from edgeres.report.chart import Line, Plot


def render_gradients(comparison: GradientComparison) -> Group:
    """Returns what a rich Console prints of a comparison: a line a block, then what was carried."""
    networks = (comparison.network, comparison.other)
    steps = comparison.network.trained.steps
    table = Table(box=SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, show_edge=False)
    table.add_column("block", no_wrap=True)
    table.add_column("layer", justify="right")
    for network in networks:
        table.add_column(f"{network.name}\nnew", justify="right")
        table.add_column(f"\n{steps} steps", justify="right")
    profiles = [profile for network in networks for profile in _profiles(network)]
    for rows in zip(*(profile.blocks for profile in profiles), strict=False):
        norms = (f"{row.input_norm:.2e}" for row in rows)
        table.add_row(rows[0].name, str(rows[0].depth), *norms)
    table.add_section()
    table.add_row("first / last", "", *(f"{profile.carried:.3g}" for profile in profiles))
    table.add_row("loss", "", *(f"{profile.loss:.3f}" for profile in profiles))
    return Group(
        Text("Norm of dL/dx, x the input of each block, by depth", "bold"),
        Text(_conditions(comparison)),
        Text(),
        table,
    )


def gradient_plot(comparison: GradientComparison) -> Plot:
    """Returns the norms over depth as lines: each network new, and dashed after training."""
    networks = (comparison.network, comparison.other)
    lines = [_line(network, profile) for network in networks for profile in _profiles(network)]
    return Plot(
        title=f"Gradients by depth: {networks[0].name} and {networks[1].name}",
        x_label="layers from the image",
        y_label="norm of dL/dx, x the block's input",
        lines=tuple(lines),
        log_y=True,
    )


def _profiles(network: NetworkGradients) -> tuple[GradientProfile, GradientProfile]:
    return network.initial, network.trained


def _line(network: NetworkGradients, profile: GradientProfile) -> Line:
    when = f"{profile.steps} steps" if profile.steps else "new"
    points = tuple((float(block.depth), block.input_norm) for block in profile.blocks)
    return Line(label=f"{network.name}, {when}", points=points, dashed=profile.steps > 0)


def _conditions(comparison: GradientComparison) -> str:
    return (
        f"{comparison.batch_size} handwritten digits of {comparison.input_size} pixels, seed "
        f"{comparison.seed}; batch normalisation takes the batch's statistics"
    )

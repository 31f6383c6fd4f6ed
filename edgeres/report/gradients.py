"""Gradients by depth as a table and a plot."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from edgeres.networks.gradients import GradientComparison, GradientProfile, NetworkGradients
from edgeres.plurals import counted
from edgeres.report.chart import Line, Plot
from edgeres.report.tables import ruled_table


def render_gradients(comparison: GradientComparison) -> Group:
    """Returns what a rich Console prints of a comparison: a line a block, then what was carried."""
    networks = (comparison.network, comparison.other)
    steps = comparison.network.trained.steps
    headers = [h for network in networks for h in (f"{network.name}\nnew", f"\n{steps} steps")]
    table = ruled_table("block", "layer", *headers, gap=1)
    profiles = [profile for network in networks for profile in _profiles(network)]
    for rows in zip(*(profile.blocks for profile in profiles), strict=False):
        norms = (f"{row.input_norm:.2e}" for row in rows)
        table.add_row(rows[0].name, str(rows[0].depth), *norms)
    table.add_section()
    table.add_row("first / last", "", *(f"{profile.carried:.3g}" for profile in profiles))
    table.add_row("loss", "", *(f"{profile.loss:.3f}" for profile in profiles))
    conditions = (
        f"{comparison.batch_size} handwritten digits of {comparison.input_size} pixels, seed "
        f"{comparison.seed}; batch normalisation takes the batch's statistics"
    )
    title = Text("Norm of dL/dx, x the input of each block, by depth", "bold")
    return Group(title, Text(conditions), Text(), table)


def gradient_plot(comparison: GradientComparison) -> Plot:
    """Returns the norms over depth as lines: each network new, and dashed after training."""
    networks = (comparison.network, comparison.other)
    return Plot(
        title=f"Gradients by depth: {networks[0].name} and {networks[1].name}",
        x_label="layers from the image",
        y_label="norm of dL/dx, x the block's input",
        lines=tuple(
            Line(
                label=f"{network.name}, {counted(profile.steps, 'step') if profile.steps else 'new'}",
                points=tuple((float(b.depth), b.input_norm) for b in profile.blocks),
                dashed=profile.steps > 0,
                group=network.name,
            )
            for network in networks
            for profile in _profiles(network)
        ),
        # Gradients shrink or grow by a factor a layer, which is a straight line on this axis.
        log_y=True,
    )


def _profiles(network: NetworkGradients) -> tuple[GradientProfile, GradientProfile]:
    return network.initial, network.trained

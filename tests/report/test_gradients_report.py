"""Gradients by depth on a terminal and in a plot."""

from __future__ import annotations

import io

from rich.console import Console

from edgeres.networks.gradients import (
    BlockGradient,
    GradientComparison,
    GradientProfile,
    NetworkGradients,
)
from edgeres.report import gradient_plot, render_gradients


def profile(steps: int, *norms: float) -> GradientProfile:
    """Returns a profile of blocks of two layers."""
    blocks = tuple(
        BlockGradient(name=f"layer1.{i}", depth=3 + 2 * i, input_norm=norm, weight_norm=1.0)
        for i, norm in enumerate(norms)
    )
    return GradientProfile(steps=steps, loss=2.25, blocks=blocks)


COMPARISON = GradientComparison(
    network=NetworkGradients(
        name="resnet8", initial=profile(0, 0.5, 0.25), trained=profile(30, 0.2, 0.1)
    ),
    other=NetworkGradients(
        name="plain8", initial=profile(0, 0.001, 0.01), trained=profile(30, 0.0003, 0.02)
    ),
    input_size=16,
    batch_size=50,
    seed=4,
)


def test_the_table_has_a_line_a_block() -> None:
    """Both networks, new and trained, what was carried and under which conditions."""
    stream = io.StringIO()
    Console(file=stream, width=80, highlight=False).print(render_gradients(COMPARISON))
    lines = [line.split() for line in stream.getvalue().splitlines()]
    assert ["layer1.1", "5", "2.50e-01", "1.00e-01", "1.00e-02", "2.00e-02"] in lines
    assert ["first", "/", "last", "2", "2", "0.1", "0.015"] in lines
    assert ["loss", "2.250", "2.250", "2.250", "2.250"] in lines
    assert "50 handwritten digits of 16 pixels, seed 4" in stream.getvalue()


def test_the_plot_has_four_lines() -> None:
    """Norm over depth, trained ones dashed, on a logarithmic axis."""
    plot = gradient_plot(COMPARISON)
    assert plot.log_y
    assert [(line.label, line.dashed) for line in plot.lines] == [
        ("resnet8, new", False),
        ("resnet8, 30 steps", True),
        ("plain8, new", False),
        ("plain8, 30 steps", True),
    ]
    assert plot.lines[2].points == ((3.0, 0.001), (5.0, 0.01))

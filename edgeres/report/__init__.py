"""Verdicts, artifacts, networks and machines as tables and drawings for people.

The verdict also as an HTML page, as Markdown and as JUnit XML. JSON is `edgeres.serialization`.
"""

from edgeres.report.chart import Line, Plot, draw_plot_svg
from edgeres.report.doctor import render_doctor
from edgeres.report.drawing import draw_network_svg
from edgeres.report.estimation import render_boards, render_estimate
from edgeres.report.explanation import (
    render_example,
    render_ilsvrc,
    render_network,
    render_side_by_side,
)
from edgeres.report.gradients import gradient_plot, render_gradients
from edgeres.report.history import history_page, render_history
from edgeres.report.html import Picture, check_html, render_html, shown_flips
from edgeres.report.inspection import render_artifact
from edgeres.report.junit import render_junit
from edgeres.report.markdown import render_markdown
from edgeres.report.predictions import PredictionTable
from edgeres.report.ranking import render_ranking
from edgeres.report.sweep import render_sweep, sweep_markdown, sweep_page
from edgeres.report.table import render_verdict
from edgeres.report.tuning import (
    describe_choice,
    describe_recovery,
    mixed_table,
    sensitivity_tables,
)

__all__ = [
    "Line",
    "Picture",
    "Plot",
    "PredictionTable",
    "check_html",
    "describe_choice",
    "describe_recovery",
    "draw_network_svg",
    "draw_plot_svg",
    "gradient_plot",
    "history_page",
    "mixed_table",
    "render_artifact",
    "render_boards",
    "render_doctor",
    "render_estimate",
    "render_example",
    "render_gradients",
    "render_history",
    "render_html",
    "render_ilsvrc",
    "render_junit",
    "render_markdown",
    "render_network",
    "render_ranking",
    "render_side_by_side",
    "render_sweep",
    "render_verdict",
    "sensitivity_tables",
    "shown_flips",
    "sweep_markdown",
    "sweep_page",
]

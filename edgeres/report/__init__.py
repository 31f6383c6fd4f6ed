"""Verdicts, artifacts, networks and machines as tables and drawings for people.

JSON is the values' own `to_dict`.
"""

from edgeres.report.doctor import render_doctor
from edgeres.report.drawing import draw_network_svg
from edgeres.report.explanation import render_example, render_network, render_side_by_side
from edgeres.report.inspection import render_artifact
from edgeres.report.table import render_verdict
from edgeres.report.tuning import (
    describe_choice,
    describe_recovery,
    mixed_table,
    sensitivity_table,
)

__all__ = [
    "describe_choice",
    "describe_recovery",
    "draw_network_svg",
    "mixed_table",
    "render_artifact",
    "render_doctor",
    "render_example",
    "render_network",
    "render_side_by_side",
    "render_verdict",
    "sensitivity_table",
]

"""Verdicts, artifacts and machines as tables for people. JSON is the values' own `to_dict`."""

from edgeres.report.doctor import render_doctor
from edgeres.report.inspection import render_artifact
from edgeres.report.table import render_verdict

__all__ = ["render_artifact", "render_doctor", "render_verdict"]

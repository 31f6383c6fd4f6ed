"""The verdict as something to read."""

from edgeres.report.table import render_verdict

__all__ = ["render_verdict"]

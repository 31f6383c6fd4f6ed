"""The verdict as one self-contained HTML file."""

from edgeres.report.html.flips import Picture, shown_flips
from edgeres.report.html.page import check_html, render_html

__all__ = ["Picture", "check_html", "render_html", "shown_flips"]

"""The frame of a page without scripts or requests, for what needs no template."""

from __future__ import annotations

from html import escape
from importlib import resources

from edgeres.version import __version__

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def bare_page(command: str, *, title: str, lead: str, content: str) -> str:
    """Returns an HTML page.

    Args:
        command: which command wrote it.
        title: the first line.
        lead: a sentence below it.
        content: HTML of its sections.
    """
    style = (resources.files("edgeres.report.html") / "report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<link rel="icon" href="data:,">'
        f'<title>{command}</title><style>{style}</style></head><body><div class="sheet">'
        f'<header><p class="kicker">{command}</p><h1>{escape(title)}</h1>'
        f'<p class="lead">{escape(lead)}</p></header>'
        f"<main>{content}</main>"
        f"<footer>Written by edgeres {__version__}.</footer></div></body></html>\n"
    )


def section(title: str, content: str) -> str:
    """Returns a card of a page; `title` is HTML."""
    return f'<section class="card"><h2>{title}</h2>{content}</section>'

"""Names of files and classes in pages and tables: shown, and obeyed by nobody."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest
from rich.table import Table
from sample_verdict import VERDICT
from test_printable import HOSTILE, OBEYED, TITLE

from edgeres.cli.output import show
from edgeres.report import render_html, render_markdown
from edgeres.report.html import page as html_page
from edgeres.report.svg import text as svg_text

NAMED = replace(VERDICT, environment=replace(VERDICT.environment, engine_name=HOSTILE))


def test_a_hostile_name_in_pages() -> None:
    """HTML, Markdown and drawings: no character is obeyed, and the XML is well-formed."""
    for page in (render_html(NAMED, pictures={}), render_markdown(NAMED)):
        assert not OBEYED.search(page)
        assert "owned" in page
    drawn = svg_text(0, 0, HOSTILE, title=HOSTILE)
    assert not OBEYED.search(drawn)
    ElementTree.fromstring(drawn)


def test_without_the_escaper_a_page_would_hold_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above rests on."""
    monkeypatch.setattr(html_page, "printable", lambda text, keep="": text)
    assert TITLE in render_html(NAMED, pictures={})


def test_a_hostile_name_in_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """As a plain cell, which rich would read as markup: `[/red]` alone would be an error of it."""
    table = Table(HOSTILE)
    table.add_row("[/red]:dog:" + TITLE)
    show(table)
    shown = capsys.readouterr().out
    assert not OBEYED.search(shown)
    assert "[/red]:dog:" in shown

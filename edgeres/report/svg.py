"""Elements of SVG drawings as text, and the sheet of a drawing that is a file of its own.

Words are escaped where they are written, so a drawing is well-formed whatever a name contains.
Drawings in a page take their colours from its style sheet, by class. A file has no style sheet,
font or script beside it: its elements carry their colours themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import escape

from edgeres.printable import printable

INK, FAINT, GRID = "#0f172a", "#475569", "#e2e8f0"
"""Colours of a file: words and lines, what stands behind them, and the lines of an axis."""


def element(tag: str, *inside: str, **attributes: object) -> str:
    """Returns an element; `text_anchor` becomes `text-anchor`, `class_` `class`.

    Args:
        tag: name of the element.
        inside: elements, or text that is already escaped.
        attributes: numbers are written with up to six digits.
    """
    # An attribute ends at a quotation mark, and a description may quote the name of a file.
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="'
        + (
            f"{value:g}"
            if isinstance(value, float)
            else escape(printable(str(value)), {'"': "&quot;"})
        )
        + '"'
        for name, value in attributes.items()
    )
    return f"<{tag}{written}>{''.join(inside)}</{tag}>" if inside else f"<{tag}{written}/>"


def text(x: float, y: float, words: str, **attributes: object) -> str:
    """Returns a line of text that begins at a place, unless `text_anchor` is another end."""
    return element("text", escape(printable(words)), x=x, y=y, **attributes)


def label(x: float, y: float, words: str, fill: str = INK, **attributes: object) -> str:
    """Returns a line of text of a file."""
    return text(x, y, words, fill=fill, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    """Returns a straight line of a page's drawing."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(steps: str, class_: str) -> str:
    """Returns a path of a page's drawing."""
    return element("path", d=steps, class_=class_)


def sheet(
    parts: Iterable[str], *, width: int, height: int, title: str, subtitle: str, title_size: int
) -> str:
    """Returns the text of an SVG file: title and subtitle on white, the parts below them."""
    lines = (
        element("title", escape(printable(title))),
        element("rect", width=width, height=height, fill="white"),
        label(24, 34, title, font_size=title_size, font_weight="bold"),
        label(24, 56, subtitle, FAINT),
        *parts,
    )
    drawing = element(
        "svg",
        "\n" + "\n".join(lines) + "\n",
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        font_family="DejaVu Sans, Verdana, Arial, sans-serif",
        font_size=13,
    )
    return f"{drawing}\n"

"""Elements of a drawing, and the frame with axes that the charts share.

Colours and type are the page's: elements carry classes, so that one drawing serves a light
page, a dark one and paper. Built as a tree, so it is well-formed whatever a name contains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from edgeres.report.html.scale import Scale

WIDTH = 500
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 14, 46
"""Space around the plot for the axes' words, in the drawing's units."""


def element(
    tag: str, *inside: ElementTree.Element | str, **attributes: object
) -> ElementTree.Element:
    """Returns an element; `text_anchor` becomes `text-anchor`, `class_` `class`."""
    names = {key.rstrip("_").replace("_", "-"): _short(v) for key, v in attributes.items()}
    made = ElementTree.Element(tag, names)
    for child in inside:
        if isinstance(child, str):
            made.text = child
        else:
            made.append(child)
    return made


def _short(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def text(x: float, y: float, words: str, **attributes: object) -> ElementTree.Element:
    """Returns a line of text that begins at a place, unless `text_anchor` says otherwise."""
    return element("text", words, x=x, y=y, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> ElementTree.Element:
    """Returns a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(steps: str, class_: str) -> ElementTree.Element:
    """Returns a path."""
    return element("path", d=steps, class_=class_)


def drawing(label: str, height: float, parts: Iterable[ElementTree.Element]) -> str:
    """Returns an SVG element as text; `label` is what it says to who cannot see it."""
    root = element("svg", viewBox=f"0 0 {WIDTH} {_short(height)}", role="img", aria_label=label)
    root.extend(parts)
    return ElementTree.tostring(root, encoding="unicode")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The plot's place in a drawing, its scales and what its axes are called."""

    x: Scale
    y: Scale
    height: int
    x_title: str
    y_title: str

    @property
    def bottom(self) -> float:
        """Place of the horizontal axis."""
        return self.height - BOTTOM

    def axes(
        self,
        x_ticks: Sequence[float],
        y_ticks: Sequence[float],
        y_label: Callable[[float], str] = "{:g}".format,
    ) -> list[ElementTree.Element]:
        """Returns grid lines, marks with their numbers, and the titles."""
        right, bottom, middle = WIDTH - RIGHT, self.bottom, (TOP + self.bottom) / 2
        parts = [line(LEFT, self.y(v), right, self.y(v), "grid") for v in y_ticks]
        parts += [text(LEFT - 8, self.y(v) + 4, y_label(v), text_anchor="end") for v in y_ticks]
        parts += [line(self.x(v), bottom, self.x(v), bottom + 5, "axis") for v in x_ticks]
        parts += [text(self.x(v), bottom + 19, f"{v:g}", text_anchor="middle") for v in x_ticks]
        parts.append(line(LEFT, bottom, right, bottom, "axis"))
        parts.append(text(right, self.height - 6, self.x_title, class_="title", text_anchor="end"))
        turned = f"rotate(-90 14 {_short(float(middle))})"
        title = text(14, middle, self.y_title, class_="title", text_anchor="middle")
        title.set("transform", turned)
        return [*parts, title]


def horizontal(low: float, high: float, *, log: bool = False) -> Scale:
    """Returns the scale of a horizontal axis over the plot's width."""
    return Scale(low=low, high=high, start=LEFT, end=WIDTH - RIGHT, log=log)


def vertical(low: float, high: float, height: int, *, log: bool = False) -> Scale:
    """Returns the scale of a vertical axis that points up, in a drawing of that height."""
    return Scale(low=low, high=high, start=height - BOTTOM, end=TOP, log=log)

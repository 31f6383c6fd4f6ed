"""The drop in accuracy drawn: its estimate, its interval, and the limit that it must keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from edgeres.report.html.scale import Scale, around
from edgeres.report.html.svg import BOTTOM, TOP, WIDTH, drawing, element, line, path, text

HEIGHT = 132
_AXIS = HEIGHT - BOTTOM
_MIDDLE = 56
_SIDE = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The limit, and what was held against it; both in percentage points."""

    limit_pp: float
    bound_pp: float | None = None
    """Upper bound of the drop, where it and not the drop itself was held against the limit."""


def draw_interval(drop_pp: float, interval_pp: tuple[float, float], gate: Gate | None) -> str:
    """Returns the drop, its 95 % interval and the limit on one axis in percentage points, as SVG.

    The side of the axis beyond the limit is shaded.
    """
    low, high = interval_pp
    limit_pp, bound_pp = (gate.limit_pp, gate.bound_pp) if gate else (None, None)
    marks = [v for v in (0.0, drop_pp, low, high, limit_pp, bound_pp) if v is not None]
    low_end, high_end = around(marks, 0.12)
    x = Scale(low=low_end, high=high_end, start=_SIDE, end=WIDTH - _SIDE)
    parts: list[ElementTree.Element] = []
    if limit_pp is not None:
        parts += _limit(x(limit_pp), x.end, limit_pp)
    parts += [line(x(v), TOP + 14, x(v), _AXIS, "grid") for v in x.ticks(6)]
    parts.append(line(x(0), TOP + 14, x(0), _AXIS, "axis"))
    parts.append(line(x.start, _AXIS, x.end, _AXIS, "axis"))
    parts += [text(x(v), _AXIS + 19, f"{v + 0.0:g}", text_anchor="middle") for v in x.ticks(6)]
    title = "drop of top-1 in percentage points"
    parts.append(text(WIDTH - _SIDE, HEIGHT - 6, title, class_="title", text_anchor="end"))
    parts += _whisker(x(low), x(drop_pp), x(high))
    if bound_pp is not None:
        parts.append(_diamond(x(bound_pp)))
    return drawing(_in_words(drop_pp, interval_pp, limit_pp), HEIGHT, parts)


def _in_words(drop_pp: float, interval_pp: tuple[float, float], limit_pp: float | None) -> str:
    limit = "no limit" if limit_pp is None else f"the limit is {limit_pp:g}"
    return (
        f"Drop of top-1 {drop_pp:.2f} percentage points, 95 % interval {interval_pp[0]:.2f} to "
        f"{interval_pp[1]:.2f}; {limit}."
    )


def _limit(at: float, end: float, limit_pp: float) -> Iterator[ElementTree.Element]:
    height = _AXIS - TOP - 14
    width = max(end - at, 0.0)
    yield element("rect", x=at, y=TOP + 14, width=width, height=height, class_="beyond")
    yield line(at, TOP + 4, at, _AXIS, "limit")
    side = "end" if at > WIDTH / 2 else "start"
    words = f"limit {limit_pp:g} pp"
    place = at + (-6 if side == "end" else 6)
    yield text(place, TOP + 8, words, class_="limit-name", text_anchor=side)


def _whisker(low: float, middle: float, high: float) -> Iterator[ElementTree.Element]:
    yield line(low, _MIDDLE, high, _MIDDLE, "whisker")
    for end in (low, high):
        yield line(end, _MIDDLE - 8, end, _MIDDLE + 8, "whisker")
    yield element("circle", cx=middle, cy=_MIDDLE, r=6, class_="estimate")


def _diamond(at: float) -> ElementTree.Element:
    return path(f"M{at - 7:.1f} {_MIDDLE}l7 -8l7 8l-7 8z", "bound")

"""The drop in accuracy drawn: its estimate, its interval, and the limit that it must keep."""

from __future__ import annotations

from dataclasses import dataclass

from edgeres.core.verdict import Interval
from edgeres.report.chart import BOTTOM, TOP, WIDTH, Scale, around, drawing
from edgeres.report.svg import element, line, path, text

HEIGHT = 190
_AXIS = HEIGHT - BOTTOM
_INTERVAL, _BOUND = 66, 118
"""Heights of the two rows; the name of each stands above its marks."""

_NAME = 13
"""Height of a name's baseline above its marks."""

_SIDE = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The limit, and what was compared with it; both in percentage points."""

    limit_pp: float
    bound_pp: float | None = None
    """Upper bound of the drop, where it and not the drop itself was compared with the limit."""


def draw_interval(drop_pp: float, interval_pp: Interval, gate: Gate | None) -> str:
    """Returns the drop, its 95 % interval and the limit on one axis in percentage points, as SVG.

    The side of the axis beyond the limit is shaded.
    """
    low, high = interval_pp
    marks = [0.0, drop_pp, low, high]
    if gate is not None:
        marks += [gate.limit_pp] if gate.bound_pp is None else [gate.limit_pp, gate.bound_pp]
    # Zero is always in it: what matters is on which side of it the interval lies.
    low_end, high_end = around(marks, 0.12)
    x = Scale(low=low_end, high=high_end, start=_SIDE, end=WIDTH - _SIDE)
    parts = []
    if gate is not None:
        at, top = x(gate.limit_pp), TOP + 14
        width, height = max(x.end - at, 0.0), _AXIS - top
        parts.append(element("rect", x=at, y=top, width=width, height=height, class_="beyond"))
        parts.append(line(at, TOP + 4, at, _AXIS, "limit"))
        # The limit's name stands on the side that has more room.
        side, place = ("end", at - 6) if at > WIDTH / 2 else ("start", at + 6)
        name = f"limit {gate.limit_pp:g} pp"
        parts.append(text(place, TOP + 8, name, class_="limit-name", text_anchor=side))
    parts += [line(x(v), TOP + 14, x(v), _AXIS, "grid") for v in x.ticks(6)]
    parts.append(line(x(0), TOP + 14, x(0), _AXIS, "axis"))
    parts.append(line(x.start, _AXIS, x.end, _AXIS, "axis"))
    # Adding zero makes a negative zero positive.
    parts += [text(x(v), _AXIS + 19, f"{v + 0.0:g}", text_anchor="middle") for v in x.ticks(6)]
    title = "drop of top-1 in percentage points"
    parts.append(text(WIDTH - _SIDE, HEIGHT - 6, title, class_="title", text_anchor="end"))
    parts.append(line(x(low), _INTERVAL, x(high), _INTERVAL, "whisker"))
    parts += [line(x(end), _INTERVAL - 8, x(end), _INTERVAL + 8, "whisker") for end in (low, high)]
    parts.append(element("circle", cx=x(drop_pp), cy=_INTERVAL, r=6, class_="estimate"))
    parts.append(_row_name(_INTERVAL, "the drop with its two-sided 95 % interval"))
    if gate is not None and gate.bound_pp is not None:
        # One-sided: all drops up to the bound, from the end of the axis on.
        at = x(gate.bound_pp)
        parts.append(line(x.start, _BOUND, at, _BOUND, "one-sided"))
        parts.append(path(f"M{at - 7:.1f} {_BOUND}l7 -8l7 8l-7 8z", "bound"))
        parts.append(_row_name(_BOUND, "its one-sided 95 % bound, compared with the limit"))
    limit = "no limit" if gate is None else f"the limit is {gate.limit_pp:g}"
    description = (
        f"Drop of top-1 {drop_pp:.2f} percentage points, 95 % interval {low:.2f} to {high:.2f}; "
        f"{limit}."
    )
    return drawing(description, HEIGHT, parts)


def _row_name(row: float, words: str) -> str:
    return text(_SIDE, row - _NAME, words, class_="row-name")

"""Charts: values to places, marks of an axis, the frame of a page's charts, and lines as a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from edgeres.errors import ConfigError
from edgeres.report.svg import FAINT, GRID, element, label, line, sheet, text

WIDTH = 500
"""Of a page's charts, in units that the page scales to its column."""

LEFT, RIGHT, TOP, BOTTOM = 62, 14, 14, 46
"""Space around the plot of a page's chart for the words of its axes."""

_STEPS = (1, 2, 5, 10)
"""Round numbers. Source: Heckbert 1990, Nice numbers for graph labels, Graphics Gems."""

_PLOT_WIDTH, _PLOT_HEIGHT = 760, 440
_PLOT_LEFT, _PLOT_RIGHT, _PLOT_TOP, _PLOT_BOTTOM = 84, 560, 70, 380
"""Edges of the plot of a file, in pixels: the legend stands behind the plot."""

_LETTER = 9
"""Most width of a letter of the legend, on average, in pixels."""

_PLOT_TICKS = 6
_COLOURS = ("#1d4ed8", "#b91c1c", "#047857", "#a16207", "#7e22ce", "#0e7490")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A linear or logarithmic map from values to places."""

    low: float
    high: float
    """Values at the two ends, `low` < `high`; both above 0 where `log`."""
    start: float
    end: float
    """Places of the two ends; `start` > `end` for an axis that points up."""
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"{self.low} to {self.high} spans no {'log ' * self.log}axis")

    def __call__(self, value: float) -> float:
        """Returns the place of a value; outside the ends it lies beyond them."""
        low, high, here = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (here - low) / (high - low) * (self.end - self.start)

    def ticks(self, count: int) -> tuple[float, ...]:
        """Returns about `count` round values between the ends, ascending.

        A logarithmic axis takes 1, 2 and 5 of each decade where that gives three or more.
        """
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            values = (step * 10.0**power for power in range(first, last + 1) for step in (1, 2, 5))
            decades = tuple(value for value in values if self.low <= value <= self.high)
            # Within less than a decade 1, 2 and 5 are too few, and even steps nearly as good.
            if len(decades) >= 3:
                return decades
        step = round_step((self.high - self.low) / max(count, 1))
        # The tolerance keeps an end that is a multiple of the step but for its rounding.
        lowest, highest = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return tuple(round(number * step, 12) for number in range(lowest, highest + 1))


def round_step(step: float) -> float:
    """Returns the smallest of 1, 2, 5 times a power of ten that is no smaller."""
    # The tolerance keeps a step that is round already from going up by a rounding error.
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * digit for digit in _STEPS if power * digit >= step * (1 - 1e-9))


def enclosing_ticks(values: Sequence[float], *, log: bool = False) -> list[float]:
    """Returns evenly spaced round values, from at most the lowest to at least the highest value.

    On a logarithmic axis powers of ten, in steps of as many decades as keep them few.
    """
    low, high = min(values), max(values)
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        decades = math.ceil(max(last - first, 1) / _PLOT_TICKS)
        last = first + decades * math.ceil(max(last - first, 1) / decades)
        return [10.0**power for power in range(first, last + 1, decades)]
    # One value alone has no range; its own size stands in, or 1 for zero.
    step = round_step((high - low) / (_PLOT_TICKS - 1) or abs(high) or 1)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def around(values: Iterable[float], margin: float = 0.06) -> tuple[float, float]:
    """Returns the range of the values, widened by a fraction of it; never empty."""
    known = tuple(values)
    low, high = min(known), max(known)
    # A single value is widened by its own size, and zero to between -1 and 1.
    room = (high - low) * margin or abs(low) * margin or 1.0
    return low - room, high + room


def around_log(values: Iterable[float], margin: float = 0.06) -> tuple[float, float]:
    """Returns the range of positive values, widened by a fraction of it on a logarithmic axis."""
    low, high = around((math.log(value) for value in values), margin)
    return math.exp(low), math.exp(high)


def horizontal(low: float, high: float, *, log: bool = False) -> Scale:
    """Returns the scale of a horizontal axis over the plot's width in a page's chart."""
    return Scale(low=low, high=high, start=LEFT, end=WIDTH - RIGHT, log=log)


def vertical(low: float, high: float, height: int, *, log: bool = False) -> Scale:
    """Returns the scale of a vertical axis that points up, in a page's chart of that height."""
    return Scale(low=low, high=high, start=height - BOTTOM, end=TOP, log=log)


def drawing(description: str, height: float, parts: Iterable[str]) -> str:
    """Returns a page's chart; `description` is for screen readers."""
    view = f"0 0 {WIDTH} {height:g}"
    return element("svg", *parts, viewBox=view, role="img", aria_label=description)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The plot's place in a page's chart, its scales and what its axes are called."""

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
    ) -> list[str]:
        """Returns grid lines, marks with their numbers, and the titles."""
        edge, bottom, middle = WIDTH - RIGHT, self.bottom, (TOP + self.bottom) / 2
        # A number's baseline is 4 below its line, so that its middle is on it.
        parts = [line(LEFT, self.y(v), edge, self.y(v), "grid") for v in y_ticks]
        parts += [text(LEFT - 8, self.y(v) + 4, y_label(v), text_anchor="end") for v in y_ticks]
        parts += [line(self.x(v), bottom, self.x(v), bottom + 5, "axis") for v in x_ticks]
        parts += [text(self.x(v), bottom + 19, f"{v:g}", text_anchor="middle") for v in x_ticks]
        parts.append(line(LEFT, bottom, edge, bottom, "axis"))
        parts.append(text(edge, self.height - 6, self.x_title, class_="title", text_anchor="end"))
        turned = {
            "class_": "title",
            "text_anchor": "middle",
            "transform": f"rotate(-90 14 {middle:g})",
        }
        return [*parts, text(14, middle, self.y_title, **turned)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Points that belong together."""

    label: str
    points: tuple[tuple[float, float], ...]
    """(x, y), drawn in this order."""
    dashed: bool = False
    group: str = ""
    """What the line is of, such as a network: lines of one group have one colour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Lines, what they show and in which units."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    log_y: bool = False
    """Whether equal steps up are equal factors; every y must then be positive."""

    def __post_init__(self) -> None:
        values = [value for one in self.lines for point in one.points for value in point]
        if not values or not all(map(math.isfinite, values)):
            raise ConfigError(f"'{self.title}' needs points, all of finite numbers, to be drawn.")
        if self.log_y and min(y for one in self.lines for _, y in one.points) <= 0:
            raise ConfigError(f"'{self.title}' has a y that is not positive; log_y needs them so.")


def draw_plot_svg(plot: Plot) -> str:
    """Returns the plot as the text of an SVG file."""
    left, end, top, bottom = _PLOT_LEFT, _PLOT_RIGHT, _PLOT_TOP, _PLOT_BOTTOM
    points = [point for one in plot.lines for point in one.points]
    x_ticks = enclosing_ticks([x for x, _ in points])
    y_ticks = enclosing_ticks([y for _, y in points], log=plot.log_y)
    x = Scale(low=x_ticks[0], high=x_ticks[-1], start=left, end=end)
    y = Scale(low=y_ticks[0], high=y_ticks[-1], start=bottom, end=top, log=plot.log_y)
    middle = (left + end) / 2
    parts = [label(middle, _PLOT_HEIGHT - 14, plot.x_label, FAINT, text_anchor="middle")]
    for tick in x_ticks:
        upright = element("path", d=f"M{x(tick):.1f} {top}V{bottom}", stroke=GRID)
        name = label(x(tick), bottom + 20, f"{tick:.6g}", text_anchor="middle")
        parts.append(upright + name)
    for tick in y_ticks:
        level = element("path", d=f"M{left} {y(tick):.1f}H{end}", stroke=GRID)
        parts.append(level + label(left - 8, y(tick) + 4, f"{tick:.6g}", text_anchor="end"))
    groups = list(dict.fromkeys(one.group or one.label for one in plot.lines))
    for number, one in enumerate(plot.lines):
        colour = _COLOURS[groups.index(one.group or one.label) % len(_COLOURS)]
        style = {"fill": "none", "stroke": colour, "stroke_width": 1.8}
        if one.dashed:
            style["stroke_dasharray"] = "6 4"
        places = [(f"{x(across):.1f}", f"{y(up):.1f}") for across, up in one.points]
        parts.append(element("path", d="M" + "L".join(map(" ".join, places)), **style))
        parts += [element("circle", cx=cx, cy=cy, r=3, fill=colour) for cx, cy in places]
        # The legend shows a piece of each line, so that its dashes are in it beside its colour.
        row = top + 10 + 24 * number
        parts.append(element("path", d=f"M{end + 18} {row}h26", **style))
        parts.append(label(end + 52, row + 4, one.label))
    longest = max(len(one.label) for one in plot.lines)
    return sheet(
        parts,
        width=max(_PLOT_WIDTH, end + 60 + _LETTER * longest),
        height=_PLOT_HEIGHT,
        title=plot.title,
        subtitle=plot.y_label,
        title_size=18,
    )

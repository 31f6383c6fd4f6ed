"""Lines over two axes as one SVG drawing, self-contained as `drawing`'s are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape

from edgeres.errors import ConfigError

_WIDTH, _HEIGHT = 760, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 200, 70, 60
"""Margins in pixels: axis labels on the left and below, the legend on the right."""

_INK, _FAINT, _GRID = "#0f172a", "#475569", "#e2e8f0"
_COLOURS = ("#1d4ed8", "#b91c1c", "#047857", "#a16207", "#7e22ce", "#0e7490")
_TICKS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Points that belong together."""

    label: str
    points: tuple[tuple[float, float], ...]
    """(x, y), drawn in this order."""
    dashed: bool = False


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
        values = [value for line in self.lines for point in line.points for value in point]
        if not values or not all(map(math.isfinite, values)):
            raise ConfigError(f"'{self.title}' needs points, all of finite numbers, to be drawn.")
        if self.log_y and min(y for line in self.lines for _, y in line.points) <= 0:
            raise ConfigError(f"'{self.title}' has a y that is not positive; log_y needs them so.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """A range of values on a stretch of pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Returns the pixel of a value."""
        low, high, here = map(self._scaled, (self.low, self.high, value))
        return self.start + (here - low) / (high - low) * (self.end - self.start)

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value


def draw_plot_svg(plot: Plot) -> str:
    """Returns the plot as the text of an SVG file."""
    x_ticks, y_ticks = _ticks_of(plot)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    x = _Axis(low=x_ticks[0], high=x_ticks[-1], start=_LEFT, end=right)
    y = _Axis(low=y_ticks[0], high=y_ticks[-1], start=bottom, end=_TOP, log=plot.log_y)
    drawn = "\n".join(
        (
            *(_grid_line(x.at(tick), _tick(tick), upright=True) for tick in x_ticks),
            *(_grid_line(y.at(tick), _tick(tick), upright=False) for tick in y_ticks),
            *(part for number in range(len(plot.lines)) for part in _line(plot, number, x, y)),
        )
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" role="img" '
        'font-family="DejaVu Sans, Verdana, Arial, sans-serif" font-size="13">\n'
        f"<title>{escape(plot.title)}</title>\n"
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>\n'
        f"{_text(24, 34, plot.title, size=18, weight='bold')}\n"
        f"{_text(24, 56, plot.y_label, fill=_FAINT)}\n"
        f"{_text((_LEFT + right) / 2, _HEIGHT - 14, plot.x_label, anchor='middle', fill=_FAINT)}\n"
        f"{drawn}\n</svg>\n"
    )


def _ticks_of(plot: Plot) -> tuple[list[float], list[float]]:
    xs = [x for line in plot.lines for x, _ in line.points]
    ys = [y for line in plot.lines for _, y in line.points]
    return _linear_ticks(xs), _log_ticks(ys) if plot.log_y else _linear_ticks(ys)


def _linear_ticks(values: Iterable[float]) -> list[float]:
    """Returns round numbers, evenly spaced, from at most the lowest value to at least the highest."""
    known = list(values)
    low, high = min(known), max(known)
    step = _round_step((high - low) / (_TICKS - 1) or abs(high) or 1)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _round_step(step: float) -> float:
    """Returns the smallest of 1, 2, 5 times a power of ten that is no smaller."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= step * (1 - 1e-9))


def _log_ticks(values: Iterable[float]) -> list[float]:
    """Returns powers of ten around the values, in steps of as many decades as keep them few."""
    known = list(values)
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    step = math.ceil(max(high - low, 1) / _TICKS)
    last = low + step * math.ceil(max(high - low, 1) / step)
    return [10.0**power for power in range(low, last + 1, step)]


def _tick(value: float) -> str:
    return f"{value:.6g}"


def _grid_line(at: float, label: str, *, upright: bool) -> str:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    if upright:
        steps, text = f"M{at:.1f} {_TOP}V{bottom}", _text(at, bottom + 20, label, anchor="middle")
    else:
        steps, text = f"M{_LEFT} {at:.1f}H{right}", _text(_LEFT - 8, at + 4, label, anchor="end")
    return f'<path d="{steps}" stroke="{_GRID}"/>{text}'


def _line(plot: Plot, number: int, x: _Axis, y: _Axis) -> Iterator[str]:
    """Yields a line with its points, and its entry in the legend."""
    line, colour = plot.lines[number], _COLOURS[number % len(_COLOURS)]
    places = [(x.at(across), y.at(up)) for across, up in line.points]
    dashes = ' stroke-dasharray="6 4"' if line.dashed else ""
    style = f'fill="none" stroke="{colour}" stroke-width="1.8"{dashes}'
    steps = "L".join(f"{across:.1f} {up:.1f}" for across, up in places)
    yield f'<path d="M{steps}" {style}/>'
    for across, up in places:
        yield f'<circle cx="{across:.1f}" cy="{up:.1f}" r="3" fill="{colour}"/>'
    left, height = _WIDTH - _RIGHT + 18, _TOP + 10 + 24 * number
    yield f'<path d="M{left} {height}h26" {style}/>'
    yield _text(left + 34, height + 4, line.label)


def _text(x: float, y: float, text: str, **style: str | int) -> str:
    """Returns a line of text; `style` may have fill, size, weight and anchor."""
    names = {"size": "font-size", "weight": "font-weight", "anchor": "text-anchor"}
    merged = {"fill": _INK, **style}
    attributes = "".join(f' {names.get(key, key)}="{value}"' for key, value in merged.items())
    return f'<text x="{x:g}" y="{y:g}"{attributes}>{escape(text)}</text>'

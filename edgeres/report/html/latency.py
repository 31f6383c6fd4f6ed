"""Latency drawn: how often which time was taken, the fraction below each, every sample by time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from statistics import median

from edgeres.plurals import counted
from edgeres.report.chart import (
    TOP,
    Frame,
    Scale,
    around,
    around_log,
    drawing,
    horizontal,
    vertical,
)
from edgeres.report.svg import element, line, path, text

HEIGHT = 280

BINS = 90
"""Of the histogram, over the range of both networks."""

LOG_FROM = 4.0
"""Ratio of the largest sample to the smallest from which a time line is logarithmic: straight,
the outliers would press the rest into a line."""

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Marks of the axis of fractions."""

MARKED = 200
"""Most outliers with a tick of their own."""

_TICK = 9
"""Length of an outlier's tick, inside of the plot's upper edge."""

_NAME_ROW = 24
"""Distance of the names of the two medians; on a phone letters are larger than elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One network's samples as they are drawn."""

    role: str
    """`engine` or `reference`: the word in the label and the class of the strokes."""
    samples_ms: Sequence[float]
    """In the order taken; all above 0."""
    at_s: Sequence[float]
    """When each sample began, in seconds from the first of both networks; as many as samples."""
    blocks: Sequence[int] = ()
    """Number of the block that each sample belongs to; empty where blocks were not recorded."""
    outliers: Collection[int] = ()
    """Positions of the samples that are marked."""


def draw_histogram(pair: Sequence[Timed]) -> str:
    """Returns the histograms of both networks over one logarithmic axis, as SVG."""
    x = _shared_axis(pair)
    # Bins are of equal width on paper, so each spans the same ratio of latencies.
    width = (x.end - x.start) / BINS
    counts = [Counter(int((x(v) - x.start) / width) for v in one.samples_ms) for one in pair]
    y = vertical(0, 1.4 * max(max(bins.values()) for bins in counts), HEIGHT)
    frame = Frame(x=x, y=y, height=HEIGHT, x_title="latency in ms", y_title="samples")
    parts = frame.axes(x.ticks(6), [tick for tick in y.ticks(4) if tick == int(tick)])
    for one, bins in zip(pair, counts, strict=True):
        bars = (
            f"M{x.start + b * width:.1f} {y.start:.1f}V{y(n):.1f}h{width:.1f}V{y.start:.1f}z"
            for b, n in sorted(bins.items())
        )
        parts.append(path("".join(bars), f"area {one.role}"))
    places = [x(median(one.samples_ms)) for one in pair]
    parts += [
        line(at, TOP, at, frame.bottom, f"median {one.role}")
        for one, at in zip(pair, places, strict=True)
    ]
    # The names of the medians come after both lines, because no line may cross a name.
    for row, (one, at) in enumerate(zip(pair, places, strict=True)):
        side, beside = ("end", at - 6) if at > (x.start + x.end) / 2 else ("start", at + 6)
        name = f"{one.role} {median(one.samples_ms):.3g} ms"
        height = TOP + 12 + _NAME_ROW * row
        parts.append(text(beside, height, name, class_=f"name {one.role}", text_anchor=side))
    return drawing(f"Histogram of latency. {_in_words(pair)}", HEIGHT, parts)


def draw_ecdf(pair: Sequence[Timed]) -> str:
    """Returns the fraction of samples up to each time, for both networks, as SVG."""
    x, y = _shared_axis(pair), vertical(0, 1, HEIGHT)
    frame = Frame(x=x, y=y, height=HEIGHT, x_title="latency in ms", y_title="percent of samples")
    parts = frame.axes(x.ticks(6), SHARES, lambda fraction: f"{100 * fraction:g}")
    for one in pair:
        ordered = sorted(one.samples_ms)
        steps = [f"M{x.start:.0f} {y(0):.1f}H{x(ordered[0]):.1f}"]
        last = (math.inf, math.inf)
        for number, value in enumerate(ordered, 1):
            place = x(value), y(number / len(ordered))
            # Steps smaller than half a unit cannot be seen, and thousands of them are a large page.
            if math.dist(place, last) >= 0.5 or number == len(ordered):
                steps.append(f"H{place[0]:.1f}V{place[1]:.1f}")
                last = place
        parts.append(path(f"{''.join(steps)}H{x.end:.0f}", f"curve {one.role}"))
    return drawing(
        f"Fraction of samples at or below each latency. {_in_words(pair)}", HEIGHT, parts
    )


def draw_time_lines(pair: Sequence[Timed]) -> list[str]:
    """Returns every sample of each network by the time at which it began, as one SVG a network.

    All have the same axes, so that the two can be compared and their blocks interlock.
    """
    values = [value for one in pair for value in one.samples_ms]
    log = max(values) > LOG_FROM * min(values)
    y = vertical(*(around_log if log else around)(values), HEIGHT, log=log)
    # A single sample has no duration.
    x = horizontal(0, max(at for one in pair for at in one.at_s) or 1.0)
    return [
        _time_line(one, Frame(x=x, y=y, height=HEIGHT, x_title="seconds", y_title="latency in ms"))
        for one in pair
    ]


def _time_line(one: Timed, frame: Frame) -> str:
    x, y = frame.x, frame.y
    parts = []
    # A block begins with its first sample and lasts until its last one has ended.
    samples = zip(one.blocks, one.at_s, one.samples_ms, strict=False)
    for _, block in groupby(samples, itemgetter(0)):
        inside = tuple(block)
        start, end = x(inside[0][1]), x(inside[-1][1] + inside[-1][2] / 1000)
        width, height = end - start, frame.bottom - TOP
        parts.append(element("rect", x=start, y=TOP, width=width, height=height, class_="block"))
    parts += frame.axes(x.ticks(6), y.ticks(5))
    middle = y(median(one.samples_ms))
    parts.append(line(x.start, middle, x.end, middle, f"median {one.role}"))
    # Dots of one unit are drawn once each, so that 20,000 samples stay a small page.
    dots = {(round(x(t)), round(y(v))) for t, v in zip(one.at_s, one.samples_ms, strict=True)}
    parts.append(path("".join(f"M{a} {b}h0" for a, b in sorted(dots)), f"dots {one.role}"))
    # A tick at the edge hides no sample, where rings cover each other and what is near.
    parts += [
        line(x(one.at_s[i]), TOP, x(one.at_s[i]), TOP + _TICK, "outlier")
        for i in sorted(one.outliers)[:MARKED]
    ]
    return drawing(f"Latency by time. {_in_words([one])}", HEIGHT, parts)


def _shared_axis(pair: Iterable[Timed]) -> Scale:
    return horizontal(*around_log(v for one in pair for v in one.samples_ms), log=True)


def _in_words(pair: Iterable[Timed]) -> str:
    described = (
        f"{one.role}: {counted(len(one.samples_ms), 'sample')}, {min(one.samples_ms):.4g} to "
        f"{max(one.samples_ms):.4g} ms, median {median(one.samples_ms):.4g} ms"
        for one in pair
    )
    return "; ".join(described) + "."

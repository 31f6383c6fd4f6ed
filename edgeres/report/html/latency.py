"""Latency drawn: how often which time was taken, the share below each, and every sample by time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from statistics import median
from xml.etree import ElementTree

from edgeres.report.html.scale import Scale, around, around_log
from edgeres.report.html.svg import (
    TOP,
    Frame,
    drawing,
    element,
    horizontal,
    line,
    path,
    text,
    vertical,
)

HEIGHT = 260

BINS = 90
"""Of the histogram, over the range of both networks."""

LOG_FROM = 4.0
"""Ratio of the largest sample to the smallest from which a time line is logarithmic: straight,
the outliers would press the rest into a line."""

SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Marks of the axis of shares."""


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
    """Number of the turn that each sample belongs to; empty where turns were not recorded."""
    outliers: Collection[int] = ()
    """Positions of the samples that are marked."""


def draw_histogram(pair: Sequence[Timed]) -> str:
    """Returns the histograms of both networks over one logarithmic axis, as SVG."""
    x = _shared_axis(pair)
    counts = {one.role: _binned(one.samples_ms, x) for one in pair}
    y = vertical(0, 1.25 * max(max(found.values()) for found in counts.values()), HEIGHT)
    frame = Frame(x=x, y=y, height=HEIGHT, x_title="latency in ms", y_title="samples")
    parts = frame.axes(x.ticks(6), [tick for tick in y.ticks(4) if tick == int(tick)])
    parts += [path(_outline(counts[one.role], x, y), f"area {one.role}") for one in pair]
    parts += _median_marks(pair, frame)
    return drawing(f"Histogram of latency. {_in_words(pair)}", HEIGHT, parts)


def draw_ecdf(pair: Sequence[Timed]) -> str:
    """Returns the share of samples up to each time, for both networks, as SVG."""
    x, y = _shared_axis(pair), vertical(0, 1, HEIGHT)
    frame = Frame(x=x, y=y, height=HEIGHT, x_title="latency in ms", y_title="share of samples")
    parts = frame.axes(x.ticks(6), SHARES, "{:.0%}".format)
    parts += [path(_steps(one.samples_ms, x, y), f"curve {one.role}") for one in pair]
    return drawing(f"Share of samples at or below each latency. {_in_words(pair)}", HEIGHT, parts)


def draw_time_line(one: Timed, duration_s: float) -> str:
    """Returns every sample of one network by the time at which it began, as SVG.

    Args:
        one: the samples.
        duration_s: end of the time axis, the same for both networks.
    """
    x = horizontal(0, duration_s or 1.0)
    log = max(one.samples_ms) > LOG_FROM * min(one.samples_ms)
    y = vertical(*(around_log if log else around)(one.samples_ms), HEIGHT, log=log)
    frame = Frame(x=x, y=y, height=HEIGHT, x_title="seconds", y_title="latency in ms")
    parts = [*_turns(one, frame), *frame.axes(x.ticks(6), y.ticks(5))]
    height = y(median(one.samples_ms))
    parts.append(line(x.start, height, x.end, height, f"median {one.role}"))
    dots = {(round(x(t)), round(y(v))) for t, v in zip(one.at_s, one.samples_ms, strict=True)}
    parts.append(path("".join(f"M{a} {b}h0" for a, b in sorted(dots)), f"dots {one.role}"))
    parts += [
        element("circle", cx=x(one.at_s[i]), cy=y(one.samples_ms[i]), r=5, class_="outlier")
        for i in sorted(one.outliers)[:MARKED]
    ]
    return drawing(f"Latency by time. {_in_words([one])}", HEIGHT, parts)


MARKED = 200
"""Most outliers with a ring of their own."""


def _turns(one: Timed, frame: Frame) -> Iterator[ElementTree.Element]:
    """Yields a shade behind each stretch in which this network was timed."""
    for _, turn in groupby(zip(one.blocks, one.at_s, one.samples_ms, strict=False), itemgetter(0)):
        inside = tuple(turn)
        start, end = frame.x(inside[0][1]), frame.x(inside[-1][1] + inside[-1][2] / 1000)
        height = frame.bottom - TOP
        yield element("rect", x=start, y=TOP, width=end - start, height=height, class_="block")


def _shared_axis(pair: Iterable[Timed]) -> Scale:
    values = [value for one in pair for value in one.samples_ms]
    return horizontal(*around_log(values), log=True)


def _in_words(pair: Iterable[Timed]) -> str:
    found = (
        f"{one.role}: {len(one.samples_ms)} samples, {min(one.samples_ms):.4g} to "
        f"{max(one.samples_ms):.4g} ms, median {median(one.samples_ms):.4g} ms"
        for one in pair
    )
    return "; ".join(found) + "."


def _binned(samples_ms: Iterable[float], x: Scale) -> Counter[int]:
    """Counts the samples in bins of equal width on paper, from 0 to `BINS` - 1."""
    width = (x.end - x.start) / BINS
    return Counter(int((x(value) - x.start) / width) for value in samples_ms)


def _outline(counts: Counter[int], x: Scale, y: Scale) -> str:
    """Returns the steps of the outline over the bins that hold samples, closed at the bottom."""
    width = (x.end - x.start) / BINS
    bars = (
        f"M{x.start + b * width:.1f} {y.start:.1f}V{y(n):.1f}h{width:.1f}V{y.start:.1f}z"
        for b, n in sorted(counts.items())
    )
    return "".join(bars)


def _median_marks(pair: Sequence[Timed], frame: Frame) -> Iterator[ElementTree.Element]:
    """Yields a line at each median, then their names, which no line may cross."""
    middles = [median(one.samples_ms) for one in pair]
    for one, middle in zip(pair, middles, strict=True):
        yield line(frame.x(middle), TOP, frame.x(middle), frame.bottom, f"median {one.role}")
    for row, (one, middle) in enumerate(zip(pair, middles, strict=True)):
        at = frame.x(middle)
        to_left = at > (frame.x.start + frame.x.end) / 2
        yield text(
            at + (-6 if to_left else 6),
            TOP + 10 + 17 * row,
            f"{one.role} {middle:.3g} ms",
            class_=f"name {one.role}",
            text_anchor="end" if to_left else "start",
        )


def _steps(samples_ms: Iterable[float], x: Scale, y: Scale) -> str:
    """Returns the distribution function as a path, without steps smaller than half a unit."""
    ordered = sorted(samples_ms)
    steps, last = [f"M{x.start:.0f} {y(0):.1f}H{x(ordered[0]):.1f}"], (math.inf, math.inf)
    for number, value in enumerate(ordered, 1):
        place = x(value), y(number / len(ordered))
        if math.dist(place, last) >= 0.5 or number == len(ordered):
            steps.append(f"H{place[0]:.1f}V{place[1]:.1f}")
            last = place
    return "".join(steps) + f"H{x.end:.0f}"

"""The charts of the HTML report: marks where the values are, nothing lost, nothing invented."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeres.report.chart import BOTTOM, LEFT, RIGHT, TOP, WIDTH
from edgeres.report.html.interval import Gate, draw_interval
from edgeres.report.html.latency import (
    BINS,
    HEIGHT,
    MARKED,
    Timed,
    draw_ecdf,
    draw_histogram,
    draw_time_lines,
)

FAST = Timed(role="engine", samples_ms=(4.0, 5.0, 5.0, 6.0), at_s=(0.0, 1.0, 2.0, 3.0))
SLOW = Timed(
    role="reference",
    samples_ms=(40.0, 50.0, 50.0, 90.0),
    at_s=(0.5, 1.5, 2.5, 4.0),
    blocks=(0, 0, 1, 1),
    outliers=(3,),
)


def of_class(svg: str, name: str) -> list[ElementTree.Element]:
    """Returns the elements of a drawing that have a class."""
    tree = ElementTree.fromstring(svg)
    return [one for one in tree.iter() if name in one.get("class", "").split()]


def number(element: ElementTree.Element, name: str) -> float:
    """Returns an attribute as a number."""
    return float(element.attrib[name])


def test_the_interval_stands_where_its_figures_are() -> None:
    """Dot, ends and limit on one straight axis; what is beyond the limit is shaded."""
    svg = draw_interval(0.2, (-0.4, 0.8), Gate(limit_pp=0.5))
    dot, limit = (of_class(svg, name)[0] for name in ("estimate", "limit"))
    ends = of_class(svg, "whisker")[0]
    left, right = number(ends, "x1"), number(ends, "x2")
    unit = (right - left) / 1.2
    assert number(dot, "cx") == pytest.approx(left + 0.6 * unit, abs=0.02)
    assert number(limit, "x1") == pytest.approx(left + 0.9 * unit, abs=0.02)
    (beyond,) = of_class(svg, "beyond")
    assert number(beyond, "x") == number(limit, "x1")
    assert number(beyond, "x") + number(beyond, "width") == pytest.approx(WIDTH - 14, abs=0.02)


def test_the_bound_is_marked_where_it_decided() -> None:
    """Only then; and without a limit there is neither."""
    assert (
        len(of_class(draw_interval(0.2, (-0.4, 0.8), Gate(limit_pp=0.5, bound_pp=0.7)), "bound"))
        == 1
    )
    plain = draw_interval(0.2, (-0.4, 0.8), None)
    assert of_class(plain, "bound") == of_class(plain, "limit") == of_class(plain, "beyond") == []
    assert "no limit" in ElementTree.fromstring(plain).attrib["aria-label"]


def test_interval_and_bound_are_named_in_the_drawing() -> None:
    """Each above its own row, so that one sees which is which."""
    svg = draw_interval(0.2, (-0.4, 0.8), Gate(limit_pp=0.5, bound_pp=0.7))
    names = of_class(svg, "row-name")
    assert [name.text for name in names] == [
        "the drop with its two-sided 95 % interval",
        "its one-sided 95 % bound, compared with the limit",
    ]
    (whisker, *_), (line,) = of_class(svg, "whisker"), of_class(svg, "one-sided")
    heights = [number(names[0], "y"), number(whisker, "y1"), number(names[1], "y")]
    assert sorted(heights) == heights
    assert number(line, "y1") > heights[-1]


def test_a_limit_far_away_is_still_on_the_paper() -> None:
    """On either side of everything else."""
    for limit in (-20.0, 20.0):
        (line,) = of_class(draw_interval(0.0, (-0.1, 0.1), Gate(limit_pp=limit)), "limit")
        assert 14 <= number(line, "x1") <= WIDTH - 14


def bars(svg: str, role: str) -> list[float]:
    """Returns the heights of a network's bars in a histogram."""
    (area,) = [one for one in of_class(svg, "area") if role in one.attrib["class"]]
    return [
        float(a) - float(b) for a, b in re.findall(r"M[\d.]+ ([\d.]+)V([\d.]+)h", area.attrib["d"])
    ]


def test_a_histogram_holds_every_sample() -> None:
    """The heights of a network's bars stand in the ratio of the counts, and the tallest is shared."""
    heights = {role: bars(draw_histogram((SLOW, FAST)), role) for role in ("engine", "reference")}
    assert heights["engine"] == pytest.approx(
        [heights["engine"][0] * n for n in (1, 2, 1)], rel=0.01
    )
    assert max(heights["engine"]) == max(heights["reference"])


@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=50))
def test_no_sample_falls_outside_the_histogram(samples: list[float]) -> None:
    """Whatever the range, the least and the greatest are in the first and last bins in use."""
    one = Timed(role="engine", samples_ms=samples, at_s=range(len(samples)))
    svg = draw_histogram((one, one))
    starts = [
        float(x)
        for x in re.findall(r"M([\d.]+) [\d.]+V[\d.]+h", of_class(svg, "area")[0].attrib["d"])
    ]
    width = (WIDTH - LEFT - RIGHT) / BINS
    assert min(starts) >= LEFT - 0.1
    assert max(starts) + width <= WIDTH - RIGHT + 0.1


def test_the_distribution_rises_to_all_samples() -> None:
    """From nothing at the left end to everything at the other, through a quarter for each of four."""
    curve = next(
        c for c in of_class(draw_ecdf((SLOW, FAST)), "curve") if "engine" in c.attrib["class"]
    )
    levels = [float(y) for y in re.findall(r"V([\d.]+)", curve.attrib["d"])]
    bottom = HEIGHT - BOTTOM
    shares = [(bottom - level) / (bottom - TOP) for level in levels]
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1.0], abs=0.001)


def test_a_long_distribution_is_thinned_without_a_visible_change() -> None:
    """Of 50,000 samples no more steps are kept than paper can show, and it still ends at all."""
    many = Timed(
        role="engine", samples_ms=[5 + i / 50_000 for i in range(50_000)], at_s=range(50_000)
    )
    (first, _) = of_class(draw_ecdf((many, many)), "curve")
    steps = first.attrib["d"]
    assert len(steps) < 20_000
    equal = Timed(role="engine", samples_ms=[5.0] * 1001, at_s=range(1001))
    for one in (many, equal):
        (drawn, _) = of_class(draw_ecdf((one, one)), "curve")
        assert f"V{TOP:.1f}" in drawn.attrib["d"]


def test_a_time_line_has_every_sample_and_marks_outliers() -> None:
    """Dots at their times, a tick above each outlier, a shade behind each block."""
    (svg,) = draw_time_lines([SLOW])
    (dots,) = of_class(svg, "dots")
    places = [tuple(map(int, p)) for p in re.findall(r"M(\d+) (\d+)h0", dots.attrib["d"])]
    assert [x for x, _ in places] == pytest.approx(
        [LEFT + t / 4 * (WIDTH - LEFT - RIGHT) for t in SLOW.at_s], abs=0.5
    )
    (tick,) = of_class(svg, "outlier")
    assert number(tick, "x1") == number(tick, "x2") == pytest.approx(places[-1][0], abs=0.51)
    assert number(tick, "y1") == TOP
    assert len(of_class(svg, "block")) == 2
    assert of_class(draw_time_lines([FAST])[0], "block") == []


def test_both_time_lines_have_one_scale() -> None:
    """A time and a latency stand at the same place in both, whatever the samples of each."""

    def place(svg: str, index: int) -> tuple[int, ...]:
        places = re.findall(r"M(\d+) (\d+)h0", of_class(svg, "dots")[0].attrib["d"])
        return tuple(map(int, places[index]))

    both = Timed(role="engine", samples_ms=(50.0,), at_s=(1.5,))
    slow, fast = draw_time_lines([SLOW, both])
    assert place(slow, 1) == place(fast, 0)
    ticks = [
        [one.text for one in ElementTree.fromstring(svg).iter() if one.tag.endswith("text")]
        for svg in (slow, fast)
    ]
    assert ticks[0] == ticks[1]


def test_the_ticks_of_outliers_have_an_end() -> None:
    """A measurement full of outliers keeps the drawing small."""
    count = 5 * MARKED
    wild = Timed(role="engine", samples_ms=[1.0] * count, at_s=range(count), outliers=range(count))
    assert len(of_class(draw_time_lines([wild])[0], "outlier")) == MARKED

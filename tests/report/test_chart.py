"""Axes have round marks, and a plot puts its points at their values, as an SVG file of its own."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeres.errors import ConfigError
from edgeres.report import Line, Plot, draw_plot_svg
from edgeres.report.chart import Scale, around, around_log, enclosing_ticks

LINES = (
    Line(label="a < b", points=((0, 1.0), (10, 100.0), (20, 10_000.0))),
    Line(label="other", points=((5, 50.0),), dashed=True),
)


def plot(lines: tuple[Line, ...] = LINES, *, log_y: bool = False) -> Plot:
    """Returns these lines as a plot."""
    return Plot(title="T & t", x_label="x", y_label="y", lines=lines, log_y=log_y)


def circles(svg: str) -> list[tuple[float, float]]:
    """Returns the middle of each point that is drawn."""
    drawn = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}circle")
    return [(float(each.attrib["cx"]), float(each.attrib["cy"])) for each in drawn]


def tick(svg: str, label: str, axis: str) -> float:
    """Returns the pixel of the grid line that carries this label."""
    steps = "M([0-9.]+) [0-9]+V" if axis == "x" else "M[0-9]+ ([0-9.]+)H"
    anchor = "middle" if axis == "x" else "end"
    pattern = rf'<path d="{steps}[^>]*/><text [^>]*text-anchor="{anchor}">{label}</text>'
    (place,) = re.findall(pattern, svg)
    return float(place)


@pytest.mark.parametrize("log_y", [False, True])
def test_points_stand_at_their_values(log_y: bool) -> None:
    """Where the grid lines of the same values are."""
    svg = draw_plot_svg(plot(log_y=log_y))
    first, _, last, _ = circles(svg)
    assert first[0] == pytest.approx(tick(svg, "0", "x"), abs=0.06)
    assert last[0] == pytest.approx(tick(svg, "20", "x"), abs=0.06)
    assert last[1] == pytest.approx(tick(svg, "10000", "y"), abs=0.06)


def test_a_logarithmic_axis_gives_equal_steps_to_equal_factors() -> None:
    """1, 100 and 10,000 are evenly spaced; on a linear axis they are not."""
    log, linear = (circles(draw_plot_svg(plot(log_y=log_y)))[:3] for log_y in (True, False))
    assert log[0][1] - log[1][1] == pytest.approx(log[1][1] - log[2][1], abs=0.2)
    assert linear[0][1] - linear[1][1] < 10 < linear[1][1] - linear[2][1]


def test_lines_of_a_group_share_their_colour() -> None:
    """One hue a network, dashed or not; lines without a group have one each."""
    points = ((0.0, 1.0), (1.0, 2.0))
    named = [("a", "a, new"), ("a", "a, trained"), ("b", "b, new"), ("", "c"), ("", "d")]
    lines = tuple(Line(label=label, points=points, group=group) for group, label in named)
    drawn = ElementTree.fromstring(draw_plot_svg(plot(lines)))
    paths = [each for each in drawn.iter() if each.get("stroke-width") == "1.8"]
    colours = [each.attrib["stroke"] for each in paths if "L" in each.attrib["d"]]
    assert colours[0] == colours[1]
    assert len(set(colours)) == 4


def test_text_is_escaped_and_labels_are_there() -> None:
    """Title, axes and legend, readable by an XML parser."""
    root = ElementTree.fromstring(draw_plot_svg(plot()))
    texts = {each.text for each in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"T & t", "x", "y", "a < b", "other"} <= texts


@pytest.mark.parametrize("points", [((1.0, 2.0),), ((1.0, 0.0), (2.0, 0.0)), ((3.0, -7.0),)])
def test_values_without_a_range_are_drawn(points: tuple[tuple[float, float], ...]) -> None:
    """A single point, or one height, inside the frame."""
    for x, y in circles(draw_plot_svg(plot((Line(label="a", points=points),)))):
        assert 84 <= x <= 560
        assert 70 <= y <= 380


@pytest.mark.parametrize(
    ("points", "log_y", "message"),
    [
        ((), False, "'T & t' needs points"),
        (((0.0, float("nan")),), False, "all of finite numbers"),
        (((0.0, 0.0),), True, "a y that is not positive"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    points: tuple[tuple[float, float], ...], log_y: bool, message: str
) -> None:
    """No points, no numbers, or no logarithm."""
    with pytest.raises(ConfigError) as refused:
        plot((Line(label="a", points=points),), log_y=log_y)
    assert message in str(refused.value)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(3, 9))
def test_marks_are_round_and_inside(low: float, span: float, count: int) -> None:
    """A straight axis has marks at equal steps of 1, 2 or 5, about as many as requested."""
    ticks = Scale(low=low, high=low + span, start=0, end=1).ticks(count)
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in ticks)
    assert (count - 1) / 2.5 - 1 <= len(ticks) <= count + 1


def test_marks_of_an_axis_are_those_that_a_hand_draws() -> None:
    """0 to 1 in fifths; 3 to 70 on a logarithmic axis at 5, 10, 20 and 50."""
    assert Scale(low=0, high=1, start=0, end=1).ticks(5) == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert Scale(low=3, high=70, start=0, end=1, log=True).ticks(5) == (5.0, 10.0, 20.0, 50.0)
    assert Scale(low=5.2, high=5.9, start=0, end=1, log=True).ticks(4) == (5.2, 5.4, 5.6, 5.8)


def test_equal_ratios_are_equal_distances() -> None:
    """On a logarithmic axis 10 stands in the middle of 1 and 100."""
    scale = Scale(low=1, high=100, start=0, end=200, log=True)
    assert [scale(value) for value in (1, 10, 100)] == pytest.approx([0, 100, 200])


@pytest.mark.parametrize(("low", "high", "log"), [(1, 1, False), (2, 1, False), (0, 1, True)])
def test_an_axis_without_length_is_refused(low: float, high: float, log: bool) -> None:
    """So is a logarithmic one that begins at zero."""
    with pytest.raises(ValueError, match="spans no"):
        Scale(low=low, high=high, start=0, end=1, log=log)


def test_a_range_of_one_value_is_widened() -> None:
    """Also of zero, and on a logarithmic axis."""
    assert around([5.0], 0.1) == (4.5, 5.5)
    assert around([0.0], 0.1) == (-1.0, 1.0)
    low, high = around_log([7.0, 7.0])
    assert low < 7 < high


@pytest.mark.parametrize(
    ("values", "log", "ticks"),
    [
        ([3.0, 58.0], False, [0, 20, 40, 60]),
        ([0.0, 1.0], False, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ([5.0], False, [5.0, 10.0]),
        ([0.002, 30.0], True, [0.001, 0.01, 0.1, 1.0, 10.0, 100.0]),
        ([1.0, 1e9], True, [1.0, 100.0, 1e4, 1e6, 1e8, 1e10]),
    ],
)
def test_a_plots_marks_enclose_its_values(
    values: list[float], log: bool, ticks: list[float]
) -> None:
    """The first and last mark are the ends of the axis; a mark is a round number or a decade."""
    assert enclosing_ticks(values, log=log) == pytest.approx(ticks)

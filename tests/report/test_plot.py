"""A plot puts its points where the axes say, and is an SVG file of its own."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from edgeres.errors import ConfigError
from edgeres.report import Line, Plot, draw_plot_svg

LINES = (
    Line(label="a < b", points=((0, 1.0), (10, 100.0), (20, 10_000.0))),
    Line(label="other", points=((5, 50.0),), dashed=True),
)


def plot(lines: tuple[Line, ...] = LINES, *, log_y: bool = False) -> Plot:
    """Returns these lines as a plot."""
    return Plot(title="T & t", x_label="x", y_label="y", lines=lines, log_y=log_y)


def circles(svg: str) -> list[tuple[float, float]]:
    """Returns the middle of each point that is drawn."""
    found = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}circle")
    return [(float(each.attrib["cx"]), float(each.attrib["cy"])) for each in found]


def tick(svg: str, label: str, axis: str) -> float:
    """Returns the pixel of the grid line that carries this label."""
    steps = "M([0-9.]+) [0-9]+V" if axis == "x" else "M[0-9]+ ([0-9.]+)H"
    anchor = "middle" if axis == "x" else "end"
    pattern = rf'<path d="{steps}[^>]*/><text [^>]*text-anchor="{anchor}">{label}</text>'
    (found,) = re.findall(pattern, svg)
    return float(found)


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
    ("points", "log_y", "said"),
    [
        ((), False, "'T & t' needs points"),
        (((0.0, float("nan")),), False, "all of finite numbers"),
        (((0.0, 0.0),), True, "a y that is not positive"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    points: tuple[tuple[float, float], ...], log_y: bool, said: str
) -> None:
    """No points, no numbers, or no logarithm."""
    with pytest.raises(ConfigError) as refused:
        plot((Line(label="a", points=points),), log_y=log_y)
    assert said in str(refused.value)

"""Calibrated ranges against those of the evaluated images: figures by hand, and what is no alarm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeres.evaluation.mistakes import RangeShift, range_shift
from edgeres.evaluation.mistakes.ranges import FOREIGN

HALVES = ({"a": 2.0, "b": 8.0, "c": 1.0}, {"a": 2.0, "b": 2.0, "c": 1.0})
"""Geometric means 2, 4 and 1; the halves differ by 0, 2 and 0 in log2."""


def shift(calibrated: dict[str, float]) -> RangeShift:
    """Returns how far ranges are from those of `HALVES`."""
    result = range_shift(calibrated, HALVES, images=64)
    assert result is not None
    return result


def test_the_figures_are_those_by_hand() -> None:
    """log2 of 8/2, 4/4 and 0.5/1: 2, 0 and -1."""
    result = shift({"a": 8.0, "b": 4.0, "c": 0.5})
    assert result.distance == pytest.approx(1.0)
    assert result.chance == pytest.approx(2 / 3)
    assert (result.activations, result.coarse, result.clipped) == (3, 1, 1)
    assert (result.worst, result.worst_calibrated, result.worst_observed) == ("a", 8.0, 2.0)


def test_an_alarm_says_its_figures_and_what_to_do() -> None:
    """The factors, how many activations suffer, and the worst of them."""
    result = shift({"a": 8.0, "b": 64.0, "c": 0.5})
    assert result.is_foreign
    assert result.sentence == (
        "The engine was calibrated on images unlike these: its ranges are a factor of 5.04 from "
        "those of 64 evaluated images, whose own halves differ by 1.59. 1 of 3 activations are "
        "clipped, 2 are coarser than needed; the worst is 'b' with 64 where 4 is observed. Calibrate "
        "again on images of the kind that the engine will see, prepared in the same way."
    )


def test_what_the_images_vary_by_themselves_is_no_alarm() -> None:
    """A distance beyond the fixed limit, but not twice that between the halves."""
    result = shift({"a": 8.0, "b": 4.0, "c": 0.5})
    assert result.distance > FOREIGN
    assert not result.is_foreign


def test_the_same_kind_of_images_is_no_alarm() -> None:
    """A tenth more or less everywhere is what another draw makes."""
    same = ({"a": 2.0, "b": 4.0}, {"a": 2.0, "b": 4.0})
    result = range_shift({"a": 2.2, "b": 3.6}, same, images=64)
    assert result is not None
    assert not result.is_foreign


@given(ranges=st.lists(st.floats(0.01, 100), min_size=1, max_size=8), factor=st.floats(0.001, 1000))
def test_units_do_not_matter(ranges: list[float], factor: float) -> None:
    """A network whose activations are all so many times larger has the same distance."""
    names = [str(place) for place in range(len(ranges))]
    table = dict(zip(names, ranges, strict=True))
    observed = dict(zip(names, reversed(ranges), strict=True))
    scaled = [{name: factor * value for name, value in one.items()} for one in (table, observed)]
    plain = range_shift(table, (observed, observed), images=2)
    larger = range_shift(scaled[0], (scaled[1], scaled[1]), images=2)
    assert plain is not None
    assert larger is not None
    assert larger.distance == pytest.approx(plain.distance, abs=1e-9)


def test_activations_that_are_zero_say_nothing() -> None:
    """A dead one is left out, and nothing at all is told where none is left."""
    halves = ({"a": 2.0, "dead": 0.0}, {"a": 2.0, "dead": 0.0})
    result = range_shift({"a": 2.0, "dead": 1.0, "gone": 1.0}, halves, images=2)
    assert result is not None
    assert result.activations == 1
    assert range_shift({"dead": 0.0}, halves, images=2) is None

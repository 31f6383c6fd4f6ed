"""Pareto fronts, compared with a search over all pairs, and by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeres.evaluation.fronts import Point, standings


def _point(name: str, top1: float, ms: float | None, per_s: float | None, group: int = 1) -> Point:
    return Point(name=name, group=group, top1=top1, latency_ms=ms, images_per_s=per_s)


def test_latency_is_compared_within_a_batch_and_throughput_across() -> None:
    """A batch of 8 takes longer than one image, and is no slower for that."""
    one, eight, worse = standings(
        [
            _point("one", 0.9, 1.0, 1000.0),
            _point("eight", 0.9, 4.0, 2000.0, group=8),
            _point("worse", 0.8, 1.0, 1000.0),
        ]
    )
    assert (one.on_latency_front, one.on_throughput_front) == (True, False)
    assert (eight.on_latency_front, eight.on_throughput_front) == (True, True)
    assert worse.dominated_by == ("one",)
    assert not worse.on_latency_front


def test_what_was_not_timed_is_on_no_front_and_dominates_nothing() -> None:
    """An estimate or a simulation has no latency of its own."""
    timed, untimed = standings([_point("timed", 0.5, 1.0, 1.0), _point("not", 0.9, None, None)])
    assert timed.on_latency_front
    assert not untimed.on_latency_front


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 2)), min_size=1, max_size=8
    )
)
def test_the_front_is_what_no_other_run_beats(values: list[tuple[int, int, int]]) -> None:
    """By the definition, pair by pair."""
    points = [
        _point(str(i), top1, float(ms), float(group / ms), group)
        for i, (top1, ms, group) in enumerate(values)
    ]
    for point, place in zip(points, standings(points), strict=True):
        beaten = [
            other.name
            for other in points
            if other.group == point.group
            and other.top1 >= point.top1
            and (other.latency_ms or 0) <= (point.latency_ms or 0)
            and (other.top1, other.latency_ms) != (point.top1, point.latency_ms)
        ]
        assert list(place.dominated_by) == beaten
        assert place.on_latency_front is not bool(beaten)

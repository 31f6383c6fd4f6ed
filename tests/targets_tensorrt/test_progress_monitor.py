"""NVIDIA's phases within phases as one fraction that only grows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeres.targets.tensorrt.progress_monitor import Phases


def test_a_phase_within_a_step() -> None:
    """Half of the second of four steps is three eighths."""
    phases = Phases()
    phases.start("build", None, 4)
    phases.step("build", 0)
    phases.start("tactics", "build", 10)
    for step in range(5):
        phases.step("tactics", step)
    assert phases.fraction() == pytest.approx(0.25 + 0.25 * 0.5)
    phases.finish("tactics")
    phases.step("build", 1)
    assert phases.fraction() == pytest.approx(0.5)


def test_the_outermost_phase_ends_at_one() -> None:
    """Also when NVIDIA skips its last steps, as it may."""
    phases = Phases()
    phases.start("build", None, 6)
    phases.step("build", 2)
    phases.finish("build")
    assert phases.fraction() == 1


def test_it_never_goes_back() -> None:
    """A phase that is entered twice starts anew; the bar does not."""
    phases = Phases()
    phases.start("build", None, 2)
    phases.start("tactics", "build", 2)
    phases.step("tactics", 1)
    before = phases.fraction()
    phases.start("tactics", "build", 200)
    assert phases.fraction() == before


def test_what_was_not_started_is_left_alone() -> None:
    """NVIDIA finishes phases early, and says a step of one more."""
    phases = Phases()
    phases.finish("never")
    phases.step("never", 3)
    assert phases.fraction() == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=30))
def test_any_order_of_calls_stays_within_bounds(calls: list[tuple[str, int]]) -> None:
    """From 0 to 1, growing."""
    phases, last = Phases(), 0.0
    for name, step in calls:
        if step == 0:
            phases.start(name, "abc"["abc".index(name) - 1] if name != "a" else None, 3)
        elif step == 5:
            phases.finish(name)
        else:
            phases.step(name, step)
        assert last <= phases.fraction() <= 1
        last = phases.fraction()

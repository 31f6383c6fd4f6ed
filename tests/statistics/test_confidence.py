"""The expected calibration error against a count by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeres.statistics import expected_calibration_error


def test_the_gap_is_averaged_over_bins() -> None:
    """Two bins: three images of 0.4 with one correct, and one of 0.9 that is wrong."""
    sure = np.array([0.4, 0.4, 0.4, 0.9], np.float32)
    correct = np.array([True, False, False, False])
    expected = 3 / 4 * abs(0.4 - 1 / 3) + 1 / 4 * 0.9
    assert expected_calibration_error(sure, correct, bins=2) == pytest.approx(expected, abs=1e-7)


def test_opposite_gaps_in_one_bin_cancel() -> None:
    """Only the bin's mean counts, and 0.5 belongs to the lower of two."""
    sure = np.array([0.5, 0.5], np.float32)
    assert expected_calibration_error(sure, np.array([True, False]), bins=2) == 0.0


def test_a_network_that_is_always_sure_and_right_has_no_gap() -> None:
    """A confidence of 1 falls into the last bin."""
    assert expected_calibration_error(np.ones(5, np.float32), np.ones(5, np.bool_)) == 0.0


@given(
    st.lists(st.tuples(st.floats(0.015625, 1, width=32), st.booleans()), min_size=1, max_size=50)
)
def test_it_is_that_of_a_loop_over_the_bins(images: list[tuple[float, bool]]) -> None:
    """The definition, bin by bin, with the edges compared in exact products."""
    sure, correct = (np.array(column) for column in zip(*images, strict=True))
    place = np.ceil(sure.astype(np.float64) * 15)
    expected = sum(
        (place == b).mean() * abs(sure[place == b].mean() - correct[place == b].mean())
        for b in range(1, 16)
        if (place == b).any()
    )
    error = expected_calibration_error(sure.astype(np.float32), correct)
    assert error == pytest.approx(expected, abs=1e-6)

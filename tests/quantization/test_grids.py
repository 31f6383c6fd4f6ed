"""The grids: their integers, and the scale that an extreme gives them."""

from __future__ import annotations

import numpy as np
import pytest

from edgeres.quantization.grids import INT8, UINT8, Grid


@pytest.mark.parametrize(("grid", "least"), [(INT8, -127), (UINT8, 0)])
def test_an_extreme_is_the_largest_integer(grid: Grid, least: int) -> None:
    """Amax over its scale is qmax; beyond it, and below the least integer, values saturate."""
    scale = grid.scale_from_amax(6.0)
    assert scale == np.float32(6.0 / grid.qmax)
    steps = np.array([6.0, 7.0, -1000.0, 0.0], np.float32) / scale
    assert grid.nearest(steps).tolist() == [grid.qmax, grid.qmax, least, 0]


def test_half_a_step_goes_to_the_even_integer() -> None:
    """As QuantizeLinear rounds."""
    assert INT8.nearest(np.array([0.5, 1.5, 2.5, -0.5, -1.5])).tolist() == [0, 2, 2, 0, -2]


@pytest.mark.parametrize("grid", [INT8, UINT8])
@pytest.mark.parametrize("amax", [0.0, 1e-45])
def test_a_dead_tensor_has_the_scale_of_one(grid: Grid, amax: float) -> None:
    """No scale is zero or subnormal."""
    assert grid.scale_from_amax(amax) == np.float32(1 / grid.qmax)

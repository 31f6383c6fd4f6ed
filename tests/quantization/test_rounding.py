"""The grid of recovered weights: every lowering finds the same integers on it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeres.quantization.fp16.typed import half_scale
from edgeres.quantization.rounding import grid_scales, in_steps, on_grid, pack, unpack
from edgeres.quantization.weights import quantize_weight, weight_scales

Array = NDArray[np.float32]


def weights(seed: int, size: float = 0.1) -> Array:
    """Returns (6, 4, 3, 3) from a normal distribution."""
    generator = np.random.default_rng(seed)
    return generator.normal(0, size, (6, 4, 3, 3)).astype(np.float32)


def bits_of(weight: Array, seed: int) -> NDArray[np.bool_]:
    """Returns random rounding bits."""
    return np.random.default_rng(seed).random(weight.shape) < 0.5


def integers(weight: Array, scales: Array) -> NDArray[np.int8]:
    """Returns what a lowering stores of a weight."""
    return quantize_weight(weight, scales, axis=0).values


@given(seed=st.integers(0, 1000), size=st.sampled_from([1e-9, 1e-4, 0.1, 10.0, 1e5]))
def test_bits_only_floor_or_ceil(seed: int, size: float) -> None:
    """Each weight goes to one of its two neighbours, or to the end that it was beyond."""
    weight = weights(seed, size)
    scales = grid_scales(weight)
    steps = in_steps(weight, scales)
    found = in_steps(on_grid(weight, scales, bits_of(weight, seed)), scales)
    chosen = np.where(bits_of(weight, seed), np.floor(steps) + 1, np.floor(steps))
    expected = np.where(np.abs(steps) >= 127, np.sign(steps) * 127, chosen)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@given(seed=st.integers(0, 1000), size=st.sampled_from([1e-9, 1e-4, 0.1, 10.0, 1e5]))
def test_lowerings_keep_the_bits(seed: int, size: float) -> None:
    """Rounding a recovered weight to the nearest on amax / 127 gives the integers that were chosen."""
    weight = weights(seed, size)
    scales = grid_scales(weight)
    recovered = on_grid(weight, scales, bits_of(weight, seed))
    chosen = np.rint(in_steps(recovered, scales))
    assert np.array_equal(integers(recovered, weight_scales(recovered, axis=0)), chosen)


@given(seed=st.integers(0, 1000))
def test_the_fp16_form_keeps_the_bits(seed: int) -> None:
    """Scales of the usual size are FP16's already, so that rounding them changes none."""
    weight = weights(seed)
    recovered = on_grid(weight, grid_scales(weight), bits_of(weight, seed))
    scales = weight_scales(recovered, axis=0)
    assert np.array_equal(half_scale(scales), scales)
    assert np.array_equal(scales, grid_scales(weight))


def test_the_scale_is_just_below_amax() -> None:
    """At most 0.1 % of the channel's extreme is clipped."""
    weight = weights(0)
    ratio = grid_scales(weight) / weight_scales(weight, axis=0)
    assert ((ratio > 0.999) & (ratio <= 1)).all()


def test_a_dead_channel_has_a_positive_scale() -> None:
    """And stays zero, whichever way it is rounded to the nearest."""
    weight = weights(0)
    weight[2] = 0
    assert (grid_scales(weight) > 0).all()
    assert not on_grid(weight, grid_scales(weight))[2].any()


def test_bits_come_back() -> None:
    """Packing and unpacking any number of bits is the identity; the first is the highest."""
    up = np.array([True, False, False, True, True, False, True, False, True])
    assert pack(up) == bytes([0b10011010, 0b10000000])
    assert np.array_equal(unpack(pack(up), (3, 3)), up.reshape(3, 3))


def test_too_few_bits_are_refused() -> None:
    """A string of another length belongs to another weight."""
    with pytest.raises(ValueError, match="1 bytes of rounding bits for 9 weights"):
        unpack(b"\x00", (3, 3))

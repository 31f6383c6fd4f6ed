"""Grids of weights, biases and activations by their defining properties."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from onnx import parser

from edgeres.quantization.grids import INT8, UINT8
from edgeres.quantization.weights import (
    clipped,
    least_weight_scales,
    mse_weight_scales,
    quantize_bias,
    quantize_weight,
    weight_scales,
)

Array = NDArray[np.float32]

GRIDS = {
    "s8": (INT8, 0, -128, 127),
    "u8 with zero point 128": (INT8, 128, 0, 255),
    "u8 behind a ReLU": (UINT8, 0, 0, 255),
}
"""Grid, zero point, least and largest integer."""


@cache
def _session(dtype: str) -> Any:
    """Returns ONNX Runtime's own QuantizeLinear and DequantizeLinear, one after the other."""
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> '
        f"pair (float[N] x, float scale, {dtype} zero) => ({dtype}[N] q, float[N] y) "
        "{ q = QuantizeLinear(x, scale, zero)\n y = DequantizeLinear(q, scale, zero) }"
    )
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


_VALUES = hnp.arrays(
    np.float32,
    st.integers(1, 60),
    elements=st.floats(-100, 100, width=32, allow_subnormal=False),
)
_AMAX = st.floats(2.0**-10, 64, width=32)
_WEIGHTS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=4, max_side=5),
    elements=st.floats(-4, 4, width=32, allow_subnormal=False),
)


@pytest.mark.parametrize("name", GRIDS)
@settings(deadline=None)
@given(values=_VALUES, amax=_AMAX)
def test_a_grid_rounds_saturates_and_keeps_zero(name: str, values: Array, amax: float) -> None:
    """Half a step at most inside the range, the end of the range outside, zero for zero."""
    grid, zero, least, largest = GRIDS[name]
    scale = grid.scale_from_amax(amax)
    dtype = "int8" if name == "s8" else "uint8"
    feed = {
        "x": np.append(values, np.float32(0)),
        "scale": np.array(scale),
        "zero": np.array(zero, dtype),
    }
    integers, restored = _session(dtype).run(None, feed)
    steps = feed["x"] / scale
    np.testing.assert_array_equal(integers, np.clip(np.rint(steps) + zero, least, largest))
    low, high = (least - zero) * float(scale), (largest - zero) * float(scale)
    nearest = np.clip(feed["x"].astype(np.float64), low, high)
    # A step more than a half by float32's rounding of x / scale.
    assert (np.abs(restored - nearest) <= float(scale) * (0.5 + 1e-4)).all()
    assert restored[-1] == 0


@settings(deadline=None)
@given(values=_VALUES, amax=_AMAX)
def test_u8_with_zero_point_128_is_s8(values: Array, amax: float) -> None:
    """Value for value the same, so one threshold serves both."""
    feed = {"x": values, "scale": np.array(INT8.scale_from_amax(amax))}
    s8 = _session("int8").run(["y"], {**feed, "zero": np.array(0, "int8")})
    u8 = _session("uint8").run(["y"], {**feed, "zero": np.array(128, "uint8")})
    np.testing.assert_array_equal(s8, u8)


@settings(deadline=None)
@given(weight=_WEIGHTS, data=st.data())
def test_weights_are_symmetric_and_within_half_a_step(weight: Array, data: st.DataObject) -> None:
    """Integers stay in [-127, 127] and mirror with the sign; each is the nearest one."""
    axis = data.draw(st.integers(0, weight.ndim - 1))
    scales = weight_scales(weight, axis)
    quantized = quantize_weight(weight, scales, axis)
    assert quantized.values.dtype == np.int8
    assert np.abs(quantized.values.astype(int)).max() <= 127
    np.testing.assert_array_equal(quantize_weight(-weight, scales, axis).values, -quantized.values)
    steps = np.moveaxis(weight, axis, -1) / scales
    assert np.abs(np.moveaxis(quantized.values, axis, -1) - steps).max() <= 0.5 + 1e-4


@settings(deadline=None)
@given(weight=_WEIGHTS, data=st.data())
def test_per_channel_is_per_tensor_for_each_channel(weight: Array, data: st.DataObject) -> None:
    """Channels quantized one by one and stacked give the same integers and scales."""
    axis = data.draw(st.integers(0, weight.ndim - 1))
    scales = weight_scales(weight, axis)
    parts = []
    for scale, channel in zip(scales, np.moveaxis(weight, axis, 0), strict=True):
        assert scale == INT8.scale_from_amax(float(np.abs(channel).max()))
        parts.append(np.clip(np.rint(channel / scale), -127, 127))
    expected = np.moveaxis(np.stack(parts), 0, axis)
    np.testing.assert_array_equal(quantize_weight(weight, scales, axis).values, expected)


def _plain_mse_share(channel: Array, least: int) -> int:
    """Returns the best of the fractions `least` / 256 to 1, in 256ths, one by one in float64."""
    values = channel.astype(np.float64).ravel()
    largest = float(INT8.scale_from_amax(float(np.abs(values).max())))

    def error(fraction: int) -> float:
        scale = largest * fraction / 256
        restored = np.clip(np.rint(values / scale), -127, 127) * scale
        return float(np.square(restored - values).sum())

    return min(range(256, least - 1, -1), key=error)


@pytest.mark.parametrize("taps", [1, 9, 64, 576, 4608])
def test_weights_by_mse_are_the_best_of_a_plain_search(taps: int) -> None:
    """On normal and heavy-tailed channels of any size; never more error than by max."""
    generator = np.random.default_rng(taps)
    weight = np.concatenate(
        [generator.standard_normal((12, taps)), generator.standard_t(3, (12, taps))]
    ).astype(np.float32)
    found, largest = mse_weight_scales(weight, axis=0), weight_scales(weight, axis=0)
    fractions = [_plain_mse_share(channel, 232) for channel in weight]
    plain = (largest * np.array(fractions) / 256).astype(np.float32)
    errors = [
        np.square(quantize_weight(weight, scales, 0).values * scales[:, None] - weight).sum(axis=1)
        for scales in (found, plain, largest)
    ]
    np.testing.assert_allclose(errors[0], errors[1], rtol=1e-3, atol=1e-12)
    assert (errors[0] <= errors[2] * 1.001).all()


def test_no_wider_search_finds_better_weights() -> None:
    """Not of thousands of weights with one outlier, which is clipped by 2 % as the formula says."""
    weight = np.random.default_rng(0).uniform(-0.5, 0.5, (8, 4608)).astype(np.float32)
    weight[:, 0] = 1
    fractions = mse_weight_scales(weight, axis=0) / weight_scales(weight, axis=0)
    assert abs(fractions.mean() - 1 / (1 + 4608 / (12 * 127**2))) < 0.01
    for channel, fraction in zip(weight, fractions, strict=True):
        assert fraction * 256 == pytest.approx(_plain_mse_share(channel, 128), abs=1e-3)


def test_clipped_weights_have_the_scales_they_were_clipped_to() -> None:
    """What a lowering finds in them, dead channels and all."""
    weight = np.random.default_rng(0).standard_normal((16, 8, 3, 3)).astype(np.float32)
    weight[3] = 0
    scales = mse_weight_scales(weight, axis=0)
    inside = clipped(weight, scales)
    np.testing.assert_allclose(weight_scales(inside, axis=0), scales, rtol=1e-6)
    assert np.array_equal(
        quantize_weight(inside, weight_scales(inside, axis=0), 0).values,
        quantize_weight(weight, scales, 0).values,
    )


def test_half_is_rounded_to_even_and_both_ends_are_127() -> None:
    """0.5, 1.5 and 2.5 steps go to 0, 2 and 2, as ONNX's QuantizeLinear has it; -128 is unused."""
    weight = np.array([[0.5, 1.5, 2.5, -0.5, -1.5, 300, -300]], np.float32)
    quantized = quantize_weight(weight, np.ones(1, np.float32), 0)
    assert quantized.values.tolist() == [[0, 2, 2, 0, -2, 127, -127]]


@settings(max_examples=50, deadline=None)
@given(
    bias=st.floats(-100, 100, width=32),
    input_scale=st.floats(2.0**-12, 1, width=32),
    weight_scale=st.floats(2.0**-110, 1, width=32),
)
def test_no_bias_leaves_int32(bias: float, input_scale: float, weight_scale: float) -> None:
    """With the least scale applied every bias comes back within half a unit."""
    assume(bias == 0 or abs(bias) > 1e-6)
    values = np.array([bias], np.float32)
    least = least_weight_scales(values, input_scale)
    units = np.maximum(np.float32(weight_scale), least) * np.float32(input_scale)
    stored = quantize_bias(values, units)
    assert abs(int(stored[0])) <= 2**30 * (1 + 1e-6)
    assert abs(float(stored[0]) * float(units[0]) - bias) <= float(units[0]) * 0.501


def test_a_bias_without_the_least_scale_would_wrap() -> None:
    """Seeded fault: in units of a nearly dead channel's scale the bias is no int32."""
    with pytest.warns(RuntimeWarning, match="invalid value"):
        quantize_bias(np.array([3.0], np.float32), np.array([1e-12], np.float32))

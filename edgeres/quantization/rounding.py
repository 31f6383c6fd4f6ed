"""The grid that recovery rounds weights on: one that every lowering finds again by itself.

A recovered weight is a float that lies on the grid exactly, with its channel's extreme at 127
steps, so `weight_scales` returns the grid's own scale and rounding to the nearest changes
nothing. The scale is one that FP16 holds, so that the FP16 form keeps the same integers too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeres.quantization.grids import INT8
from edgeres.quantization.weights import by_channel, weight_scales

_FP16_NORMAL = (2.0**-14, 65504.0)
"""Where FP16 has all of its 11 bits. Source: IEEE 754, binary16."""


def grid_scales(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns a scale for each output channel, (O,), at or just below amax / 127.

    Rounded down to FP16 where that has its full precision: at most 0.1 % of the channel's
    extreme, an eighth of a step, is clipped. Elsewhere one unit of FP32 below.

    Args:
        weight: (O, ...) float32.
    """
    scales = weight_scales(weight, axis=0)
    clipped = scales.clip(*_FP16_NORMAL)
    half = clipped.astype(np.float16)
    # Down, never up: with a larger scale the extreme would be less than 127 steps, and the scale
    # that a lowering finds from it another one.
    half = np.where(half > clipped, np.nextafter(half, np.float16(0)), half).astype(np.float32)
    return np.where(clipped == scales, half, np.nextafter(scales, np.float32(0)))


def on_grid(
    weight: NDArray[np.float32], scales: NDArray[np.float32], up: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Returns the weight on its grid, float32 of the same shape.

    Args:
        weight: (O, ...) float32.
        scales: (O,), from `grid_scales`.
        up: which weights to round up, the others down; None rounds each to the nearest. What
            lies beyond 127 steps is clipped to them.
    """
    steps = in_steps(weight, scales)
    rounded = np.rint(steps) if up is None else np.floor(steps) + up
    # At the extreme whatever `up` says: the end of the grid must be met for its scale to be found.
    beyond = np.abs(steps) >= INT8.qmax
    rounded = np.where(beyond, np.sign(steps) * INT8.qmax, rounded)
    return (rounded * by_channel(scales, weight.ndim)).astype(np.float32)


def in_steps(weight: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the weight in units of its channel's scale, not rounded."""
    return weight / by_channel(scales, weight.ndim)


def pack(up: NDArray[np.bool_]) -> bytes:
    """Returns the bits of a weight, in C order, the first in the highest bit of the first byte."""
    return np.packbits(up).tobytes()


def unpack(bits: bytes, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Returns the bits of a weight of that shape.

    Raises:
        ValueError: there are not as many bytes as the shape needs.
    """
    count = int(np.prod(shape))
    if len(bits) != -(-count // 8):
        raise ValueError(f"{len(bits)} bytes of rounding bits for {count} weights")
    packed = np.frombuffer(bits, np.uint8)
    return np.unpackbits(packed, count=count).astype(np.bool_).reshape(shape)

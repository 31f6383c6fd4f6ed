"""The grids that real values are rounded to: which numbers there are, and their scale.

A value is scale * number on every grid here, so zero is exact; where a runtime stores an integer
with a zero point added, as ONNX Runtime's u8 kernels want of signed values, is that runtime's
matter and changes no value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeres.core.precision import Precision

_Float = TypeVar("_Float", np.float32, np.float64)

_LEAST_AMAX = float(np.finfo(np.float32).tiny) * 2**24
"""Below it a scale, or its product with another, is subnormal and may underflow to zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Numbers from `qmin` to `qmax`, in units of a scale; symmetric where `qmin` is -`qmax`."""

    qmin: int
    qmax: int
    precision: Precision
    """That has these numbers."""
    mantissa_bits: int | None = None
    """Of a grid of floating-point numbers; None for integers."""
    least_exponent: int = 0
    """Of the smallest normal number, where there is a mantissa."""

    def scale_from_amax(self, amax: float) -> np.float32:
        """Returns the positive float32 scale with which `qmax` stands for `amax`.

        A tensor or channel that is always zero gets 1 / qmax: it has no influence on any result,
        but TensorRT's parser refuses a scale of zero.
        """
        scale: np.float32 = np.float32((amax if amax > _LEAST_AMAX else 1.0) / self.qmax)
        return scale

    def nearest(self, steps: NDArray[_Float]) -> NDArray[_Float]:
        """Returns the numbers nearest to values in units of the scale, as floats; half to even."""
        if self.mantissa_bits is None:
            return np.rint(steps).clip(self.qmin, self.qmax)
        # frexp's mantissa is below 1, so its exponent is one above that of IEEE 754.
        exponents = np.maximum(np.frexp(steps)[1] - 1, self.least_exponent) - self.mantissa_bits
        rounded: NDArray[_Float] = np.ldexp(np.rint(np.ldexp(steps, -exponents)), exponents)
        return rounded.clip(self.qmin, self.qmax)

    @property
    def most_steps(self) -> float:
        """The largest number, in units of the smallest step between two."""
        smallest = 2.0 ** (self.least_exponent - (self.mantissa_bits or 0))
        return self.qmax / smallest

    @property
    def fractions(self) -> NDArray[np.float64]:
        """Bounds of what is rounded to each number from zero on, as fractions of the largest."""
        if self.mantissa_bits is None:
            return np.arange(self.qmax + 2) / (self.qmax + 1)
        positive = positive_e4m3()
        middles = (positive[:-1] + positive[1:]) / 2
        return np.concatenate([[0.0], middles / self.qmax, [1.0]])


INT8 = Grid(qmin=-127, qmax=127, precision=Precision.INT8)
"""Signed INT8 without -128, so that a value and its negative are equally exact.

Source: Wu et al. 2020 (arXiv 2004.09602), section 3.1.2.
"""

UINT8 = Grid(qmin=0, qmax=255, precision=Precision.INT8)
"""Unsigned INT8 for what is never negative: twice the steps. TensorRT does not have it."""

E4M3 = Grid(qmin=-448, qmax=448, precision=Precision.FP8, mantissa_bits=3, least_exponent=-6)
"""FP8 with 4 bits of exponent and 3 of mantissa, without infinity.

Source: Micikevicius et al. 2022 (arXiv 2209.05433), table 1; ONNX, "Float stored in 8 bits".
"""


def positive_e4m3() -> NDArray[np.float64]:
    """Returns the 127 numbers of E4M3 from 0 to 448, each at the position of its code."""
    codes = np.arange(127)
    exponent, mantissa = codes >> 3, codes & 7
    normal = (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return np.where(exponent == 0, mantissa / 8 * 2.0**E4M3.least_exponent, normal)


def e4m3_codes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Returns the bytes of numbers that E4M3 has, as `Grid.nearest` returns them."""
    magnitudes = np.searchsorted(positive_e4m3(), np.abs(values)).astype(np.uint8)
    return np.where(values < 0, magnitudes | np.uint8(0x80), magnitudes)

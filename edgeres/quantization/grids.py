"""The grids that real values are rounded to: which integers there are, and their scale.

A value is scale * integer on every grid here, so zero is exact; where a runtime stores an integer
with a zero point added, as ONNX Runtime's u8 kernels want of signed values, is that runtime's
matter and changes no value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Float = TypeVar("_Float", np.float32, np.float64)

_LEAST_AMAX = float(np.finfo(np.float32).tiny) * 2**24
"""Below it a scale, or its product with another, is subnormal and may underflow to zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The integers from `qmin` to `qmax`; symmetric where `qmin` is -`qmax`."""

    qmin: int
    qmax: int

    def scale_from_amax(self, amax: float) -> np.float32:
        """Returns the positive float32 scale with which `qmax` stands for `amax`.

        A tensor or channel that is always zero gets 1 / qmax: it has no influence on any result,
        but TensorRT's parser refuses a scale of zero.
        """
        scale: np.float32 = np.float32((amax if amax > _LEAST_AMAX else 1.0) / self.qmax)
        return scale

    def nearest(self, steps: NDArray[_Float]) -> NDArray[_Float]:
        """Returns the integers nearest to values in units of the scale, as floats; half to even."""
        return np.rint(steps).clip(self.qmin, self.qmax)


INT8 = Grid(qmin=-127, qmax=127)
"""Signed INT8 without -128, so that a value and its negative are equally exact.

Source: Wu et al. 2020 (arXiv 2004.09602), section 3.1.2.
"""

UINT8 = Grid(qmin=0, qmax=255)
"""Unsigned INT8 for what is never negative: twice the steps. TensorRT does not have it."""

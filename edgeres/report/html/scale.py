"""Values to places on paper, and where an axis has its marks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 5.0, 10.0)
"""Round numbers. Source: Heckbert 1990, Nice numbers for graph labels, Graphics Gems."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A straight or logarithmic map from values to places."""

    low: float
    high: float
    """Values at the two ends, `low` < `high`; both above 0 where `log`."""
    start: float
    end: float
    """Places of the two ends; `start` > `end` for an axis that points up."""
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"{self.low} to {self.high} spans no {'log ' * self.log}axis")

    def __call__(self, value: float) -> float:
        """Returns the place of a value; outside the ends it lies beyond them."""
        low, high, value = (self._straight(v) for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def _straight(self, value: float) -> float:
        return math.log(value) if self.log else value

    def ticks(self, count: int) -> tuple[float, ...]:
        """Returns about `count` round values between the ends, ascending.

        A logarithmic axis takes 1, 2 and 5 of each decade where that gives three or more.
        """
        decades = tuple(_decades(self.low, self.high)) if self.log else ()
        return decades if len(decades) >= 3 else _even(self.low, self.high, count)


def around(values: Iterable[float], margin: float = 0.06) -> tuple[float, float]:
    """Returns the range of the values, widened by a share of it; never empty."""
    found = tuple(values)
    low, high = min(found), max(found)
    room = (high - low) * margin or abs(low) * margin or 1.0
    return low - room, high + room


def around_log(values: Iterable[float], margin: float = 0.06) -> tuple[float, float]:
    """Returns the range of positive values, widened by a share of it on a logarithmic axis."""
    low, high = around((math.log(value) for value in values), margin)
    return math.exp(low), math.exp(high)


def _even(low: float, high: float, count: int) -> tuple[float, ...]:
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(s for s in _STEPS if s * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(round(n * step, 12) for n in range(first, last + 1))


def _decades(low: float, high: float) -> Iterable[float]:
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        yield from (v for s in _STEPS[:3] if low <= (v := s * 10.0**power) <= high)

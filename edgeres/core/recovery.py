"""Result of recovery: changes to weights and biases that recover accuracy after calibration.

The values travel inside the calibration table, so nothing here imports a heavy library: the
rounding of a weight is a string of bits, one a weight, that `edgeres.quantization.rounding` reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgeres.core.methods import Method, Recover

LARGEST_FACTOR = 1e6
"""Largest equalization factor, and the inverse of the smallest: FP32 keeps its 24 bits within."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerError:
    """Mean squared error of one layer's output on held-out images, quantized compared with FP32."""

    name: str
    before: float
    """With every weight rounded to the nearest and the bias as trained; layers before are recovered."""
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrected:
    """Corrections for one lowering: each rounds other tensors, so its outputs shift differently."""

    before_db: float
    """Signal-to-noise ratio of its logits on the held-out images without recovery; see `tuning`."""
    after_db: float
    """The same with them, whether they are applied or not."""
    biases: Mapping[str, tuple[float, ...]]
    """By convolution, what is added to each channel's bias, after equalization."""
    applied: bool = True
    """Whether the lowering takes them, and the rounding: its logits gain, by more than chance alone or
    on the mean of the lowerings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """Weights and biases to quantize instead of the trained ones, for one model and method."""

    kind: Recover
    method: Method
    """Method whose thresholds it was fitted to."""
    seed: int
    samples: int
    """Images that it was fitted on."""
    held_out: int
    """Further images that it was evaluated on."""
    lowerings: Mapping[str, Corrected]
    equalization: Mapping[str, tuple[float, ...]]
    """By activation, what each of its channels is divided by; its reader's weight is multiplied."""
    rounding: Mapping[str, bytes]
    """By convolution, a bit for each weight, big-endian: 0 rounds down, 1 up, after equalization."""
    layers: tuple[LayerError, ...] = ()

    def __post_init__(self) -> None:
        # A table without recovery has None in its place, so that there is one way to say so.
        if self.kind is Recover.NONE:
            raise ValueError("recovery of the kind none, expected bias or adaround")
        # A factor multiplies one weight and divides another, exactly only while FP32 has the digits.
        for factor in _flat(self.equalization):
            if not 1 / LARGEST_FACTOR <= factor <= LARGEST_FACTOR:
                raise ValueError(
                    f"equalization factor {factor}, expected {1 / LARGEST_FACTOR:g} to "
                    f"{LARGEST_FACTOR:g}"
                )
        for corrected in self.lowerings.values():
            for value in (*_flat(corrected.biases), corrected.before_db, corrected.after_db):
                if not math.isfinite(value):
                    raise ValueError(f"recovery has {value}, expected finite numbers")

    @property
    def changes_anything(self) -> bool:
        """Whether any lowering takes any of it."""
        return bool(self.equalization) or any(each.applied for each in self.lowerings.values())

    def biases(self, lowering: str) -> Mapping[str, tuple[float, ...]]:
        """Returns the corrections of a lowering's biases; nothing where it takes none."""
        corrected = self.lowerings.get(lowering)
        return {} if corrected is None or not corrected.applied else corrected.biases

    def applies_to(self, lowering: str) -> bool:
        """Whether a lowering takes rounding and biases; equalization, which it must, is apart."""
        corrected = self.lowerings.get(lowering)
        return corrected is None or corrected.applied


def _flat(values: Mapping[str, tuple[float, ...]]) -> Iterable[float]:
    return (value for channels in values.values() for value in channels)

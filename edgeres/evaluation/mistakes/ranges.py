"""Whether an engine was calibrated on images like those that it is evaluated on.

A calibration on noise, black frames or another domain gives thresholds that fit nothing. The
evaluated images show it: activation ranges are collected on two halves of a few of them, and the
calibrated ranges compared with both. The halves' own difference is what chance makes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2
from statistics import fmean

from edgeres.plurals import counted

FOREIGN = 0.3
"""Mean |log2| of calibrated by observed range from which on the images count as unlike.

Measured with a trained ResNet-20 on digits, one on CIFAR-10 and a ResNet-50 on ImageNet, 64 images
evaluated: 0.02 to 0.22 after calibration on 16 to 256 images of the same kind, 0.43 to 1.34 after
uniform or normal noise or black images.
"""

_TIMES_CHANCE = 2.0
"""Times the halves' own difference that must be passed too, where a few images vary much."""

_NARROW, _WIDE = -0.585, 0.585
"""log2 of 2/3 and 3/2: beyond it an activation counts as clipped, or as coarser than needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeShift:
    """How far the calibrated ranges are from those of the evaluated images."""

    images: int
    """Evaluated images that ranges were collected on."""
    distance: float
    """Mean |log2| of the calibrated by the observed range over all activations."""
    chance: float
    """The same between two halves of these images."""
    activations: int
    clipped: int
    """Activations whose calibrated range is below two thirds of the observed one."""
    coarse: int
    """Activations whose calibrated range is above one and a half times the observed one."""
    worst: str
    """Activation with the largest difference."""
    worst_calibrated: float
    worst_observed: float

    @property
    def is_foreign(self) -> bool:
        """Whether calibration used images of another kind."""
        return self.distance > max(FOREIGN, _TIMES_CHANCE * self.chance)

    @property
    def sentence(self) -> str:
        """States how far apart the ranges are and what to do."""
        return (
            "The engine was calibrated on images unlike these: its ranges are a factor of "
            f"{2**self.distance:.2f} from those of {counted(self.images, 'evaluated image')}, "
            f"whose own halves differ by {2**self.chance:.2f}. {self.clipped} of "
            f"{counted(self.activations, 'activation')} are clipped, {self.coarse} are coarser "
            f"than needed; the worst is '{self.worst}' with {self.worst_calibrated:.3g} where "
            f"{self.worst_observed:.3g} is observed. Calibrate again on images of the kind that "
            "the engine will see, prepared in the same way."
        )


def range_shift(
    calibrated: Mapping[str, float],
    halves: Sequence[Mapping[str, float]],
    *,
    images: int,
) -> RangeShift | None:
    """Returns how far calibrated ranges are from those of the evaluated images.

    Args:
        calibrated: range of each activation by its name, in the activation's unit.
        halves: the same, observed on two halves of the evaluated images.
        images: in both halves together.

    Returns:
        None where no activation has a positive range in all three.
    """
    first, second = halves
    # A range of zero, of an activation that is always off, has no ratio.
    names = [n for n, own in calibrated.items() if own > 0 and first.get(n) and second.get(n)]
    if not names:
        return None
    # The geometric mean of both halves, as ranges are compared by their ratio.
    observed = {name: (first[name] * second[name]) ** 0.5 for name in names}
    shifts = {name: log2(calibrated[name] / observed[name]) for name in names}
    worst = max(names, key=lambda name: abs(shifts[name]))
    return RangeShift(
        images=images,
        distance=fmean(abs(shift) for shift in shifts.values()),
        chance=fmean(abs(log2(first[name] / second[name])) for name in names),
        activations=len(names),
        clipped=sum(shift < _NARROW for shift in shifts.values()),
        coarse=sum(shift > _WIDE for shift in shifts.values()),
        worst=worst,
        worst_calibrated=calibrated[worst],
        worst_observed=observed[worst],
    )

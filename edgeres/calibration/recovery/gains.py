"""Which lowerings gain by a correction of the weights that they share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgeres.calibration.quality import is_gain

Qualities = Mapping[str, NDArray[np.float64]]
"""Of each image's logits, (images,), by lowering."""


def gaining(before: Qualities, after: Qualities) -> frozenset[str]:
    """Returns the lowerings that a correction is for.

    Those that gain more than chance explains by themselves; and, where their mean does, each that
    gains at all: they round the same layers, so a gain of one is likely in the other too.
    """
    together = is_gain_together(before, after)
    return frozenset(
        name
        for name in before
        if is_gain(before[name], after[name])
        or (together and after[name].mean() > before[name].mean())
    )


def is_gain_together(before: Qualities, after: Qualities) -> bool:
    """Whether the mean over the lowerings rises by more than chance, image by image."""
    return is_gain(*(np.mean(list(each.values()), axis=0) for each in (before, after)))

"""Precisions that engines and their layers have."""

from __future__ import annotations

from edgeres.names import Name


class Precision(Name):
    """Precision that an engine is built in."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    FP8 = "fp8"
    """E4M3: 4 bits of exponent and 3 of mantissa, with scales as INT8 has."""
    MIXED = "mixed"
    """INT8, with what a budget of accuracy needs kept from it. A layer is never `mixed`."""

    @property
    def quantizes(self) -> bool:
        """Whether an engine of it has layers with scales, and needs a calibration table."""
        # A mixed engine too: its table has to exist even where the search keeps most layers.
        return self in (Precision.INT8, Precision.FP8, Precision.MIXED)

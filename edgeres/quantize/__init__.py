"""Observed ranges, thresholds, Q/DQ placement and its two lowerings."""

from edgeres.quantize.stages import (
    calibrate,
    check_table,
    float_network,
    observed_ranges,
    quantize_for_cpu,
    quantize_for_tensorrt,
)

__all__ = [
    "calibrate",
    "check_table",
    "float_network",
    "observed_ranges",
    "quantize_for_cpu",
    "quantize_for_tensorrt",
]

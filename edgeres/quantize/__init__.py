"""Observed ranges, thresholds, Q/DQ placement and its two lowerings."""

from edgeres.quantize.judge import Told, untold
from edgeres.quantize.stages import (
    calibrate,
    check_table,
    float_network,
    quantize_for_cpu,
    quantize_for_tensorrt,
)

__all__ = [
    "Told",
    "calibrate",
    "check_table",
    "float_network",
    "quantize_for_cpu",
    "quantize_for_tensorrt",
    "untold",
]

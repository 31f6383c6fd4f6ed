"""Observed ranges, thresholds, Q/DQ placement and its two lowerings."""

from edgeres.quantize.judge import Told, untold
from edgeres.quantize.recovery.stage import IMAGES as RECOVERY_IMAGES
from edgeres.quantize.recovery.stage import recover
from edgeres.quantize.stages import (
    calibrate,
    check_table,
    float_network,
    quantize_for_cpu,
    quantize_for_tensorrt,
)

__all__ = [
    "RECOVERY_IMAGES",
    "Told",
    "calibrate",
    "check_table",
    "float_network",
    "quantize_for_cpu",
    "quantize_for_tensorrt",
    "recover",
    "untold",
]

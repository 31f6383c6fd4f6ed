"""Observed ranges, thresholds, Q/DQ placement and its two lowerings."""

from edgeres.quantize.judge import Told, untold
from edgeres.quantize.overflow import check_fp16_range
from edgeres.quantize.stages import (
    calibrate,
    check_table,
    float_network,
    quantize_for_cpu,
    quantize_for_tensorrt,
)
from edgeres.quantize.trt_cache import trt_cache

__all__ = [
    "Told",
    "calibrate",
    "check_fp16_range",
    "check_table",
    "float_network",
    "quantize_for_cpu",
    "quantize_for_tensorrt",
    "trt_cache",
    "untold",
]

"""Observed ranges, thresholds, Q/DQ placement and its two lowerings."""

from edgeres.quantize.judge import Told, untold
from edgeres.quantize.mixed import ALL_INTEGER, Mix, MixRequest, choose_mix
from edgeres.quantize.overflow import check_fp16_range
from edgeres.quantize.recovery.stage import IMAGES as RECOVERY_IMAGES
from edgeres.quantize.recovery.stage import recover
from edgeres.quantize.stages import (
    calibrate,
    check_table,
    float_network,
    quantize_for_cpu,
    quantize_for_tensorrt,
)
from edgeres.quantize.trt_cache import trt_cache

__all__ = [
    "ALL_INTEGER",
    "RECOVERY_IMAGES",
    "Mix",
    "MixRequest",
    "Told",
    "calibrate",
    "check_fp16_range",
    "check_table",
    "choose_mix",
    "float_network",
    "quantize_for_cpu",
    "quantize_for_tensorrt",
    "recover",
    "trt_cache",
    "untold",
]

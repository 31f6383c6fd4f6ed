"""Where FP8 engines can be built: GPUs and versions of TensorRT that have E4M3.

Source: NVIDIA TensorRT support matrix, "Hardware and Precision"; Q/DQ of FP16 and FP8 in ONNX,
release notes of 10.3.
"""

from __future__ import annotations

import re
from typing import Any

from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.errors import ConfigError

_LEAST_VERSION = (10, 3)


def check_fp8_capability(request: BuildRequest, compute_capability: str | None) -> None:
    """Checks that a GPU has E4M3, where that is requested.

    Args:
        request: what to build.
        compute_capability: of the GPU that it is for; None where it is not known yet.

    Raises:
        ConfigError: it has not.
    """
    if request.precision is not Precision.FP8 or compute_capability is None:
        return
    major, minor = (int(part) for part in compute_capability.split("."))
    if (major, minor) != (8, 9) and major < 9:
        raise ConfigError(
            f"--precision fp8 needs compute capability 8.9, 9.0 or later (Ada, Hopper, Blackwell, "
            f"Thor), and the GPU has {compute_capability}. Build with --precision int8 or fp16."
        )


def check_fp8(trt: Any, request: BuildRequest) -> None:
    """Checks that a module takes FP8 networks, where one is requested.

    Raises:
        ConfigError: its version does not, or the DLA was requested.
    """
    if request.precision is not Precision.FP8:
        return
    if request.options.dla_core is not None:
        raise ConfigError("The DLA has no FP8. Leave --dla out, or pass --precision int8.")
    version = tuple(int(part) for part in re.findall(r"\d+", str(trt.__version__))[:2])
    # TensorRT for RTX counts its versions from 1, and has had FP8 since.
    if trt.__name__ == "tensorrt" and version < _LEAST_VERSION:
        raise ConfigError(
            f"--precision fp8 needs TensorRT 10.3 or later, and this is {trt.__version__}. Build "
            "with --precision int8, or with that version."
        )

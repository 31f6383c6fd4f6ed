"""Where an engine runs."""

from __future__ import annotations

from edgeres.names import Name


class Target(Name):
    """Where an engine runs."""

    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"

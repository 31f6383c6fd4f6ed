"""Which of NVIDIA's two modules a target drives, and what kind of network it takes.

Networks are strongly typed wherever the flag for it exists (10.0 and later; from 11.0 on there
is nothing else); before, types are FP32 and the builder is allowed lower precisions. That is
detected, never derived from a version string. Source: NVIDIA TensorRT developer guide,
"Strongly Typed Networks"; release notes of 10.12 and 11.0.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeres.errors import DependencyError
from edgeres.installation import install_hint

TENSORRT, TENSORRT_RTX = "tensorrt", "tensorrt-rtx"
"""Names of the targets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One of the two modules."""

    name: str
    """That it is imported by."""
    product: str
    """What NVIDIA calls it."""


MODULES: Mapping[str, Module] = {
    TENSORRT: Module(name="tensorrt", product="TensorRT"),
    TENSORRT_RTX: Module(name="tensorrt_rtx", product="TensorRT for RTX"),
}
"""The module that builds and runs a target's plans."""


def load_backend(target: str) -> Any:
    """Returns the module `tensorrt` or `tensorrt_rtx`.

    Raises:
        DependencyError: it is not installed; the message names the command that installs it.
    """
    name = MODULES[target].name
    try:
        return importlib.import_module(name)
    except ImportError as error:
        alternative = (
            " Without it, --target tensorrt-rtx checks the network with NVIDIA's parser, and "
            "--target onnxruntime runs on any CPU."
        )
        raise DependencyError(
            f"--target {target} needs the Python module {name}, which cannot be imported "
            f"({error}). {install_hint(name)}{alternative * (target == TENSORRT)}"
        ) from error


def is_strongly_typed(trt: Any) -> bool:
    """Returns whether the module's networks have the types that the ONNX file writes down."""
    flags = trt.NetworkDefinitionCreationFlag
    # A version that dropped the flag for want of an alternative has no flags for precisions either.
    return hasattr(flags, "STRONGLY_TYPED") or not hasattr(trt.BuilderFlag, "FP16")

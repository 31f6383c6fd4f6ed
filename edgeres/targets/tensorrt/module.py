"""Which of NVIDIA's two modules a target drives, and what kind of network it takes.

Networks are strongly typed wherever the flag for it exists (10.0 and later; from 11.0 on there
is nothing else); before, types are FP32 and the builder is allowed lower precisions. That is
detected, never derived from a version string. Source: NVIDIA TensorRT developer guide,
"Strongly Typed Networks"; release notes of 10.12 and 11.0.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from edgeres.core.target import Target
from edgeres.errors import DependencyError


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One of the two modules and what it is called."""

    target: Target
    module_name: str
    install: str
    """What to type when the module is missing."""

    def load(self) -> Any:
        """Imports the module.

        Raises:
            DependencyError: it is not installed.
        """
        try:
            return importlib.import_module(self.module_name)
        except ImportError as error:
            raise DependencyError(
                f"--target {self.target} needs the Python module {self.module_name}, which cannot "
                f"be imported ({error}). {self.install}"
            ) from error


_BACKENDS = {
    Target.TENSORRT: Backend(
        target=Target.TENSORRT,
        module_name="tensorrt",
        install="On a Jetson it comes with JetPack (python3-libnvinfer; make the environment with "
        "--system-site-packages), elsewhere: pip install 'edgeres[tensorrt]'. Without it, "
        "--target tensorrt-rtx checks the network with NVIDIA's parser, and --target onnxruntime "
        "runs on any CPU.",
    ),
    Target.TENSORRT_RTX: Backend(
        target=Target.TENSORRT_RTX,
        module_name="tensorrt_rtx",
        install="pip install 'edgeres[rtx]' (Linux and Windows on x86-64).",
    ),
}


def load_backend(target: Target) -> Any:
    """Returns the module `tensorrt` or `tensorrt_rtx`.

    Raises:
        DependencyError: it is not installed; the message says how to get it.
    """
    return _BACKENDS[target].load()


def is_strongly_typed(trt: Any) -> bool:
    """Returns whether the module's networks have the types that the ONNX file writes down."""
    flags = trt.NetworkDefinitionCreationFlag
    return hasattr(flags, "STRONGLY_TYPED") or not hasattr(trt.BuilderFlag, "FP16")

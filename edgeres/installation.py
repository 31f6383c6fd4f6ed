"""How to install each optional module: one text for every message about it.

edgeres is on no package index, so a command names its source folder, not the package. Knows the
extras of pyproject.toml and imports none of the modules.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass

JETSON_SETUP = "scripts/jetson_setup.sh"
"""Makes an environment on a board in which TensorRT's module and pycuda can be imported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionalModule:
    """How a module comes to where edgeres can import it."""

    extra: str
    """Extra of pyproject.toml that brings it."""
    jetson: str = ""
    """How it comes to a Jetson, where an extra is not the way; empty where it is."""
    condition: str = ""
    """What the extra needs or should come after; empty where it needs nothing."""


_CPU_TORCH = "where torch comes with CUDA by default and none is needed, install a CPU build first"
_JETPACK_TENSORRT = (
    f"{JETSON_SETUP} (sudo apt install python3-libnvinfer, and an environment with "
    "--system-site-packages)"
)

OPTIONAL_MODULES: Mapping[str, OptionalModule] = {
    "torch": OptionalModule(extra="export", condition=_CPU_TORCH),
    "safetensors": OptionalModule(extra="export", condition=_CPU_TORCH),
    "tensorrt": OptionalModule(extra="tensorrt", jetson=_JETPACK_TENSORRT),
    "pycuda": OptionalModule(
        extra="tensorrt", jetson=JETSON_SETUP, condition="with CUDA's nvcc on the PATH"
    ),
    "tensorrt_rtx": OptionalModule(extra="rtx", condition="Linux and Windows on x86-64"),
    "pynvml": OptionalModule(extra="nvml"),
    "jinja2": OptionalModule(extra="report"),
    "cv2": OptionalModule(extra="opencv"),
    "mlperf_loadgen": OptionalModule(extra="loadgen"),
    "distributed": OptionalModule(extra="fleet"),
}
"""By the name that the module is imported by."""


def install_hint(module: str) -> str:
    """Returns a sentence with the command that installs an optional module.

    Args:
        module: one of `OPTIONAL_MODULES`.
    """
    known = OPTIONAL_MODULES[module]
    condition = f" ({known.condition})" if known.condition else ""
    command = f"edgeres' source folder: pip install '.[{known.extra}]'{condition}."
    return (
        f"On a Jetson: {known.jetson}; elsewhere, in {command}" if known.jetson else f"In {command}"
    )


def is_installed(module: str) -> bool:
    """Returns whether a module can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None

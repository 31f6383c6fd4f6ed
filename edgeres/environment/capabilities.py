"""What this machine can do with edgeres, and what to install for the rest."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeres.environment.machine import has_nvidia_gpu


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """One thing that edgeres does, and whether it works here."""

    name: str
    available: bool
    detail: str
    """What was found, or what to install or set."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return asdict(self)


def capabilities(root: Path = Path("/")) -> tuple[Capability, ...]:
    """Returns what works on this machine. Packages are looked for, not imported.

    Args:
        root: where the machine's /dev and /proc are read.
    """
    gpu = has_nvidia_gpu(root)
    return (
        _export(),
        Capability(name="onnxruntime engines", available=True, detail="build and run on this CPU"),
        _rtx(gpu),
        _tensorrt(gpu),
    )


def _export() -> Capability:
    missing = [name for name in ("torch", "safetensors") if not _installed(name)]
    detail = "torch is installed" if not missing else "pip install 'edgeres[export]'"
    return Capability(name="export checkpoints", available=not missing, detail=detail)


def _rtx(gpu: bool) -> Capability:
    name = "tensorrt-rtx plans"
    if not _installed("tensorrt_rtx"):
        return Capability(name=name, available=False, detail="pip install 'edgeres[rtx]'")
    where = "for this GPU" if gpu else "with --compute-capability; there is no GPU to run them on"
    return Capability(name=name, available=True, detail=f"build {where}")


def _tensorrt(gpu: bool) -> Capability:
    name = "tensorrt plans"
    if not gpu:
        return Capability(
            name=name, available=False, detail="no NVIDIA GPU: build on the board itself"
        )
    if not _installed("tensorrt"):
        return Capability(
            name=name,
            available=False,
            detail="TensorRT's Python module is missing: on a Jetson, sudo apt install "
            "python3-libnvinfer and make the environment with --system-site-packages",
        )
    return Capability(name=name, available=True, detail="build for this GPU")


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None

"""What this machine can do with edgeres, and what to install for the rest."""

from __future__ import annotations

import importlib.util
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeres.machine.gpu import open_gpu
from edgeres.machine.machine import has_nvidia_gpu
from edgeres.machine.meters import NoMeter, open_meter

_SYSTEM_SITE = (
    "TensorRT's Python module is missing: on a Jetson, sudo apt install python3-libnvinfer and "
    "make the environment with --system-site-packages (scripts/jetson_setup.sh does both)"
)
_NO_GPU = "no NVIDIA GPU: build on the board itself"


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
        root: where the machine's /dev, /proc and /sys are read.
    """
    gpu = has_nvidia_gpu(root)
    return (
        _export(),
        _onnxruntime(),
        _rtx(gpu),
        _tensorrt(gpu),
        _tensorrt_runner(gpu),
        _energy(root, gpu),
        *((_gpu_clocks(root),) if gpu else ()),
    )


def _export() -> Capability:
    missing = [name for name in ("torch", "safetensors") if not _installed(name)]
    detail = "torch is installed" if not missing else "pip install 'edgeres[export]'"
    return Capability(name="export checkpoints", available=not missing, detail=detail)


def _onnxruntime() -> Capability:
    found = _installed("onnxruntime")
    detail = "build and run on this CPU" if found else "pip install --force-reinstall edgeres"
    return Capability(name="onnxruntime engines", available=found, detail=detail)


def _rtx(gpu: bool) -> Capability:
    name = "tensorrt-rtx plans"
    if not _installed("tensorrt_rtx"):
        return Capability(name=name, available=False, detail="pip install 'edgeres[rtx]'")
    where = "for this GPU" if gpu else "with --compute-capability; there is no GPU to run them on"
    return Capability(name=name, available=True, detail=f"build {where}")


def _tensorrt(gpu: bool) -> Capability:
    found = gpu and _installed("tensorrt")
    detail = "build for this GPU" if found else _SYSTEM_SITE if gpu else _NO_GPU
    return Capability(name="tensorrt plans", available=found, detail=detail)


def _tensorrt_runner(gpu: bool) -> Capability:
    found = gpu and _installed("tensorrt") and _installed("pycuda")
    detail = "run on this GPU" if found else "pycuda is missing: scripts/jetson_setup.sh builds it"
    if gpu and not _installed("tensorrt"):
        detail = _SYSTEM_SITE
    return Capability(
        name="tensorrt inference", available=found, detail=detail if gpu else "no NVIDIA GPU"
    )


def _energy(root: Path, gpu: bool) -> Capability:
    with closing(open_meter(root, gpu=gpu)) as meter:
        found = not isinstance(meter, NoMeter)
        detail = meter.reason if isinstance(meter, NoMeter) else _scope(meter.name, meter.scope)
    return Capability(name="measure energy", available=found, detail=detail)


def _scope(name: str, scope: tuple[str, ...]) -> str:
    return f"{name}: {', '.join(scope)}"


def _gpu_clocks(root: Path) -> Capability:
    with closing(open_gpu(root)) as gpu:
        detail = gpu.unseen or gpu.name
        return Capability(name="watch the GPU", available=gpu.unseen is None, detail=detail)


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None

"""What this machine can do with edgeres, and what to install for the rest."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from edgeres.installation import install_hint, is_installed
from edgeres.machine.gpu import open_gpu
from edgeres.machine.machine import has_nvidia_gpu
from edgeres.machine.meters import NoMeter, open_meter


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """One thing that edgeres does, and whether it works here."""

    name: str
    available: bool
    detail: str
    """What it works with, or what to install or set."""


def capabilities(root: Path = Path("/")) -> tuple[Capability, ...]:
    """Returns what works on this machine. Packages are looked for, not imported.

    Args:
        root: where the machine's /dev, /proc and /sys are read.
    """
    gpu = has_nvidia_gpu(root)
    rtx = "for this GPU" if gpu else "with --compute-capability; there is no GPU to run them on"
    onnxruntime = is_installed("onnxruntime")
    works = [
        _with_modules("export checkpoints", "torch is installed", "torch", "safetensors"),
        Capability(
            name="onnxruntime engines",
            available=onnxruntime,
            detail="build and run on this CPU" if onnxruntime else "pip install onnxruntime",
        ),
        _with_modules("tensorrt-rtx plans", f"build {rtx}", "tensorrt_rtx"),
    ]
    if gpu:
        works += [
            _with_modules("tensorrt plans", "build for this GPU", "tensorrt"),
            _with_modules("tensorrt inference", "run on this GPU", "tensorrt", "pycuda"),
        ]
    else:
        # No install line: TensorRT would only be of use on another machine.
        missing = {
            "tensorrt plans": "no NVIDIA GPU: build on the board itself",
            "tensorrt inference": "no NVIDIA GPU",
        }
        works += [Capability(name=n, available=False, detail=text) for n, text in missing.items()]
    with closing(open_meter(root, gpu=gpu)) as meter:
        measurable = not isinstance(meter, NoMeter)
        scope = f"{meter.name}: {', '.join(meter.scope)}"
        detail = meter.reason if isinstance(meter, NoMeter) else scope
        works.append(Capability(name="measure energy", available=measurable, detail=detail))
    if gpu:
        with closing(open_gpu(root)) as probe:
            reason = probe.unavailable
            detail = reason or probe.name
            works.append(Capability(name="monitor the GPU", available=not reason, detail=detail))
    return tuple(works)


def _with_modules(name: str, detail: str, *modules: str) -> Capability:
    """Returns what works once all modules are installed, else how to install the first missing."""
    missing = next((module for module in modules if not is_installed(module)), None)
    if missing is not None:
        detail = f"{missing} is missing. {install_hint(missing)}"
    return Capability(name=name, available=missing is None, detail=detail)

"""Whether a plan belongs to this machine, answered before TensorRT's runtime sees it.

A plan is code for one TensorRT on one GPU. The runtime meets the wrong one with an error number
at best; without a device it ends the process. So everything that the manifest says is held
against the machine first, and each difference has its sentence.
Source: NVIDIA TensorRT, "Engine Compatibility".
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeres.core.artifacts import TRUSTED, EngineArtifact, Manifest
from edgeres.core.builder_options import HardwareCompatibility
from edgeres.core.target import Target
from edgeres.errors import MismatchError
from edgeres.machine.cuda import CudaDevice, NoCudaDevice, find_cuda_device
from edgeres.machine.l4t import l4t_version

MODULES = {Target.TENSORRT: "tensorrt", Target.TENSORRT_RTX: "tensorrt_rtx"}
"""Python module that runs a target's plans."""

_PRODUCTS = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT for RTX"}
_INSTALL = {
    "tensorrt": "On a Jetson it comes with JetPack (sudo apt install python3-libnvinfer, and an "
    "environment with --system-site-packages); elsewhere: pip install 'edgeres[tensorrt]'.",
    "tensorrt_rtx": "pip install 'edgeres[rtx]' (Linux and Windows on x86-64).",
    "pycuda": "pip install pycuda, with CUDA's nvcc on the PATH (on a Jetson: "
    "/usr/local/cuda/bin).",
}

_LEAPS = frozenset({(8, 10), (10, 11)})
"""Major versions between which a version-compatible plan goes. Source: TensorRT 11.4 support
matrix, "Engine Portability"."""

_AMPERE = (8, 0)
_AMPERE_PLUS = HardwareCompatibility.AMPERE_PLUS


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """What of this machine decides whether a plan runs."""

    version: str
    """Of TensorRT, or of TensorRT for RTX."""
    device: CudaDevice
    l4t: str | None = None
    """Jetson Linux release such as `36.4.3`; None on other machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What opens a plan that belongs here."""

    module: Any
    """`tensorrt` or `tensorrt_rtx`."""
    device: CudaDevice


def check_plan(engine: EngineArtifact, root: Path = Path("/")) -> Ready:
    """Returns what the plan is to be opened with.

    Args:
        engine: a plan and its manifest.
        root: where the machine's /etc is read.

    Raises:
        MismatchError: the plan does not belong to this machine, or the machine lacks what runs it.
    """
    manifest = engine.manifest
    device = find_cuda_device()
    if isinstance(device, NoCudaDevice):
        raise MismatchError(_lack(engine, device.reason))
    name = MODULES[manifest.target]
    module = _imported(engine, name)
    _imported(engine, "pycuda", "pycuda.driver")
    here = Here(version=str(module.__version__), device=device, l4t=l4t_version(root))
    reasons = () if TRUSTED in manifest.flags else tuple(differences(manifest, here))
    if reasons:
        raise MismatchError(
            f"{engine.path} does not belong to this machine: {'; '.join(reasons)}. Rebuild it "
            f"here with `edgeres build-engine MODEL.onnx --target {manifest.target} --precision "
            f"{manifest.precision} -o {engine.path.name}`."
        )
    return Ready(module=module, device=device)


def differences(manifest: Manifest, here: Here) -> Iterator[str]:
    """Yields a clause for everything in which the machine is not the one that the plan is for."""
    yield from _version_differs(manifest, here)
    yield from _gpu_differs(manifest, here)
    yield from _system_differs(manifest, here)


def _version_differs(manifest: Manifest, here: Here) -> Iterator[str]:
    name = MODULES[manifest.target]
    built, product = manifest.versions.get(name), _PRODUCTS[name]
    if built is None:
        yield f"its manifest does not say which {product} built it"
    elif built != here.version and not _serves(built, here.version, manifest.flags):
        yield f"it was built with {product} {built}, this machine has {here.version}"


def _serves(built: str, version: str, flags: tuple[str, ...]) -> bool:
    """Returns whether a version runs the plans of another one."""
    if "VERSION_COMPATIBLE" not in flags:
        return False
    old, new = _numbers(built), _numbers(version)
    return old <= new and (old[0] == new[0] or (old[0], new[0]) in _LEAPS)


def _gpu_differs(manifest: Manifest, here: Here) -> Iterator[str]:
    built, found = manifest.compute_capability, here.device.compute_capability
    if built is None:
        yield "its manifest does not say which GPU it is for"
    elif built != found:
        if _level(manifest) is not _AMPERE_PLUS or _numbers(found) < _AMPERE:
            yield (
                f"it is for compute capability {built}, this machine has {found} "
                f"({here.device.name})"
            )
    elif _needs_model(manifest) and manifest.gpu != here.device.name:
        yield f"it was built on a {manifest.gpu}, this machine has a {here.device.name}"


def _needs_model(manifest: Manifest) -> bool:
    """Returns whether the plan is tuned for one model of GPU, and not compiled for a kind."""
    tuned = manifest.target is Target.TENSORRT and manifest.gpu is not None
    return tuned and _level(manifest) is HardwareCompatibility.NONE


def _level(manifest: Manifest) -> HardwareCompatibility:
    options = manifest.options
    return HardwareCompatibility.NONE if options is None else options.hardware_compatibility


def _system_differs(manifest: Manifest, here: Here) -> Iterator[str]:
    l4t = manifest.versions.get("l4t")
    if l4t is not None and _major(l4t) != _major(here.l4t or "0"):
        yield (
            f"it was built on Jetson Linux {l4t} (JetPack), this machine has "
            f"{here.l4t or 'another system'}"
        )
    cuda = manifest.versions.get("cuda")
    if cuda is not None and _major(cuda) > _major(here.device.cuda):
        yield f"it was built under CUDA {cuda}, the driver here serves up to {here.device.cuda}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)) or (0,)


def _major(version: str) -> int:
    return _numbers(version)[0]


def _imported(engine: EngineArtifact, package: str, module: str | None = None) -> Any:
    try:
        with warnings.catch_warnings():
            # pycuda warns of what its ImportError says as well.
            warnings.simplefilter("ignore")
            return importlib.import_module(module or package)
    except ImportError as error:
        lack = f"its Python module {package} cannot be imported ({error})"
        raise MismatchError(_lack(engine, lack, _INSTALL[package])) from error


def _lack(engine: EngineArtifact, lack: str, cure: str = "") -> str:
    manifest = engine.manifest
    advice = (
        "Its accuracy can be judged on the CPU, from its calibration table: "
        "edgeres bench TABLE.json --simulate --reference MODEL.onnx --data PATH."
        if manifest.precision is not None and manifest.precision.quantizes
        else "Copy plan and manifest to a machine with that GPU."
    )
    return (
        f"{engine.path} is an {manifest.precision or 'unknown'} plan for {manifest.target}, compute capability "
        f"{manifest.compute_capability}, and this machine cannot run it: {lack}. {cure or advice}"
    )

"""Whether a plan belongs to this machine, answered before TensorRT's runtime loads it.

A plan is code for one TensorRT on one GPU. The runtime refuses the wrong one with an error number
at best; without a device it ends the process. So everything in the manifest is compared with the
machine first, and each difference has its sentence.
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
from edgeres.errors import MismatchError
from edgeres.installation import install_hint
from edgeres.machine.cuda import CudaDevice, NoCudaDevice, find_cuda_device
from edgeres.machine.l4t import l4t_version
from edgeres.targets.tensorrt.module import MODULES, TENSORRT

_LEAPS = frozenset({(8, 10), (10, 11)})
"""Major versions between which a version-compatible plan goes. Source: TensorRT 11.4 support
matrix, "Engine Portability"."""

_AMPERE = (8, 0)
_AMPERE_PLUS = HardwareCompatibility.AMPERE_PLUS


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What of this machine decides whether a plan runs."""

    version: str
    """Of TensorRT, or of TensorRT for RTX."""
    device: CudaDevice
    l4t: str | None = None
    """Jetson Linux release such as `36.4.3`; None on other machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRuntime:
    """What opens a plan that belongs to this machine."""

    module: Any
    """`tensorrt` or `tensorrt_rtx`."""
    device: CudaDevice


def check_plan(engine: EngineArtifact, root: Path = Path("/")) -> PlanRuntime:
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
        raise MismatchError(_cannot_run(engine, device.reason))
    package = MODULES[manifest.target].name
    try:
        with warnings.catch_warnings():
            # pycuda warns of what its ImportError says as well.
            warnings.simplefilter("ignore")
            module = importlib.import_module(package)
            package = "pycuda"
            importlib.import_module("pycuda.driver")
    except ImportError as error:
        reason = f"its Python module {package} cannot be imported ({error})"
        raise MismatchError(_cannot_run(engine, reason, install_hint(package))) from error
    host = Host(version=str(module.__version__), device=device, l4t=l4t_version(root))
    # The manifest of a plan that the user vouches for has nothing to compare.
    reasons = () if TRUSTED in manifest.flags else tuple(differences(manifest, host))
    if reasons:
        raise MismatchError(
            f"{engine.path} does not belong to this machine: {'; '.join(reasons)}. Rebuild it "
            f"here with `edgeres build-engine MODEL.onnx --target {manifest.target} --precision "
            f"{manifest.precision} -o {engine.path.name}`."
        )
    return PlanRuntime(module=module, device=device)


def differences(manifest: Manifest, host: Host) -> Iterator[str]:
    """Yields a clause for everything in which the machine is not the one that the plan is for."""
    module, options, device = MODULES[manifest.target], manifest.options, host.device
    version, capability = manifest.versions.get(module.name), manifest.compute_capability
    if version is None:
        yield f"its manifest does not name the {module.product} that built it"
    elif version != host.version and not (
        "VERSION_COMPATIBLE" in manifest.flags and is_forward_compatible(version, host.version)
    ):
        yield f"it was built with {module.product} {version}, this machine has {host.version}"

    level = HardwareCompatibility.NONE if options is None else options.hardware_compatibility
    if capability is None:
        yield "its manifest does not name the GPU that it is for"
    elif capability != device.compute_capability:
        if level is not _AMPERE_PLUS or _numbers(device.compute_capability) < _AMPERE:
            yield (
                f"it is for compute capability {capability}, this machine has "
                f"{device.compute_capability} ({device.name})"
            )
    # TensorRT chose the kernels that were fastest on one model of GPU; TensorRT for RTX compiles
    # them where the plan is loaded.
    elif (
        manifest.target == TENSORRT
        and manifest.gpu not in {None, device.name}
        and level is HardwareCompatibility.NONE
    ):
        yield f"it was built on a {manifest.gpu}, this machine has a {device.name}"

    l4t, cuda = manifest.versions.get("l4t"), manifest.versions.get("cuda")
    # Minor releases of Jetson Linux, and newer drivers, run what older ones built.
    if l4t is not None and _numbers(l4t)[0] != _numbers(host.l4t or "0")[0]:
        yield (
            f"it was built on Jetson Linux {l4t} (JetPack), this machine has "
            f"{host.l4t or 'another system'}"
        )
    if cuda is not None and _numbers(cuda)[0] > _numbers(device.cuda)[0]:
        yield f"it was built under CUDA {cuda}, the driver here serves up to {device.cuda}"


def is_forward_compatible(built: str, version: str) -> bool:
    """Returns whether a version runs the version-compatible plans of another one."""
    old, new = _numbers(built), _numbers(version)
    return old <= new and (old[0] == new[0] or (old[0], new[0]) in _LEAPS)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)) or (0,)


def _cannot_run(engine: EngineArtifact, reason: str, remedy: str = "") -> str:
    """Returns why a plan does not run here, and what to do: `remedy`, or how to go without."""
    manifest = engine.manifest
    without = (
        "Its accuracy can be evaluated on the CPU, from its calibration table: "
        "edgeres bench TABLE.json --simulate --reference MODEL.onnx --data PATH."
        if manifest.precision is not None and manifest.precision.quantizes
        else "Copy plan and manifest to a machine with that GPU."
    )
    return (
        f"{engine.path} is a plan for {manifest.target} in {manifest.precision or 'unknown precision'}, "
        f"compute capability {manifest.compute_capability}, and this machine cannot run it: "
        f"{reason}. {remedy or without}"
    )

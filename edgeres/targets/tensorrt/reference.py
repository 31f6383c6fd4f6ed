"""The FP32 engine that a plan's latency is compared with: built once on this machine, and kept.

An ONNX reference is evaluated on ONNX Runtime, but timed on the engine's own target, so that like
is compared with like.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from edgeres.core.artifacts import EngineArtifact, load_engine
from edgeres.core.contract import Contract
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.errors import ArtifactError
from edgeres.files import make_folder
from edgeres.machine.cuda import CudaDevice, find_cuda_device
from edgeres.onnx_file import LoadedModel
from edgeres.progress import Progress, silent
from edgeres.quantization.lowering import ALL_INTEGER
from edgeres.targets.base import Target
from edgeres.targets.tensorrt.module import load_backend
from edgeres.version import __version__

_LARGEST_BATCH = 16


def reference_engine(
    model: LoadedModel,
    contract: Contract,
    target: Target,
    *,
    batch: int,
    environment: Mapping[str, str] = os.environ,
    progress: Progress = silent,
) -> EngineArtifact:
    """Returns the FP32 engine of a model for this machine's GPU, built the first time.

    It is kept in the user's cache folder, by model, TensorRT's version and GPU.

    Args:
        model: the FP32 ONNX file.
        contract: its preprocessing.
        target: TensorRT, or TensorRT for RTX.
        batch: images per inference that it is to be fastest for.
        environment: where `XDG_CACHE_HOME` is looked up.
        progress: receives how far the build is.

    Raises:
        DependencyError: the target's package is not installed.
        BuildError: no GPU, or the builder refused.
        ArtifactError: the cache folder cannot be written.
    """
    # Source: XDG Base Directory Specification; a relative path is to be ignored.
    named = Path(environment.get("XDG_CACHE_HOME", ""))
    cache = named if named.is_absolute() else Path.home() / ".cache"
    folder = cache / "edgeres" / "reference"
    device = find_cuda_device()
    gpu = (device.name, device.compute_capability) if isinstance(device, CudaDevice) else ()
    version = load_backend(target.name).__version__
    parts = (model.artifact.sha256, contract, target.name, batch, version, gpu, __version__)
    key = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    path = folder / f"{model.artifact.path.stem}-{key}.fp32.plan"
    try:
        return load_engine(path)
    except ArtifactError:
        # Absent, or half of it lost: either way it is built anew.
        make_folder(folder)
    config = BuildRequest(
        target=target.name, precision=Precision.FP32, batch=(1, batch, max(batch, _LARGEST_BATCH))
    )
    network = target.lower(model, config, None, None, ALL_INTEGER)
    return target.build(network, config, contract, output=path, progress=progress)

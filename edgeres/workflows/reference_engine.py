"""Plans that `build-engine` did not make for this bench: one without a manifest, and the FP32 one.

An ONNX reference is judged on ONNX Runtime, but timed on the engine's own target, so that like is
compared with like: as an FP32 engine that is built once and kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from edgeres import __version__
from edgeres.calibration.stages import float_network
from edgeres.core.artifacts import (
    TRUSTED,
    EngineArtifact,
    Manifest,
    OnnxArtifact,
    load_engine,
)
from edgeres.core.contract import Contract
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildConfig
from edgeres.errors import ArtifactError, ConfigError
from edgeres.files import make_folder, sha256_of
from edgeres.machine.cuda import CudaDevice, find_cuda_device
from edgeres.onnx_file import LoadedModel
from edgeres.targets.base import find_target, targets
from edgeres.targets.dispatch import types_of_network
from edgeres.targets.tensorrt.module import load_backend


def trusted_plan(path: Path, model: OnnxArtifact, contract: Contract) -> EngineArtifact:
    """Returns a plan that has no manifest, as one of this model, on the user's word.

    Raises:
        ConfigError: it is an ONNX file, which needs no trust.
        ArtifactError: it cannot be read.
    """
    if path.suffix == ".onnx":
        raise ConfigError(
            f"--trust is for TensorRT plans, and {path} is an ONNX file. Build an engine from it "
            "with edgeres build-engine."
        )
    digest = sha256_of(path)
    content = path.read_bytes()
    target = next(target for target in targets().values() if target.recognizes(content))
    manifest = Manifest(
        target=target.name,
        precision=None,
        engine_sha256=digest,
        model_sha256=model.sha256,
        table_sha256=None,
        method=None,
        edgeres_version=__version__,
        versions={},
        gpu=None,
        compute_capability=None,
        flags=(TRUSTED,),
        contract=contract,
        classes=model.classes,
        input=model.input,
        output=model.output,
    )
    return EngineArtifact(path=path, manifest=manifest)


def reference_engine(
    model: LoadedModel,
    contract: Contract,
    target: str,
    *,
    batch: int,
    environment: Mapping[str, str] = os.environ,
) -> EngineArtifact:
    """Returns the FP32 engine of a model for this machine's GPU, built the first time it is asked.

    It is kept in the user's cache folder, by model, TensorRT's version and GPU.

    Args:
        model: the FP32 ONNX file.
        contract: its preprocessing.
        target: `tensorrt` or `tensorrt-rtx`.
        batch: images per inference that it is to be fastest for.
        environment: where `XDG_CACHE_HOME` is looked up.

    Raises:
        DependencyError: the target's package is not installed.
        BuildError: no GPU, or the builder refused.
        ArtifactError: the cache folder cannot be written.
    """
    folder = _cache_folder(environment) / "reference"
    path = (
        folder
        / f"{model.artifact.path.stem}-{_key(model.artifact, contract, target, batch)}.fp32.plan"
    )
    try:
        return load_engine(path)
    except ArtifactError:
        # Absent, or half of it lost: either way it is built anew.
        make_folder(folder)
    config = BuildConfig(
        target=target, precision=Precision.FP32, batch=(1, batch, max(batch, _LARGEST_BATCH))
    )
    network = float_network(model, types_of_network(config))
    return find_target(target).build(network, config, contract, output=path)


_LARGEST_BATCH = 16


def _cache_folder(environment: Mapping[str, str]) -> Path:
    """Source: XDG Base Directory Specification; a relative path is to be ignored."""
    named = Path(environment.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "edgeres"


def _key(model: OnnxArtifact, contract: Contract, target: str, batch: int) -> str:
    device = find_cuda_device()
    gpu = (device.name, device.compute_capability) if isinstance(device, CudaDevice) else ()
    parts = (model.sha256, contract, target, batch, load_backend(target).__version__, gpu)
    return hashlib.sha256(repr((*parts, __version__)).encode()).hexdigest()[:16]

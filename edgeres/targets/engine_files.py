"""Writes an engine and its manifest, both or neither."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeres.core.artifacts import EngineArtifact, Manifest, manifest_path
from edgeres.core.audit import Audit
from edgeres.core.builder_options import TensorRTOptions
from edgeres.core.contract import Contract
from edgeres.core.described import save_described
from edgeres.core.requests import BuildRequest
from edgeres.onnx_file import LoweredNetwork
from edgeres.version import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An engine in memory and where it belongs."""

    engine: bytes = field(repr=False)
    versions: Mapping[str, str]
    gpu: str | None = None
    compute_capability: str | None = None
    flags: tuple[str, ...] = ()
    batch: tuple[int, int, int] | None = None
    audit: Audit | None = None
    options: TensorRTOptions | None = None
    """What was requested of NVIDIA's builder; None on the CPU."""
    commands: tuple[str, ...] = ()
    """Command lines that build on from the engine."""


def save_engine(
    built: Built, network: LoweredNetwork, config: BuildRequest, contract: Contract, output: Path
) -> EngineArtifact:
    """Writes the engine and `output`.json beside it, both or neither.

    Raises:
        ArtifactError: the files cannot be written.
    """
    table = network.table
    manifest = Manifest(
        target=config.target,
        precision=config.precision,
        engine_sha256=hashlib.sha256(built.engine).hexdigest(),
        model_sha256=network.source.sha256,
        table_sha256=None if table is None else table.sha256,
        method=network.method,
        edgeres_version=__version__,
        versions=dict(built.versions),
        gpu=built.gpu,
        compute_capability=built.compute_capability,
        flags=built.flags,
        contract=contract,
        classes=network.source.classes,
        input=network.source.input,
        output=network.source.output,
        activation=network.source.activation,
        calibration_images=() if table is None else table.data.image_hashes,
        layers=network.layers,
        search=network.search,
        sensitivity=None if table is None else table.sensitivity,
        batch=built.batch,
        input_size=config.input_size,
        options=built.options,
        required_coverage=config.required_coverage,
        audit=built.audit,
        ranges=network.ranges,
        fp16=network.fp16,
        commands=built.commands,
    )
    save_described(output, built.engine, manifest_path(output), manifest)
    return EngineArtifact(path=output, manifest=manifest, content=built.engine)

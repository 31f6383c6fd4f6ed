"""Plans for the double of TensorRT: an ONNX file with the manifest that its builder would write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import networks
from digits import sha256_of

from edgeres.core.artifacts import EngineArtifact, Manifest, TensorSpec
from edgeres.core.contract import preset
from edgeres.core.precision import Precision

MANIFEST = Manifest(
    target="tensorrt",
    precision=Precision.FP16,
    engine_sha256="",
    model_sha256="",
    table_sha256=None,
    method=None,
    edgeres_version="",
    versions={"tensorrt": "10.3.0"},
    gpu="Pretend GPU",
    compute_capability="8.7",
    flags=("STRONGLY_TYPED",),
    contract=preset("digits"),
    classes=(),
    input=TensorSpec(name="image", shape=(None, 3, networks.SIZE, networks.SIZE)),
    output=TensorSpec(name="logits", shape=(None, networks.CLASSES)),
)


def write_plan(folder: Path, content: bytes | None = None, **changes: Any) -> EngineArtifact:
    """Writes a plan, the tiny identity network's unless told otherwise."""
    path = folder / "tiny.plan"
    path.write_bytes(
        networks.network("identity").SerializeToString() if content is None else content
    )
    manifest = replace(MANIFEST, engine_sha256=sha256_of(path), **changes)
    return EngineArtifact(path=path, manifest=manifest, content=path.read_bytes())

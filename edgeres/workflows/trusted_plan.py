"""A plan that `build-engine` did not write and that has no manifest, run on the user's word."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgeres.core.artifacts import TRUSTED, EngineArtifact, Manifest, OnnxArtifact
from edgeres.core.contract import Contract
from edgeres.errors import ConfigError
from edgeres.files import read_bytes
from edgeres.targets.base import targets
from edgeres.version import __version__


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
    content = read_bytes(path)
    # TensorRT's plans and those of TensorRT for RTX are distinguished by their first bytes.
    target = next(target for target in targets().values() if target.recognizes(content))
    manifest = Manifest(
        target=target.name,
        precision=None,
        engine_sha256=hashlib.sha256(content).hexdigest(),
        model_sha256=model.sha256,
        table_sha256=None,
        method=None,
        edgeres_version=__version__,
        # A plan's own header names versions and GPU, but its layout is undocumented.
        versions={},
        gpu=None,
        compute_capability=None,
        flags=(TRUSTED,),
        contract=contract,
        classes=model.classes,
        input=model.input,
        output=model.output,
    )
    return EngineArtifact(path=path, manifest=manifest, content=content)

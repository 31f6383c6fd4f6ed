"""An engine to the files of the folder that runs it elsewhere."""

from __future__ import annotations

from pathlib import Path

from edgeres.core.artifacts import TRUSTED, EngineArtifact
from edgeres.core.deployment import DeployRequest, Destination
from edgeres.deploy.deepstream import deepstream_files
from edgeres.deploy.folder import Files
from edgeres.deploy.golden import GoldenPair, golden_pair
from edgeres.deploy.python_program import python_files
from edgeres.deploy.triton import triton_files
from edgeres.errors import ConfigError
from edgeres.runtime import gives_probabilities


def deploy(
    engine: EngineArtifact, request: DeployRequest, image: Path | None = None
) -> tuple[Files, GoldenPair | str]:
    """Returns the files of a folder, and the golden pair or why there is none.

    Args:
        engine: what is deployed.
        request: where to, and how.
        image: of the golden pair; None draws one.

    Raises:
        ConfigError: the destination cannot express the preprocessing, or serve the engine.
        DataError: the image cannot be decoded.
        RunnerError: inference failed.
    """
    if TRUSTED in engine.manifest.flags:
        raise ConfigError(
            f"{engine.path} has no manifest: its bindings and batches are not known here. Build it "
            "with edgeres build-engine, which writes one."
        )
    golden = golden_pair(engine, image)
    pair = golden if isinstance(golden, GoldenPair) else None
    if request.destination is Destination.TRITON:
        return triton_files(engine, request, pair), golden
    write = deepstream_files if request.destination is Destination.DEEPSTREAM else python_files
    return write(engine, pair, gives_probabilities=gives_probabilities(engine)), golden

"""Networks to engines, one file a target; the manifest stands beside the engine."""

from __future__ import annotations

from pathlib import Path

from edgeres.artifacts import EngineArtifact
from edgeres.build import onnxruntime, tensorrt
from edgeres.model_file import Network
from edgeres.spec import BuildConfig, Contract, Target

__all__ = ["build_engine"]


def build_engine(
    network: Network, config: BuildConfig, contract: Contract, *, output: Path
) -> EngineArtifact:
    """Builds an engine for `config.target` and writes it with its manifest.

    Args:
        network: in the precision asked for, lowered for the target.
        config: target, precision, batch profile and compute capability.
        contract: preprocessing that the engine expects.
        output: the engine file; its manifest is `output` with `.json` added.

    Raises:
        BuildError: the target refused the network, or runs layers in another precision.
        DependencyError: the target's package is not installed.
        ArtifactError: the files cannot be written.
    """
    if config.target is Target.ONNXRUNTIME:
        return onnxruntime.build(network, config, contract, output=output)
    return tensorrt.build(network, config, contract, output=output)

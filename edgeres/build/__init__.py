"""Networks to engines, one file a target; the manifest stands beside the engine."""

from __future__ import annotations

from pathlib import Path

from edgeres.artifacts import EngineArtifact
from edgeres.build import onnxruntime, tensorrt
from edgeres.build.backend import is_strongly_typed, load_backend
from edgeres.build.progress import Progress, silent
from edgeres.contract import Contract
from edgeres.model_file import Network
from edgeres.spec import BuildConfig, Precision, Target

__all__ = ["Progress", "build_engine", "silent", "types_of_network"]


def types_of_network(config: BuildConfig) -> Precision:
    """Returns the type that the float parts of a target's network are to be written in.

    FP16 where the target is strongly typed and FP16 was asked for. FP32 elsewhere: on the CPU,
    and for TensorRT before 10.0, whose builder chooses FP16 by itself where it is allowed to.

    Raises:
        DependencyError: the target's package is not installed.
    """
    if config.target is Target.ONNXRUNTIME:
        return Precision.FP32
    typed = is_strongly_typed(load_backend(config.target))
    return config.float_precision if typed else Precision.FP32


def build_engine(
    network: Network,
    config: BuildConfig,
    contract: Contract,
    *,
    output: Path,
    progress: Progress = silent,
) -> EngineArtifact:
    """Builds an engine for `config.target` and writes it with its manifest.

    Args:
        network: in the precision asked for, lowered for the target.
        config: target, precision, profile and options.
        contract: preprocessing that the engine expects.
        output: the engine file; its manifest is `output` with `.json` added.
        progress: is told how far NVIDIA's builder is; the CPU's has nothing to tell.

    Raises:
        BuildError: the target refused the network.
        CoverageError: it runs layers in another precision than asked.
        ConfigError: the target lacks what was asked for.
        MismatchError: the timing cache is another GPU's or version's.
        DependencyError: the target's package is not installed.
        ArtifactError: the files cannot be written.
    """
    if config.target is Target.ONNXRUNTIME:
        return onnxruntime.build(network, config, contract, output=output)
    return tensorrt.build(network, config, contract, output=output, progress=progress)

"""Networks to engines, one file a target; the manifest stands beside the engine."""

from __future__ import annotations

from pathlib import Path

from edgeres.core.artifacts import EngineArtifact, OnnxArtifact
from edgeres.core.contract import Contract
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildConfig
from edgeres.core.target import Target
from edgeres.onnx_file import LoweredNetwork
from edgeres.progress import Progress, silent
from edgeres.targets.onnxruntime import build as onnxruntime
from edgeres.targets.onnxruntime.runner import OnnxRuntimeRunner
from edgeres.targets.runner import Runner
from edgeres.targets.tensorrt import builder as tensorrt
from edgeres.targets.tensorrt.module import is_strongly_typed, load_backend
from edgeres.targets.tensorrt.preflight import check_plan
from edgeres.targets.tensorrt.runner import TensorRTRunner


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
    network: LoweredNetwork,
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
        progress: receives how far NVIDIA's builder is; the CPU's reports nothing.

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


def engine_runner(engine: EngineArtifact) -> Runner:
    """Returns the runner of an engine, not yet open.

    Raises:
        MismatchError: this machine cannot run it.
    """
    manifest = engine.manifest
    if manifest.target is Target.ONNXRUNTIME:
        return OnnxRuntimeRunner(
            engine.path, input=manifest.input, output=manifest.output, name=engine.path.name
        )
    check_plan(engine)
    return TensorRTRunner(engine)


def model_runner(model: OnnxArtifact) -> Runner:
    """Returns the runner of an ONNX file on the CPU, not yet open."""
    return OnnxRuntimeRunner(
        model.path, input=model.input, output=model.output, name=model.path.name
    )


def network_runner(network: LoweredNetwork, name: str) -> Runner:
    """Returns the runner of a simulated network on the CPU, not yet open.

    Between its roundings it computes in float32. ONNX Runtime's fusions would round the float
    biases of TensorRT's placement to int32 in units that may overflow.
    """
    return OnnxRuntimeRunner(
        network.model.SerializeToString(),
        input=network.source.input,
        output=network.source.output,
        name=name,
        integer=False,
    )

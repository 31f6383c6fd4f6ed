"""Networks to engines, one file a target; the manifest stands beside the engine."""

from __future__ import annotations

from edgeres.core.artifacts import OnnxArtifact
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildConfig
from edgeres.onnx_file import LoweredNetwork
from edgeres.targets.base import find_target
from edgeres.targets.onnxruntime.runner import OnnxRuntimeRunner
from edgeres.targets.runner import Runner
from edgeres.targets.tensorrt.module import is_strongly_typed, load_backend


def types_of_network(config: BuildConfig) -> Precision:
    """Returns the type that the float parts of a target's network are to be written in.

    FP16 where the target is strongly typed and FP16 was asked for. FP32 elsewhere: on the CPU,
    and for TensorRT before 10.0, whose builder chooses FP16 by itself where it is allowed to.

    Raises:
        DependencyError: the target's package is not installed.
    """
    if not find_target(config.target).uses_gpu:
        return Precision.FP32
    typed = is_strongly_typed(load_backend(config.target))
    return config.float_precision if typed else Precision.FP32


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

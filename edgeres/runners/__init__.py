"""Engines that answer with logits, one file and one dependency each."""

from __future__ import annotations

from edgeres.artifacts import EngineArtifact, OnnxArtifact
from edgeres.model_file import Network
from edgeres.runners.base import Runner
from edgeres.runners.onnxruntime import OnnxRuntimeRunner
from edgeres.runners.preflight import check_plan
from edgeres.runners.tensorrt import TensorRtRunner
from edgeres.spec import Target

__all__ = ["Runner", "TensorRtRunner", "engine_runner", "model_runner", "network_runner"]


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
    return TensorRtRunner(engine)


def model_runner(model: OnnxArtifact) -> Runner:
    """Returns the runner of an ONNX file on the CPU, not yet open."""
    return OnnxRuntimeRunner(
        model.path, input=model.input, output=model.output, name=model.path.name
    )


def network_runner(network: Network, name: str) -> Runner:
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

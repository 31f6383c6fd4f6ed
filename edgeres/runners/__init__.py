"""Engines that answer with logits, one file and one dependency each."""

from __future__ import annotations

from edgeres.artifacts import EngineArtifact, OnnxArtifact
from edgeres.environment import has_nvidia_gpu
from edgeres.errors import MismatchError
from edgeres.model_file import Network
from edgeres.runners.base import Runner
from edgeres.runners.onnxruntime import OnnxRuntimeRunner
from edgeres.spec import Target

__all__ = ["Runner", "engine_runner", "model_runner", "network_runner"]


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
    lack = (
        "edgeres does not run plans yet" if has_nvidia_gpu() else "this machine has no NVIDIA GPU"
    )
    advice = (
        "Its accuracy can be judged on the CPU, from its calibration table: "
        "edgeres bench TABLE.json --simulate --reference MODEL.onnx --data PATH."
        if manifest.precision.quantizes
        else "Run it with NVIDIA's own tools: the plan is pure."
    )
    raise MismatchError(
        f"{engine.path} is an {manifest.precision} plan for {manifest.target}, compute capability "
        f"{manifest.compute_capability}, and {lack}. {advice}"
    )


def model_runner(model: OnnxArtifact) -> Runner:
    """Returns the runner of an ONNX file on the CPU, not yet open."""
    return OnnxRuntimeRunner(
        model.path, input=model.input, output=model.output, name=model.path.name
    )


def network_runner(network: Network, name: str) -> Runner:
    """Returns the runner of a network in memory on the CPU, not yet open."""
    return OnnxRuntimeRunner(
        network.model.SerializeToString(),
        input=network.source.input,
        output=network.source.output,
        name=name,
    )

"""Writes the typed file with its manifest, and names the trtexec lines that read it."""

from __future__ import annotations

import shlex
from importlib.metadata import version
from pathlib import Path

import onnx

from edgeres.core.artifacts import EngineArtifact
from edgeres.core.contract import Contract
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.errors import BuildError
from edgeres.onnx_file import IR_VERSION, LoweredNetwork, opset_of
from edgeres.targets.engine_files import Built, save_engine

_OPSET_8_6, _OPSET_10_3 = 17, 20
"""Newest opsets that these versions' parsers read. Source: the ONNX-TensorRT release notes."""


def build(
    network: LoweredNetwork, config: BuildRequest, contract: Contract, *, output: Path
) -> EngineArtifact:
    """Writes the network as it is: the bytes that a plan is built from.

    Raises:
        BuildError: ONNX's own checker refuses the network, types and shapes included.
        ArtifactError: the files cannot be written.
    """
    try:
        onnx.checker.check_model(network.model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BuildError(
            f"ONNX's checker refuses the {config.precision} form of {network.source.path}: "
            f"{' '.join(str(error).split())}. Export the model again, or pass --precision fp32."
        ) from error
    built = Built(
        engine=network.model.SerializeToString(),
        versions={"onnx": version("onnx"), "opset": str(opset_of(network.model))},
        commands=trtexec_lines(network, config, contract, output),
    )
    return save_engine(built, network, config, contract, output)


def trtexec_lines(
    network: LoweredNetwork, config: BuildRequest, contract: Contract, output: Path
) -> tuple[str, ...]:
    """Returns the lines that build a plan from the file, one for each TensorRT that reads it."""
    model = network.model
    opset, plan = opset_of(model), output.with_suffix(".plan")
    words = ["trtexec", f"--onnx={output}", f"--saveEngine={plan}"]
    image = network.source.input
    if image.shape[0] is None:
        # A name with a colon stands in quotes, or trtexec takes its end for the shape.
        name = f"'{image.name}'" if ":" in image.name else image.name
        sides = zip(image.shape[1:], contract.shape, strict=True)
        size = "x".join(str(own or contracted) for own, contracted in sides)
        words += [
            f"--{bound}Shapes={name}:{batch}x{size}"
            for bound, batch in zip(("min", "opt", "max"), config.batch, strict=True)
        ]
    if network.channels_last:
        words.append("--inputIOFormats=uint8:hwc")
    elif image.dtype == "uint8":
        words.append("--inputIOFormats=uint8:chw")
    flags: dict[str, list[str]] = {"TensorRT 11": []}
    if opset <= _OPSET_10_3:
        flags["TensorRT 10.3 to 10.16"] = ["--stronglyTyped"]
    if opset <= _OPSET_8_6 and model.ir_version <= IR_VERSION:
        flags["TensorRT 8.6"] = [
            *(["--int8"] if config.is_quantized else []),
            *(["--fp16"] if config.float_precision is Precision.FP16 else []),
        ]
    return tuple(f"{version}: {shlex.join([*words, *more])}" for version, more in flags.items())

"""A checkpoint to an ONNX file. Needs torch, as no other command does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgeres.core.artifacts import OnnxArtifact
from edgeres.core.contract import InputType
from edgeres.core.requests import Layout, OnnxExportRequest
from edgeres.errors import ConfigError
from edgeres.files import check_outputs
from edgeres.input_files import CLASS_NAMES, read_text
from edgeres.networks.export_request import ExportRequest
from edgeres.networks.load import load_trained
from edgeres.networks.onnx_export import export_onnx
from edgeres.networks.registry import equal_shapes, find_spec, is_factory, is_published
from edgeres.networks.uniform_std import with_uniform_std
from edgeres.plurals import counted
from edgeres.progress import Progress, silent


def export_model(
    request: ExportRequest, *, output: Path, progress: Progress = silent
) -> OnnxArtifact:
    """Writes a checkpoint as ONNX with its preprocessing contract.

    Args:
        request: which checkpoint, and what is recorded with it.
        output: the ONNX file.
        progress: receives how much of tracing and comparing is done.

    Raises:
        CheckpointError: the checkpoint cannot be read, fetched, trusted or fitted.
        DependencyError: the library that publishes the weights is missing.
        ConfigError: unknown architecture or preset, options that contradict each other, or no
            preprocessing for a file's weights.
        ExportError: the file would not compute what the network computes.
        ArtifactError: the file cannot be written.
    """
    read = (request.weights, request.labels)
    check_outputs([output], [path for path in read if path is not None])
    _check_described(request)
    if request.layout is not None and request.input is InputType.FLOAT32:
        raise ConfigError(
            f"--layout {request.layout} is of the bytes of --input uint8; floats are CHW. Leave it "
            "out, or pass --input uint8."
        )
    trained = load_trained(
        request.architecture,
        request.weights,
        num_classes=request.num_classes,
        bn_eps=request.bn_eps,
        shortcut=request.shortcut,
        weights_key=request.weights_key,
    )
    classes = trained.classes
    contract = request.contract.resolve(trained.contract)
    if trained.spec is not None and trained.spec.image_channels != contract.channels:
        raise ConfigError(
            f"The weights of {request.weights} take images of "
            f"{counted(trained.spec.image_channels, 'channel')}, and the preprocessing makes "
            f"{contract.channels}. Pass --channels {trained.spec.image_channels}, with --mean and "
            "--std for each."
        )
    if request.labels is not None:
        lines = read_text(request.labels, CLASS_NAMES).splitlines()
        # An empty file names nothing, so the published names stay.
        classes = tuple(line.strip() for line in lines if line.strip()) or classes
    module = trained.module
    if request.uniform_std:
        module, contract = with_uniform_std(module, contract)
    contract = replace(contract, input=request.input)
    config = OnnxExportRequest(
        layout=request.layout or Layout.HWC,
        contract=contract,
        classes=classes,
        architecture=trained.name,
        checkpoint_sha256=trained.checkpoint_sha256,
        opset=request.opset,
        head=request.head,
    )
    artifact = export_onnx(module, config, output=output, progress=progress)
    return replace(artifact, equal_shapes=equal_shapes(trained.spec) if trained.spec else ())


def _check_described(request: ExportRequest) -> None:
    """Raises ConfigError where nothing states how the images of a network were prepared."""
    name = request.architecture
    # A misspelt name is reported before anything that is left out.
    if is_published(name) or (not is_factory(name) and not find_spec(name)):
        return
    if request.contract.missing:
        raise ConfigError(
            f"{name} is exported with the preprocessing that it was trained with, which a checkpoint "
            f"does not hold. {request.contract.how_to_describe()} Examples: --preset imagenet for "
            "torchvision's weights, imagenet-caffe for those of He et al. and Keras, "
            "cifar-imagenet-norm for akamaster's CIFAR nets."
        )

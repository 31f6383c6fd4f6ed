"""A checkpoint to an ONNX file. Needs torch, as no other command does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeres.core.artifacts import OnnxArtifact
from edgeres.core.contract_options import ContractOptions
from edgeres.core.requests import OnnxExportRequest
from edgeres.files import check_outputs
from edgeres.input_files import CLASS_NAMES, read_text
from edgeres.networks.load import load_trained
from edgeres.networks.onnx_export import export_onnx
from edgeres.networks.specification import Shortcut, Stem
from edgeres.networks.uniform_std import with_uniform_std


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """Which checkpoint `export_model` writes, and what it records with it."""

    architecture: str
    """Registry name, `package.module:factory`, or published weights such as `timm:resnet50`."""
    weights: Path | None
    """None for published weights, which are fetched."""
    contract: ContractOptions
    num_classes: int | None = None
    labels: Path | None = None
    """Text file with one class name a line."""
    bn_eps: float | None = None
    shortcut: Shortcut | None = None
    opset: int = 17
    weights_key: str | None = None
    """Key of the set of weights in the checkpoint; None: the averaged one where there is one."""
    uniform_std: bool = False
    """Fold what differs of the channels' deviations into the first convolution."""


def export_model(request: ExportRequest, *, output: Path) -> OnnxArtifact:
    """Writes a checkpoint as ONNX with its preprocessing contract.

    Raises:
        CheckpointError: the checkpoint cannot be read, fetched, trusted or fitted.
        DependencyError: the library that publishes the weights is missing.
        ConfigError: unknown architecture or preset, or options that contradict each other.
        ExportError: the file would not compute what the network computes.
        ArtifactError: the file cannot be written.
    """
    read = (request.weights, request.labels)
    check_outputs([output], [path for path in read if path is not None])
    trained = load_trained(
        request.architecture,
        request.weights,
        num_classes=request.num_classes,
        bn_eps=request.bn_eps,
        shortcut=request.shortcut,
        weights_key=request.weights_key,
    )
    spec, classes = trained.spec, trained.classes
    if request.labels is not None:
        lines = read_text(request.labels, CLASS_NAMES).splitlines()
        # An empty file names nothing, so the published names stay.
        classes = tuple(line.strip() for line in lines if line.strip()) or classes
    # The preset of an architecture is that of its published checkpoints. Those with the stride in
    # the first 1x1 convolution descend from Caffe's, which take BGR without division by 255.
    if spec is not None and spec.stem is Stem.CIFAR:
        default = "cifar"
    else:
        default = "imagenet-caffe" if spec is not None and spec.stride_in_1x1 else "imagenet"
    contract, module = request.contract.resolve(trained.contract or default), trained.module
    if request.uniform_std:
        module, contract = with_uniform_std(module, contract)
    config = OnnxExportRequest(
        contract=contract,
        classes=classes,
        architecture=trained.name,
        checkpoint_sha256=trained.checkpoint_sha256,
        opset=request.opset,
    )
    return export_onnx(module, config, output=output)

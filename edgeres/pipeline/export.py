"""A checkpoint to an ONNX file. Needs torch, as no other command does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from edgeres.artifacts import OnnxArtifact, check_writable
from edgeres.errors import ArtifactError
from edgeres.export import export_onnx
from edgeres.models import find_spec, is_factory
from edgeres.models.checkpoint import (
    load_checkpoint,
    load_weights,
    model_from_checkpoint,
    spec_from_checkpoint,
)
from edgeres.models.factory import load_factory
from edgeres.spec import Contract, ContractOptions, ExportConfig, ModelSpec, Shortcut, Stem


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What `export_model` is asked for."""

    architecture: str
    """Registry name, or `package.module:factory`."""
    weights: Path
    contract: ContractOptions
    num_classes: int | None = None
    labels: Path | None = None
    """Text file with one class name a line."""
    bn_eps: float | None = None
    shortcut: Shortcut | None = None
    opset: int = 17


def export_model(request: ExportRequest, *, output: Path) -> OnnxArtifact:
    """Writes a checkpoint as ONNX with its preprocessing contract.

    Raises:
        CheckpointError: the checkpoint cannot be read, trusted or fitted.
        ConfigError: unknown architecture or preset, or options that contradict each other.
        ExportError: the file would not compute what the network computes.
        ArtifactError: the file cannot be written.
    """
    check_writable(output)
    model, contract, sha256 = _loaded(request)
    config = ExportConfig(
        contract=contract,
        classes=_class_names(request.labels),
        architecture=request.architecture,
        checkpoint_sha256=sha256,
        opset=request.opset,
    )
    return export_onnx(model, config, output=output)


def _loaded(request: ExportRequest) -> tuple[nn.Module, Contract, str]:
    """Returns the trained network, its preprocessing and the hash of its checkpoint."""
    checkpoint = load_checkpoint(request.weights)
    if is_factory(request.architecture):
        model = load_weights(
            load_factory(request.architecture), checkpoint, name=request.architecture
        )
        return model, request.contract.resolve("imagenet"), checkpoint.sha256
    asked = find_spec(request.architecture)
    if request.bn_eps is not None:
        asked = replace(asked, bn_eps=request.bn_eps)
    spec = spec_from_checkpoint(
        asked, checkpoint, num_classes=request.num_classes, shortcut=request.shortcut
    )
    contract = request.contract.resolve(_preset_of(spec))
    return model_from_checkpoint(spec, checkpoint), contract, checkpoint.sha256


def _preset_of(spec: ModelSpec) -> str:
    """Returns the preset that an architecture's published checkpoints were trained with."""
    if spec.stem is Stem.CIFAR:
        return "cifar"
    return "imagenet-caffe" if spec.stride_in_1x1 else "imagenet"


def _class_names(labels: Path | None) -> tuple[str, ...]:
    if labels is None:
        return ()
    try:
        lines = labels.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"{labels} cannot be read: {error}. --labels takes a text file with one class name "
            "a line."
        ) from error
    return tuple(line.strip() for line in lines if line.strip())

"""A name and a checkpoint to a trained network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from edgeres.errors import ConfigError
from edgeres.models.checkpoint import (
    load_checkpoint,
    load_weights,
    model_from_checkpoint,
    spec_from_checkpoint,
)
from edgeres.models.factory import load_factory
from edgeres.models.registry import find_spec, is_factory
from edgeres.spec import ModelSpec, Shortcut


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A network in evaluation mode and where its weights come from."""

    module: nn.Module
    spec: ModelSpec | None
    """None for a network of the user's own factory."""
    checkpoint_sha256: str


def load_trained(
    architecture: str,
    weights: Path,
    *,
    num_classes: int | None = None,
    bn_eps: float | None = None,
    shortcut: Shortcut | None = None,
) -> TrainedModel:
    """Returns the network of that name with the checkpoint's weights.

    Args:
        architecture: a registered name, or `package.module:factory`.
        weights: the checkpoint.
        num_classes: held against the classifier in the file.
        bn_eps: epsilon of batch normalisation; None: the architecture's.
        shortcut: option A or B; None: as the file has it.

    Raises:
        CheckpointError: the checkpoint cannot be read, trusted or fitted.
        ConfigError: unknown architecture, or options that a factory decides itself.
    """
    if is_factory(architecture):
        _check_factory_options(architecture, num_classes, bn_eps, shortcut)
        module = load_factory(architecture)
        checkpoint = load_checkpoint(weights)
        module = load_weights(module, checkpoint, name=architecture)
        return TrainedModel(module=module, spec=None, checkpoint_sha256=checkpoint.sha256)
    asked = find_spec(architecture)
    if bn_eps is not None:
        asked = replace(asked, bn_eps=bn_eps)
    checkpoint = load_checkpoint(weights)
    spec = spec_from_checkpoint(asked, checkpoint, num_classes=num_classes, shortcut=shortcut)
    module = model_from_checkpoint(spec, checkpoint)
    return TrainedModel(module=module, spec=spec, checkpoint_sha256=checkpoint.sha256)


def _check_factory_options(architecture: str, *options: object) -> None:
    if any(option is not None for option in options):
        raise ConfigError(
            f"--num-classes, --bn-eps and --shortcut have no effect on {architecture}: its factory "
            "decides them. Leave them out."
        )

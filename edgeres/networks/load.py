"""A name and a checkpoint to a trained network; a name may be a user's `package.module:factory`."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from edgeres.core.contract import Contract
from edgeres.errors import ConfigError
from edgeres.names import nearest
from edgeres.networks.checkpoint import (
    load_checkpoint,
    load_weights,
    model_from_checkpoint,
    spec_from_checkpoint,
)
from edgeres.networks.published import TrainedWeights, fetch_published
from edgeres.networks.registry import find_spec, is_factory, is_published
from edgeres.networks.specification import ModelSpec, Shortcut


def load_factory(name: str) -> nn.Module:
    """Imports `package.module:factory`, calls it without arguments and returns its network.

    Whatever the user's code raises keeps its own traceback.

    Raises:
        ConfigError: the name has another form, the module or the attribute does not exist,
            or what comes back is no `torch.nn.Module`.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigError(
            f"'{name}' names no factory; expected package.module:factory, such as my.nets:resnet."
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that the user's module lacks is the user's bug, not a wrong name.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(
            f"No module '{error.name}' for the architecture '{module_name}'. "
            "Put the folder that holds it on PYTHONPATH, or check the spelling."
        ) from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        public = [known for known in vars(module) if callable(getattr(module, known))]
        raise ConfigError(
            f"{module_name} has no function or class '{attribute}'.{nearest(attribute, public)} "
            "Name one that returns the network and needs no arguments."
        )
    network = factory()
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"{name}() returned a {type(network).__name__}; expected a torch.nn.Module. "
            "Name a function or class that returns the network and needs no arguments."
        )
    return network


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A network in evaluation mode and where its weights come from."""

    name: str
    """Architecture, factory, or published weights in full, such as `timm:resnet50.a1_in1k`."""
    module: nn.Module
    spec: ModelSpec | None
    """None for a network of the user's own factory."""
    checkpoint_sha256: str
    contract: Contract | None = None
    """Preprocessing that published weights come with; None for a file, which carries none."""
    classes: tuple[str, ...] = ()
    """Class names that published weights come with."""


def load_trained(
    architecture: str,
    weights: Path | None,
    *,
    num_classes: int | None = None,
    bn_eps: float | None = None,
    shortcut: Shortcut | None = None,
    weights_key: str | None = None,
) -> TrainedModel:
    """Returns the network of that name with trained weights.

    Args:
        architecture: a registered name, `package.module:factory`, or weights that torchvision or
            timm publish, such as `timm:resnet50.a1_in1k`.
        weights: the checkpoint; None for published weights, which are fetched.
        num_classes: compared with the classifier in the file.
        bn_eps: epsilon of batch normalisation; None: the architecture's.
        shortcut: option A or B; None: as the file has it.
        weights_key: key of the set of weights in the checkpoint; None: the averaged one where
            there is one.

    Raises:
        CheckpointError: the checkpoint cannot be read, fetched, trusted or fitted.
        ConfigError: unknown architecture, a checkpoint missing or one too many, or options that
            a factory decides itself.
        DependencyError: the library that publishes the weights is missing.
    """
    if is_factory(architecture):
        if any(option is not None for option in (num_classes, bn_eps, shortcut)):
            raise ConfigError(
                f"--num-classes, --bn-eps and --shortcut have no effect on {architecture}: its "
                "factory decides them. Leave them out."
            )
        path = _required(architecture, weights)
        module = load_factory(architecture)
        checkpoint = load_checkpoint(path, weights_key=weights_key)
        return TrainedModel(
            name=architecture,
            module=load_weights(module, checkpoint, name=architecture),
            spec=None,
            checkpoint_sha256=checkpoint.sha256,
        )
    trained = _trained_weights(architecture, weights, weights_key)
    spec = find_spec(trained.architecture)
    if bn_eps is not None:
        spec = replace(spec, bn_eps=bn_eps)
    spec = spec_from_checkpoint(
        spec, trained.checkpoint, num_classes=num_classes, shortcut=shortcut
    )
    return TrainedModel(
        name=trained.name,
        module=model_from_checkpoint(spec, trained.checkpoint),
        spec=spec,
        checkpoint_sha256=trained.checkpoint.sha256,
        contract=trained.contract,
        classes=trained.classes,
    )


def _trained_weights(
    architecture: str, weights: Path | None, weights_key: str | None
) -> TrainedWeights:
    """Returns the weights of a registered architecture, fetched or from a file."""
    if is_published(architecture):
        if weights is not None:
            raise ConfigError(
                f"{architecture} names published weights, and --weights {weights} others. Leave "
                "--weights out to fetch the published ones, or name the architecture alone."
            )
        if weights_key is not None:
            raise ConfigError(
                f"--weights-key {weights_key} chooses among the sets of weights in a file, and "
                f"{architecture} is fetched as one set. Leave it out."
            )
        return fetch_published(architecture)
    # Before the file is read: a misspelt name is reported at once.
    find_spec(architecture)
    checkpoint = load_checkpoint(_required(architecture, weights), weights_key=weights_key)
    return TrainedWeights(name=architecture, architecture=architecture, checkpoint=checkpoint)


def _required(architecture: str, weights: Path | None) -> Path:
    if weights is None:
        raise ConfigError(
            f"{architecture} needs a checkpoint: pass it with --weights. Published weights are "
            "fetched by the names torchvision:ARCH and timm:ARCH.TAG."
        )
    return weights

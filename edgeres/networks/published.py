"""Weights that torchvision and timm publish, fetched through those libraries.

The preprocessing contract is the library's own for those weights. Where the library or the
network is missing, the message has the options that export the file instead.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from types import ModuleType

from edgeres.core.contract import Contract
from edgeres.core.resize import Interpolation, shortest
from edgeres.errors import CheckpointError, ConfigError, DependencyError
from edgeres.names import nearest
from edgeres.networks.checkpoint import Checkpoint, checkpoint_from_weights
from edgeres.networks.registry import PUBLISHED, Publisher


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedWeights:
    """Weights, the registered architecture that they belong to, and what came with them."""

    name: str
    """As requested; of published weights in full, such as `timm:resnet50.a1_in1k`."""
    architecture: str
    checkpoint: Checkpoint
    contract: Contract | None = None
    """Their preprocessing; None where none is stated."""
    classes: tuple[str, ...] = ()
    """Names in the order of the logits; empty where none are stated."""


def fetch_published(name: str) -> TrainedWeights:
    """Returns published weights; the library downloads them once and keeps them in its cache.

    Args:
        name: `torchvision:ARCH[.WEIGHTS]`, such as `torchvision:resnet50.IMAGENET1K_V1`, or
            `timm:ARCH[.TAG]`, such as `timm:resnet50.a1_in1k`. Without the last part, those that
            the library takes by default.

    Raises:
        ConfigError: no such architecture or weights there.
        DependencyError: the library is not installed or cannot be loaded.
        CheckpointError: the weights cannot be fetched, or no inference can use them.
    """
    publisher, _, weights = name.partition(":")
    architecture, _, tag = weights.partition(".")
    if architecture not in PUBLISHED:
        raise ConfigError(
            f"No published weights of '{architecture}' are known.{nearest(architecture, PUBLISHED)} "
            f"Available by {publisher}:ARCH: {', '.join(PUBLISHED)}."
        )
    if Publisher(publisher) is Publisher.TORCHVISION:
        return _from_torchvision(architecture, tag)
    return _from_timm(architecture, tag)


def _from_torchvision(architecture: str, tag: str) -> TrainedWeights:
    models = _library(Publisher.TORCHVISION, architecture, "torchvision.models")
    known = models.get_model_weights(architecture)
    if tag:
        _check_tag(f"torchvision:{architecture}", tag, list(known.__members__))
    weights = known[tag] if tag else known.DEFAULT
    transforms = weights.transforms()
    # torchvision keeps both sizes as lists, of one element where the image is square.
    (size,), (resize,) = transforms.crop_size, transforms.resize_size
    contract = Contract(
        height=size,
        width=size,
        resize=shortest(resize, interpolation=Interpolation(transforms.interpolation.value)),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )
    name = f"torchvision:{architecture}.{weights.name}"
    try:
        state = weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(_not_fetched(name, weights.url, contract, error)) from error
    return TrainedWeights(
        name=name,
        architecture=architecture,
        checkpoint=checkpoint_from_weights(name, state),
        contract=contract,
        classes=tuple(weights.meta["categories"]),
    )


def _from_timm(architecture: str, tag: str) -> TrainedWeights:
    timm = _library(Publisher.TIMM, architecture, "timm")
    if tag:
        listed = timm.list_models(f"{architecture}.*", pretrained=True)
        _check_tag(f"timm:{architecture}", tag, [each.partition(".")[2] for each in listed])
    # Without a tag timm takes the architecture's default weights.
    full = f"{architecture}.{tag}" if tag else architecture
    described = importlib.import_module("timm.models").get_pretrained_cfg(full)
    resolve = importlib.import_module("timm.data").resolve_data_config
    name = f"timm:{architecture}.{described.tag}"
    config = resolve(pretrained_cfg=described.to_dict())
    if config["crop_mode"] != "center":
        raise ConfigError(
            f"{name} crops by '{config['crop_mode']}'; edgeres takes the centre alone. Bring the "
            "file with --weights and pass a --preset that fits it."
        )
    size = config["input_size"][-1]
    # Source: timm.data.transforms_factory.transforms_imagenet_eval.
    resized = math.floor(size / config["crop_pct"])
    contract = Contract(
        height=size,
        width=size,
        resize=shortest(resized, interpolation=Interpolation(config["interpolation"])),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
    try:
        state = timm.create_model(full, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        raise CheckpointError(_not_fetched(name, described.hf_hub_id, contract, error)) from error
    return TrainedWeights(
        name=name,
        architecture=architecture,
        checkpoint=checkpoint_from_weights(name, state),
        contract=contract,
    )


def _library(publisher: Publisher, architecture: str, module: str) -> ModuleType:
    bring = f"or bring a file: edgeres export {architecture} --weights FILE --preset imagenet."
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != publisher.value:
            raise
        raise DependencyError(
            f"{publisher}:{architecture} is fetched by {publisher}, which is not installed. "
            f"pip install {publisher}, {bring}"
        ) from error
    except (ImportError, RuntimeError) as error:
        # torchvision's operators are compiled against one build of torch alone.
        raise DependencyError(
            f"{publisher} is installed and cannot be loaded ({error}). Install the build that "
            f"belongs to this torch, {bring}"
        ) from error


def _check_tag(name: str, tag: str, known: list[str]) -> None:
    if tag not in known:
        raise ConfigError(
            f"{name} has no weights '{tag}'.{nearest(tag, known)} Available: {', '.join(known)}."
        )


def _not_fetched(name: str, origin: str, contract: Contract, error: Exception) -> str:
    """Returns what to do without the library: export's options that state this contract."""
    architecture = name.partition(":")[2].partition(".")[0]
    mean, std = (",".join(map(str, values)) for values in (contract.mean, contract.std))
    return (
        f"The weights {name} could not be fetched ({error}). Try again with a network, or fetch "
        f"the file ({origin}) where there is one and bring it: edgeres export {architecture} "
        f"--weights FILE --preset imagenet --input-size {contract.height} "
        f"--resize {contract.resize.lengths} --interpolation {contract.resize.interpolation} --mean {mean} --std {std}."
    )

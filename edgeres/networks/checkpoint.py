"""Trained weights from a file into a network, or a sentence on why they do not fit.

Names are brought to torchvision's form on both sides (file and network), so that a wrapper, a
framework's prefix or a classifier called `linear` is no obstacle.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from edgeres.errors import CheckpointError, ConfigError
from edgeres.networks.naming import (
    COUNTERS,
    CanonicalNames,
    Shape,
    canonical_names,
    match_by_order,
)
from edgeres.networks.registry import ARCHITECTURES
from edgeres.networks.resnet import ResNet, build_model
from edgeres.networks.specification import BlockKind, ModelSpec, Shortcut, Stem
from edgeres.networks.weights_file import read_weights
from edgeres.plurals import counted, percent, plural

_LOG = logging.getLogger("edgeres.networks")

_LISTED = 3
"""Names that a message lists before `...`."""

_NEAR = 0.5
"""Fraction of tensors that must fit before an architecture is called the nearest."""

_NO_NAMES = CanonicalNames(by_key={}, prefix="", classifier="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Weights of a trained network, checked to be finite."""

    path: Path
    sha256: str
    """Of the file, or of the safetensors form of weights that a library fetched."""
    tensors: Mapping[str, Tensor] = field(repr=False)
    """float32, by torchvision's key name, in the order of the file."""
    names: CanonicalNames = field(default=_NO_NAMES, repr=False)
    """The file's own names, and what was taken off them."""
    weights_key: str = ""
    """Of the set that was taken; empty for bare weights."""
    other_sets: tuple[str, ...] = ()
    """Keys of further sets of weights in the file."""


def load_checkpoint(path: Path, *, weights_key: str | None = None) -> Checkpoint:
    """Reads a `.safetensors` file, or any other as one that torch.save wrote.

    Args:
        path: a state dict, bare or under a key, alone or beside others.
        weights_key: the key of the set to take; None: the averaged one where there is one.

    Raises:
        CheckpointError: no such file, no checkpoint, truncated, a pickle that would run code,
            sets of weights of which none is known to be meant, or weights that no inference can
            use.
        ConfigError: the file has no set of weights at that key.
    """
    stored = read_weights(path, weights_key)
    checkpoint = _checked(path, stored.sha256, stored.tensors)
    return replace(checkpoint, weights_key=stored.key, other_sets=stored.others)


def checkpoint_from_weights(name: str, weights: Mapping[str, Tensor]) -> Checkpoint:
    """Returns weights that a library fetched, checked as those of a file are.

    Args:
        name: stands in messages where a file's path would.
        weights: by key, as the library has them. The hash is that of their safetensors form.

    Raises:
        CheckpointError: no inference can use them.
    """
    # safetensors refuses a tensor that is not contiguous.
    stored = safetensors.torch.save({key: value.contiguous() for key, value in weights.items()})
    return _checked(Path(name), sha256(stored).hexdigest(), weights)


def spec_from_checkpoint(
    spec: ModelSpec,
    checkpoint: Checkpoint,
    *,
    num_classes: int | None = None,
    shortcut: Shortcut | None = None,
) -> ModelSpec:
    """Returns `spec` with the classes, image channels, convolution biases and shortcuts of the file.

    Args:
        spec: the requested architecture.
        checkpoint: the weights that will fill it.
        num_classes: requested classes, compared with the file's; None: as the file has it.
        shortcut: requested kind; None: a CIFAR net of basic blocks has option B where the file
            has projections and A where it has none, any other net that of `spec`.

    Raises:
        CheckpointError: the file has another number of classes than was requested.
        ConfigError: the architecture has no such choice of shortcut.
    """
    tensors = checkpoint.tensors
    weight = tensors.get("fc.weight")
    # The rows of a linear classifier; a convolution may stand under that name too.
    stored = weight.shape[0] if weight is not None and weight.ndim == 2 else None
    if num_classes is not None and stored is not None and stored != num_classes:
        raise CheckpointError(
            f"{checkpoint.path} classifies {counted(stored, 'class')}, not {num_classes}. Pass "
            f"--num-classes {stored}, or leave it out: it is read from the file."
        )
    # He et al. 2016a, section 4.1, compare A and B on basic blocks; bottlenecks project.
    has_choice = spec.block is BlockKind.BASIC and spec.shortcut is not Shortcut.NONE
    if shortcut is not None and shortcut is not spec.shortcut and not has_choice:
        raise ConfigError(
            f"--shortcut {shortcut} does not go with {spec.name}, whose shortcut is "
            f"{spec.shortcut}. The choice of A or B is for nets of basic blocks; leave the option "
            "out."
        )
    if shortcut is None:
        shortcut = spec.shortcut
        if has_choice and spec.stem is Stem.CIFAR:
            # By shape: other codebases have other names for a projection.
            projects = any(tensor.shape[2:] == (1, 1) for tensor in tensors.values())
            shortcut = Shortcut.B if projects else Shortcut.A
    # By shape here too: a network of gray images differs in its first convolution alone.
    gray_stem = (spec.base_width, 1, spec.stem_kernel, spec.stem_kernel)
    is_gray = any(tuple(tensor.shape) == gray_stem for tensor in tensors.values())
    return replace(
        spec,
        image_channels=1 if is_gray else spec.image_channels,
        num_classes=stored or num_classes or spec.num_classes,
        conv_bias=any(
            tensor.ndim == 4 and key.removesuffix("weight") + "bias" in tensors
            for key, tensor in tensors.items()
            if not key.startswith("fc.")
        ),
        shortcut=shortcut,
    )


def model_from_checkpoint(spec: ModelSpec, checkpoint: Checkpoint) -> nn.Module:
    """Returns the network of `spec` with the checkpoint's weights, in evaluation mode.

    Raises:
        CheckpointError: the weights belong to another architecture.
    """
    return load_weights(build_model(spec), checkpoint, name=spec.name)


def load_weights(model: nn.Module, checkpoint: Checkpoint, *, name: str) -> nn.Module:
    """Fills `model` in place and returns it in evaluation mode.

    Args:
        model: any network; its keys are matched after both sides are brought to one form.
        checkpoint: the weights.
        name: what to call the network in an error.

    Raises:
        CheckpointError: keys are missing, unexpected or of another shape; with the registered
            architecture whose shapes they are.
    """
    state = _weights_of(model)
    names = canonical_names({key: tuple(value.shape) for key, value in state.items()})
    expected = {names.by_key[key]: tuple(value.shape) for key, value in state.items()}
    tensors, by_order = checkpoint.tensors, ""
    missing = [key for key in expected if key not in tensors]
    unexpected = [key for key in tensors if key not in expected]
    # The order of registration is known of edgeres' own networks, and no other's are matched.
    if isinstance(model, ResNet) and missing and len(missing) == len(unexpected):
        shapes = {key: tuple(value.shape) for key, value in tensors.items()}
        matched, obstacle = match_by_order(shapes, expected)
        if matched:
            first = missing[0]
            _LOG.warning(
                "%s names its layers in another way: its %s were all matched to %s by order "
                "and shape (%s is %s).",
                checkpoint.path,
                counted(len(matched), "tensor"),
                name,
                matched[first],
                first,
            )
            tensors = {ours: tensors[theirs] for ours, theirs in matched.items()}
            missing = unexpected = []
        else:
            by_order = f" Nor do its layers fit by order and shape: {obstacle}."
    parts = (
        _listed(missing, "missing"),
        _listed(unexpected, "unexpected"),
        _listed(
            [
                f"{key} is {tuple(tensors[key].shape)}, expected {shape}"
                for key, shape in expected.items()
                if key in tensors and tuple(tensors[key].shape) != shape
            ],
            "of another shape",
        ),
    )
    if any(parts):
        raise CheckpointError(
            f"{checkpoint.path} does not fit {name}: {', '.join(filter(None, parts))}.{by_order} "
            f"{_remedy(checkpoint, expected)}"
        )
    # A network of the user's own may have the same prefix, and then nothing was changed.
    if checkpoint.names.prefix not in ("", names.prefix):
        _LOG.warning(
            "%s: the prefix '%s' was taken off the names of its weights.",
            checkpoint.path,
            checkpoint.names.prefix,
        )
    if checkpoint.names.classifier not in ("", names.classifier):
        _LOG.warning(
            "%s: its one linear layer, %s, is read as the classifier fc.",
            checkpoint.path,
            checkpoint.names.classifier,
        )
    # Training's counters are in the network's state and not in the checkpoint's.
    filled = {key: tensors[names.by_key[key]] for key in state}
    model.load_state_dict({**model.state_dict(), **filled})
    return model.eval()


def _checked(path: Path, file_hash: str, weights: Mapping[str, Tensor]) -> Checkpoint:
    """Returns the weights in float32 by canonical name, without training's counters.

    Raises:
        CheckpointError: no inference can use them.
    """
    kept = {key: tensor for key, tensor in weights.items() if not key.endswith(COUNTERS)}
    names = canonical_names({key: tuple(tensor.shape) for key, tensor in kept.items()})
    tensors: dict[str, Tensor] = {}
    for key, tensor in kept.items():
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"{path} stores {key} as {tensor.dtype}; expected floating point. "
                "Pass the checkpoint from before it was quantized."
            )
        name = names.by_key[key]
        # `fc.weight` beside `module.fc.weight`: two networks in one file, and no telling which.
        if name in tensors:
            raise CheckpointError(
                f"{path} has the weight {name} twice, once as {key}. Save one network."
            )
        tensors[name] = tensor.detach().to(torch.float32)
    if broken := [k for k, v in tensors.items() if not torch.isfinite(v).all()]:
        raise CheckpointError(
            f"{path} has NaN or infinite values in {_listed(broken, plural('tensor', len(broken)))}. Training diverged "
            "or FP16 storage overflowed: take an earlier epoch or a file in FP32."
        )
    # The epsilon hides a zero: the network runs, and its channel is 1 / sqrt(eps) too large.
    variances = [k for k in tensors if k.endswith("running_var")]
    if broken := [k for k in variances if not _usable_variance(k, tensors)]:
        raise CheckpointError(
            f"{path} has a zero or negative variance in {_listed(broken, plural('tensor', len(broken)))}. "
            "Expected running_var > 0, or 0 in channels whose weights are 0: the statistics are "
            "damaged, or underflowed in FP16 storage."
        )
    return Checkpoint(path=path, sha256=file_hash, tensors=tensors, names=names)


def _usable_variance(key: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a running_var is positive but for channels that were pruned to zero."""
    variance, module = tensors[key], key.removesuffix(".running_var")
    pruned = torch.zeros_like(variance, dtype=torch.bool)
    # A gamma of 0, or a kernel of 0 in the convolution before: the channel is constant.
    before = re.sub(r"(?:bn|norm)(?=[^.]*$)", "conv", module)
    for name in (module, re.sub(r"\.1$", ".0", before)):
        weight = tensors.get(f"{name}.weight")
        if weight is not None and weight.shape[:1] == variance.shape[:1]:
            pruned |= weight.flatten(1).eq(0).all(1) if weight.ndim > 1 else weight.eq(0)
    return bool((variance.gt(0) | (variance.eq(0) & pruned)).all())


def _listed(names: Sequence[str], what: str) -> str:
    """Returns count and first names, such as `5 missing (fc.weight, fc.bias, ...)`, or nothing."""
    shown = [*names[:_LISTED], *(["..."] if len(names) > _LISTED else [])]
    return f"{len(names)} {what} ({', '.join(shown)})" if names else ""


def _weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {k: v for k, v in model.state_dict().items() if not k.endswith(COUNTERS)}


def _remedy(checkpoint: Checkpoint, expected: Mapping[str, Shape]) -> str:
    """Returns what to do with weights that do not fit: another set, or another architecture."""
    if checkpoint.other_sets:
        others = ", ".join(checkpoint.other_sets)
        other_sets = f" The file also holds {others}: --weights-key takes another set."
    else:
        other_sets = ""
    # Another network or a loss beside it in one state dict, such as `online.` and `target.`.
    body = [key for key in expected if not key.startswith("fc.")]
    branches = [
        first
        for first in dict.fromkeys(key.partition(".")[0] for key in checkpoint.tensors)
        if body and all(f"{first}.{key}" in checkpoint.tensors for key in body)
    ]
    if branches and not checkpoint.names.prefix:
        key = f"{checkpoint.weights_key}.{branches[0]}".removeprefix(".")
        return f"Below {', '.join(branches)} its names fit: pass --weights-key {key}.{other_sets}"
    return _nearest_architecture(checkpoint) + other_sets


def _nearest_architecture(checkpoint: Checkpoint) -> str:
    """Returns a sentence on the registered architectures that the shapes belong to."""
    stored = {key: tuple(tensor.shape) for key, tensor in checkpoint.tensors.items()}.items()
    sizes = Counter(shape for _, shape in stored)
    overlaps, equal = {}, []
    for name, spec in ARCHITECTURES.items():
        expected = _spec_shapes(spec_from_checkpoint(spec, checkpoint)).items()
        # Of the tensors of both sides together, so that neither a deeper net nor a shallower one
        # is near because it has the other's as a part.
        overlaps[name] = len(expected & stored) / len(expected | stored)
        if Counter(shape for _, shape in expected) == sizes:
            equal.append(name)
    best = max(overlaps.values())
    names = " or ".join(name for name, overlap in overlaps.items() if overlap == best)
    if best == 1:
        return f"These are the shapes of {names}: export that architecture instead."
    if best >= _NEAR:
        return f"The nearest architecture is {names}, with {percent(best, 0)} of the tensors."
    if equal:
        return (
            f"Under other names these are the shapes of {' or '.join(equal)}: export that "
            "architecture instead, or save the weights under torchvision's names."
        )
    return (
        "No architecture of edgeres comes near; pass package.module:factory for a net of your own."
    )


@cache
def _spec_shapes(spec: ModelSpec) -> dict[str, Shape]:
    # The meta device has shapes and no storage. A ResNet's names are torchvision's already.
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in _weights_of(ResNet(spec)).items()}

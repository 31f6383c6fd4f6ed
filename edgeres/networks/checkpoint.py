"""Trained weights from a file into a network, or a sentence on why they do not fit.

Files of torch.save are read with `weights_only=True` alone: a pickle can run code, weights
cannot. Names are brought to torchvision's form on both sides (file and network), so that a
wrapper, a `module.` prefix or a classifier called `linear` is no obstacle.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from edgeres.errors import CheckpointError, ConfigError
from edgeres.files import sha256_of
from edgeres.networks.registry import ARCHITECTURES
from edgeres.networks.resnet import ResNet, build_model
from edgeres.networks.specification import BlockKind, ModelSpec, Shortcut, Stem

_WRAPPERS = (
    "state_dict",
    "model",
    "model_state_dict",
    "model_ema",
    "state_dict_ema",
    "net",
)
"""Keys under which training scripts put the weights, in the order they are looked for. Source:
the ImageNet example of PyTorch, torchvision's references, timm, kuangliu/pytorch-cifar."""

_WRAPPER_DEPTH = 3
"""Wrappers in wrappers that are opened, such as a training state that holds an EMA's."""

_COUNTERS = ("num_batches_tracked", "n_averaged")
"""Endings of integers that training keeps beside the weights and inference does not read."""

_SAVED_BY_TORCH = (b"PK\x03\x04", b"\x80\x02")
"""First bytes of torch.save's zip archive and of its older pickle stream."""

_PICKLE = b"\x80"
"""First byte of a pickle of protocol 2 or later."""

_UNREADABLE = (
    pickle.UnpicklingError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""What torch.load's restricted reader raises on bytes that it does not understand."""

_LISTED = 3
"""Names that a message lists before it says `...`."""

_NEAR = 0.5
"""Fraction of tensors that must fit before an architecture is called the nearest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Weights of a trained network, checked to be finite."""

    path: Path
    sha256: str
    """Of the file, or of the safetensors form of weights that a library fetched."""
    tensors: Mapping[str, Tensor] = field(repr=False)
    """float32, by torchvision's key name."""


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a `.safetensors` file, or any other as one that torch.save wrote.

    Args:
        path: a state dict, bare or under one of the usual wrapper keys.

    Raises:
        CheckpointError: no such file, no checkpoint, truncated, a pickle that would run code,
            or weights that no inference can use.
    """
    if not path.is_file():
        raise CheckpointError(f"No checkpoint at {path}. Check the path given with --weights.")
    stored = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for _ in range(_WRAPPER_DEPTH):
        if isinstance(stored, Mapping):
            wrapped = (stored[k] for k in _WRAPPERS if isinstance(stored.get(k), Mapping))
            stored = next(wrapped, stored)
    entries = stored if isinstance(stored, Mapping) else {}
    weights = {str(key): value for key, value in entries.items() if isinstance(value, Tensor)}
    if not weights:
        content = ", ".join(map(str, entries)) or type(stored).__name__
        raise CheckpointError(
            f"{path} holds no weights, only: {content}. Expected tensors by name, bare or under "
            f"one of: {', '.join(_WRAPPERS)}. Save model.state_dict() alone."
        )
    return Checkpoint(path=path, sha256=sha256_of(path), tensors=_checked(path, weights))


def checkpoint_from_weights(name: str, weights: Mapping[str, Tensor]) -> Checkpoint:
    """Returns weights that a library fetched, checked as those of a file are.

    Args:
        name: stands in messages where a file's path would.
        weights: by key, as the library has them. The hash is that of their safetensors form.

    Raises:
        CheckpointError: no inference can use them.
    """
    tensors = _checked(Path(name), weights)
    # safetensors refuses a tensor that is not contiguous.
    stored = safetensors.torch.save({key: value.contiguous() for key, value in weights.items()})
    return Checkpoint(path=Path(name), sha256=sha256(stored).hexdigest(), tensors=tensors)


def spec_from_checkpoint(
    spec: ModelSpec,
    checkpoint: Checkpoint,
    *,
    num_classes: int | None = None,
    shortcut: Shortcut | None = None,
) -> ModelSpec:
    """Returns `spec` with the classes, convolution biases and shortcuts of the file.

    Args:
        spec: the requested architecture.
        checkpoint: the weights that will fill it.
        num_classes: requested classes, compared with the file's; None: as the file has it.
        shortcut: requested kind; None: a CIFAR net of basic blocks has option B where the file
            has projections and A where it has none, any other net what `spec` says.

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
            f"{checkpoint.path} classifies {stored} classes, not {num_classes}. "
            f"Pass --num-classes {stored}, or leave it out: it is read from the file."
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
            projects = any(".downsample." in key for key in tensors)
            shortcut = Shortcut.B if projects else Shortcut.A
    return replace(
        spec,
        num_classes=stored or num_classes or spec.num_classes,
        conv_bias=any(re.search(r"(conv\d|downsample\.0)\.bias$", key) for key in tensors),
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
    expected, tensors = _shapes(model), checkpoint.tensors
    parts = (
        _listed([key for key in expected if key not in tensors], "missing"),
        _listed([key for key in tensors if key not in expected], "unexpected"),
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
            f"{checkpoint.path} does not fit {name}: {', '.join(filter(None, parts))}. "
            f"{_nearest_architecture(checkpoint)}"
        )
    state = model.state_dict()
    # Training's counters are in the network's state and not in the checkpoint's.
    model.load_state_dict({key: tensors.get(_canonical(key), state[key]) for key in state})
    return model.eval()


def _read_torch(path: Path) -> Any:
    """Returns what torch.save stored, as long as it is data and no code."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}. Check it.") from error
    try:
        with warnings.catch_warnings():
            # What torch warns of here (TorchScript, an odd protocol) is refused below.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = str(error)
        if code := re.search(r"GLOBAL (\S+)", reason):
            refusal = (
                f"was refused: reading it would run code ({code[1]}). Nothing was run. Expected "
                "plain weights: if you trust its origin, load it there and save "
                "model.state_dict() alone."
            )
        elif "TorchScript" in reason:
            refusal = (
                "is a TorchScript archive, a program. Save the state_dict() of the model instead."
            )
        elif head.startswith(_SAVED_BY_TORCH):
            refusal = "is truncated, damaged or not from torch.save. Copy or download it again."
        elif head.startswith(_PICKLE):
            refusal = (
                "was refused: it is a pickle that torch.save did not write, and a pickle can run "
                "code. Nothing was run. Save the weights with torch.save or as .safetensors."
            )
        else:
            refusal = (
                "is no checkpoint. Expected a file of torch.save (.pth, .pt, .th) or a "
                ".safetensors file: check the path given with --weights."
            )
        raise CheckpointError(f"{path} {refusal}") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}. Check it.") from error
    except safetensors.SafetensorError as error:
        raise CheckpointError(
            f"{path} is truncated or no safetensors file ({error}). Copy or download it again."
        ) from error
    return tensors


def _canonical(key: str) -> str:
    """Returns torchvision's name of a weight.

    `module.` comes from DataParallel, `_orig_mod.` from torch.compile, `linear` and `shortcut`
    from the CIFAR nets of akamaster and kuangliu.
    """
    bare = re.sub(r"^(?:module\.|_orig_mod\.)+", "", key)
    return re.sub(r"^linear\.", "fc.", bare).replace(".shortcut.", ".downsample.")


def _checked(path: Path, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights in float32 by canonical name, without training's counters.

    Raises:
        CheckpointError: no inference can use them.
    """
    tensors: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        if key.endswith(_COUNTERS):
            continue
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"{path} stores {key} as {tensor.dtype}; expected floating point. "
                "Pass the checkpoint from before it was quantized."
            )
        name = _canonical(key)
        # `fc.weight` beside `module.fc.weight`: two networks in one file, and no telling which.
        if name in tensors:
            raise CheckpointError(
                f"{path} has the weight {name} twice, once as {key}. Save one network."
            )
        tensors[name] = tensor.detach().to(torch.float32)
    if broken := [k for k, v in tensors.items() if not torch.isfinite(v).all()]:
        raise CheckpointError(
            f"{path} has NaN or infinite values in {_listed(broken, 'tensors')}. Training diverged "
            "or FP16 storage overflowed: take an earlier epoch or a file in FP32."
        )
    # The epsilon hides a zero: the network runs, and its channel is 1 / sqrt(eps) too large.
    variances = {k: v for k, v in tensors.items() if k.endswith("running_var")}
    if broken := [k for k, v in variances.items() if (v <= 0).any()]:
        raise CheckpointError(
            f"{path} has a zero or negative variance in {_listed(broken, 'tensors')}. "
            "Expected running_var > 0: the statistics are damaged, or underflowed in FP16 storage."
        )
    return tensors


def _listed(names: Sequence[str], what: str) -> str:
    """Returns count and first names, such as `5 missing (fc.weight, fc.bias, ...)`, or nothing."""
    shown = [*names[:_LISTED], *(["..."] if len(names) > _LISTED else [])]
    return f"{len(names)} {what} ({', '.join(shown)})" if names else ""


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every weight by canonical name."""
    state = model.state_dict()
    return {_canonical(k): tuple(v.shape) for k, v in state.items() if not k.endswith(_COUNTERS)}


def _nearest_architecture(checkpoint: Checkpoint) -> str:
    """Returns a sentence on the registered architectures that the shapes belong to."""
    stored = {key: tuple(tensor.shape) for key, tensor in checkpoint.tensors.items()}.items()
    overlaps = {}
    for name, spec in ARCHITECTURES.items():
        expected = _spec_shapes(spec_from_checkpoint(spec, checkpoint)).items()
        # Of the tensors of both sides together, so that neither a deeper net nor a shallower one
        # is near because it has the other's as a part.
        overlaps[name] = len(expected & stored) / len(expected | stored)
    best = max(overlaps.values())
    names = " or ".join(name for name, overlap in overlaps.items() if overlap == best)
    if best == 1:
        return f"These are the shapes of {names}: export that architecture instead."
    if best >= _NEAR:
        return f"The nearest architecture is {names}, with {best:.0%} of the tensors."
    return (
        "No architecture of edgeres comes near; pass package.module:factory for a net of your own."
    )


@cache
def _spec_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    # The meta device has shapes and no storage.
    with torch.device("meta"):
        return _shapes(ResNet(spec))

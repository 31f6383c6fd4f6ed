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
from collections.abc import Iterable, Mapping
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
_NEAR = 0.5
"""Share of tensors that must fit before an architecture is called the nearest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Weights of a trained network, checked to be finite."""

    path: Path
    sha256: str
    """Of the file, or of the safetensors form of weights that a library fetched."""
    tensors: Mapping[str, Tensor] = field(repr=False)
    """float32, by torchvision's key name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Difference:
    """Where a checkpoint departs from the keys and shapes of a network."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]
    """Keys with both shapes, ready to print."""

    def __str__(self) -> str:
        parts = (
            _listed(self.missing, "missing"),
            _listed(self.unexpected, "unexpected"),
            _listed(self.reshaped, "of another shape"),
        )
        return ", ".join(part for part in parts if part)


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
    raw = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    tensors = _canonical_tensors(path, _state_dict(path, raw))
    _check_values(path, tensors)
    return Checkpoint(path=path, sha256=sha256_of(path), tensors=tensors)


def checkpoint_from_weights(name: str, weights: Mapping[str, Tensor]) -> Checkpoint:
    """Returns weights that a library fetched, checked as those of a file are.

    Args:
        name: stands in messages where a file's path would.
        weights: by key, as the library has them. The hash is that of their safetensors form.

    Raises:
        CheckpointError: no inference can use them.
    """
    tensors = _canonical_tensors(Path(name), weights)
    _check_values(Path(name), tensors)
    stored = safetensors.torch.save({key: value.contiguous() for key, value in weights.items()})
    return Checkpoint(path=Path(name), sha256=sha256(stored).hexdigest(), tensors=tensors)


def spec_from_checkpoint(
    spec: ModelSpec,
    checkpoint: Checkpoint,
    *,
    num_classes: int | None = None,
    shortcut: Shortcut | None = None,
) -> ModelSpec:
    """Returns `spec` with what the file says of classes, convolution biases and shortcuts.

    Args:
        spec: the architecture as asked for.
        checkpoint: the weights that will fill it.
        num_classes: what the user said, to be held against the file; None: as the file has it.
        shortcut: what the user said; None: a CIFAR net of basic blocks has option B where the
            file has projections and A where it has none, any other net what `spec` says.

    Raises:
        CheckpointError: the file has another number of classes than the user said.
        ConfigError: the architecture has no such choice of shortcut.
    """
    found = _classes(checkpoint)
    if num_classes is not None and found is not None and found != num_classes:
        raise CheckpointError(
            f"{checkpoint.path} classifies {found} classes, not {num_classes}. "
            f"Pass --num-classes {found}, or leave it out: it is read from the file."
        )
    return replace(
        spec,
        num_classes=found or num_classes or spec.num_classes,
        conv_bias=any(re.search(r"(conv\d|downsample\.0)\.bias$", k) for k in checkpoint.tensors),
        shortcut=_shortcut(spec, checkpoint, shortcut),
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
    expected = _shapes(model)
    difference = _difference(expected, checkpoint.tensors)
    if str(difference):
        raise CheckpointError(
            f"{checkpoint.path} does not fit {name}: {difference}. "
            f"{_nearest_architecture(checkpoint)}"
        )
    state = model.state_dict()
    weights = {key: checkpoint.tensors.get(_canonical(key), state[key]) for key in state}
    model.load_state_dict(weights)
    return model.eval()


def _read_torch(path: Path) -> Any:
    """Returns what torch.save stored, as long as it is data and no code."""
    head = _head(path)
    try:
        with warnings.catch_warnings():
            # What torch warns of here (TorchScript, an odd protocol) is refused below.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise CheckpointError(f"{path} {_refusal(head, str(error))}") from error


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}. Check it.") from error


def _refusal(head: bytes, reason: str) -> str:
    """Returns why torch.load refused a file with these first bytes, and what to do."""
    if code := re.search(r"GLOBAL (\S+)", reason):
        return (
            f"was refused: reading it would run code ({code[1]}). Nothing was run. Expected plain "
            "weights: if you trust its origin, load it there and save model.state_dict() alone."
        )
    if "TorchScript" in reason:
        return "is a TorchScript archive, a program. Save the state_dict() of the model instead."
    if head.startswith(_SAVED_BY_TORCH):
        return "is truncated, damaged or not from torch.save. Copy or download it again."
    if head.startswith(_PICKLE):
        return (
            "was refused: it is a pickle that torch.save did not write, and a pickle can run "
            "code. Nothing was run. Save the weights with torch.save or as .safetensors."
        )
    return (
        "is no checkpoint. Expected a file of torch.save (.pth, .pt, .th) or a .safetensors file: "
        "check the path given with --weights."
    )


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


def _state_dict(path: Path, raw: Any) -> dict[str, Tensor]:
    """Returns the tensors by key, taken out of their wrappers."""
    inner = raw
    for _ in range(_WRAPPER_DEPTH):
        inner = _unwrapped(inner)
    entries = inner if isinstance(inner, Mapping) else {}
    tensors = {str(key): value for key, value in entries.items() if isinstance(value, Tensor)}
    if not tensors:
        held = ", ".join(map(str, entries)) or type(inner).__name__
        raise CheckpointError(
            f"{path} holds no weights, only: {held}. Expected tensors by name, bare or under "
            f"one of: {', '.join(_WRAPPERS)}. Save model.state_dict() alone."
        )
    return tensors


def _unwrapped(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return next((value[k] for k in _WRAPPERS if isinstance(value.get(k), Mapping)), value)


def _canonical(key: str) -> str:
    """Returns torchvision's name of a weight.

    `module.` comes from DataParallel, `_orig_mod.` from torch.compile, `linear` and `shortcut`
    from the CIFAR nets of akamaster and kuangliu.
    """
    bare = re.sub(r"^(?:module\.|_orig_mod\.)+", "", key)
    return re.sub(r"^linear\.", "fc.", bare).replace(".shortcut.", ".downsample.")


def _canonical_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights in float32 by canonical name, without training's counters."""
    weights: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if key.endswith(_COUNTERS):
            continue
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"{path} stores {key} as {tensor.dtype}; expected floating point. "
                "Pass the checkpoint from before it was quantized."
            )
        if _canonical(key) in weights:
            raise CheckpointError(
                f"{path} has the weight {_canonical(key)} twice, once as {key}. Save one network."
            )
        weights[_canonical(key)] = tensor.detach().to(torch.float32)
    return weights


def _check_values(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError for weights that no inference can use."""
    if broken := [k for k, v in tensors.items() if not torch.isfinite(v).all()]:
        raise CheckpointError(
            f"{path} has NaN or infinite values in {_listed(broken, 'tensors')}. Training diverged "
            "or FP16 storage overflowed: take an earlier epoch or a file in FP32."
        )
    variances = {k: v for k, v in tensors.items() if k.endswith("running_var")}
    if broken := [k for k, v in variances.items() if (v <= 0).any()]:
        raise CheckpointError(
            f"{path} has a zero or negative variance in {_listed(broken, 'tensors')}. "
            "Expected running_var > 0: the statistics are damaged, or underflowed in FP16 storage."
        )


def _listed(names: Iterable[str], what: str) -> str:
    """Returns count and first names, such as `5 missing (fc.weight, fc.bias, ...)`, or nothing."""
    known = list(names)
    shown = [*known[:_LISTED], *(["..."] if len(known) > _LISTED else [])]
    return f"{len(known)} {what} ({', '.join(shown)})" if known else ""


def _classes(checkpoint: Checkpoint) -> int | None:
    """Returns the rows of the classifier, None where there is no linear one."""
    weight = checkpoint.tensors.get("fc.weight")
    return weight.shape[0] if weight is not None and weight.ndim == 2 else None


def _shortcut(spec: ModelSpec, checkpoint: Checkpoint, said: Shortcut | None) -> Shortcut:
    if said is None and not (_takes_a(spec) and spec.stem is Stem.CIFAR):
        return spec.shortcut
    if said is None:
        projected = any(".downsample." in key for key in checkpoint.tensors)
        return Shortcut.B if projected else Shortcut.A
    if said is not spec.shortcut and not _takes_a(spec):
        raise ConfigError(
            f"--shortcut {said} does not go with {spec.name}, whose shortcut is {spec.shortcut}. "
            "The choice of A or B is for nets of basic blocks; leave the option out."
        )
    return said


def _takes_a(spec: ModelSpec) -> bool:
    """Whether option A is a choice: basic blocks with a skip connection."""
    return spec.block is BlockKind.BASIC and spec.shortcut is not Shortcut.NONE


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every weight by canonical name."""
    state = model.state_dict()
    return {_canonical(k): tuple(v.shape) for k, v in state.items() if not k.endswith(_COUNTERS)}


def _difference(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Tensor]
) -> _Difference:
    return _Difference(
        missing=tuple(key for key in expected if key not in found),
        unexpected=tuple(key for key in found if key not in expected),
        reshaped=tuple(
            f"{key} is {tuple(found[key].shape)}, expected {shape}"
            for key, shape in expected.items()
            if key in found and tuple(found[key].shape) != shape
        ),
    )


def _nearest_architecture(checkpoint: Checkpoint) -> str:
    """Returns a sentence on the registered architectures that the shapes belong to."""
    shares = {name: _share(spec, checkpoint) for name, spec in ARCHITECTURES.items()}
    best = max(shares.values())
    names = " or ".join(name for name, share in shares.items() if share == best)
    if best == 1:
        return f"These are the shapes of {names}: export that architecture instead."
    if best >= _NEAR:
        return f"The nearest architecture is {names}, with {best:.0%} of the tensors."
    return (
        "No architecture of edgeres comes near; pass package.module:factory for a net of your own."
    )


def _share(spec: ModelSpec, checkpoint: Checkpoint) -> float:
    """Returns the share of tensors, of both sides together, that agree in name and shape."""
    shapes = _spec_shapes(spec_from_checkpoint(spec, checkpoint))
    found = {key: tuple(tensor.shape) for key, tensor in checkpoint.tensors.items()}
    return len(shapes.items() & found.items()) / len(shapes.items() | found.items())


@cache
def _spec_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return _shapes(ResNet(spec))

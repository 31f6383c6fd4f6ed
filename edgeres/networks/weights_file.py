"""What a checkpoint file stores, read as data alone, and the set of weights taken from it.

Files of torch.save are read with `weights_only=True` alone: a pickle can run code, weights
cannot. The values that training scripts keep beside their weights are replaced by plain ones.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from torch import Tensor

from edgeres.errors import CheckpointError, ConfigError
from edgeres.input_files import (
    CHECKPOINT,
    foreign_parser,
    is_file,
    open_input,
    reason_of,
    sha256_of_open,
)
from edgeres.names import nearest
from edgeres.networks.naming import COUNTERS
from edgeres.networks.safe_values import SAFE_VALUES

_LOG = logging.getLogger("edgeres.networks")

_AVERAGED = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema_model",
    "model_ema_state_dict",
    "ema",
    "params_ema",
    "swa_state_dict",
    "model_swa",
)
"""Keys of weights averaged over training, in the order they are taken. Source: timm's
`load_state_dict` (use_ema) for the first two; torchvision's references, BasicSR, ema-pytorch."""

_TRAINED = ("state_dict", "model", "model_state_dict", "net")
"""Keys under which training scripts put the weights of the last step, in the order they are
taken. Source: the ImageNet example of PyTorch, torchvision's references, kuangliu/pytorch-cifar."""

WRAPPERS = (*_TRAINED, *_AVERAGED)
"""Keys that are searched for weights before any other."""

_COPIES = (*_AVERAGED, "encoder_q", "encoder_k", "teacher", "student")
"""First parts of names under which one state dict holds a network beside a copy of it. Source:
Lightning modules with an averaged copy, MoCo, DINO."""

_DEPTH = 3
"""Mappings in mappings that are opened, such as a training state that holds an EMA's."""

_SAVED_BY_TORCH = (b"PK\x03\x04", b"\x80\x02")
"""First bytes of torch.save's zip archive and of its older pickle stream."""

_PICKLE = b"\x80"
"""First byte of a pickle of protocol 2 or later."""


_ENTRIES = 1_000_000
"""Entries of mappings in mappings that are looked at."""

_MOST_REPEATED = 4 << 30
"""Bytes that views may take which repeat what the file has: resnet152 has 0.24 GB in all."""
_COMPRESSED = 64 << 20
"""Bytes that an archive may unpack to beyond its size: TorchScript compresses its code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSet:
    """One network's weights, as the file names them."""

    key: str
    """Where they stand in the file, such as `state_dict_ema`; empty for the file itself."""
    tensors: Mapping[str, Tensor] = field(repr=False)
    others: tuple[str, ...]
    """Keys of the further sets in the file."""
    sha256: str
    """Of the file that they were read from."""


def read_weights(path: Path, key: str | None = None) -> WeightSet:
    """Returns the set of weights at `key`; without one, the averaged set where there is one.

    Raises:
        CheckpointError: no such file, no checkpoint, truncated, a pickle that would run code, or
            no weights; or several sets under names that do not show which to take.
        ConfigError: the file has no set of weights at `key`.
    """
    if not is_file(path, CHECKPOINT):
        raise CheckpointError(f"No checkpoint at {path}. Check the path given with --weights.")
    read = _read_safetensors if path.suffix == ".safetensors" else _read_torch
    with open_input(path, CHECKPOINT) as file:
        # Of one opening: a file that is replaced meanwhile is neither hashed nor read in part.
        sha256 = sha256_of_open(path, CHECKPOINT, file)
        stored = read(path, file)
    sets = dict(_weight_sets(path, stored, "", iter(range(_ENTRIES))))
    named = tuple(name for name in sets if name)
    if key is not None and key not in sets:
        # A branch of names, such as `encoder_q` in a state dict that holds more than one network.
        branches = (_branches(name, tensors) for name, tensors in sets.items())
        sets |= {name: part for each in branches for name, part in each.items()}
    if not sets:
        entries = stored if isinstance(stored, Mapping) else {}
        # The text of a tuple of tuples may be longer than any memory.
        keys = (key if isinstance(key, str) else type(key).__name__ for key in entries)
        content = ", ".join(keys) or type(stored).__name__
        raise CheckpointError(
            f"{path} holds no weights, only: {content}. Expected tensors by name, bare or under "
            f"one of: {', '.join(WRAPPERS)}. Save model.state_dict() alone."
        )
    if key is not None and (key not in sets or not key):
        available = f"Available: {', '.join(named)}." if named else "Leave --weights-key out."
        bare = " Its weights stand under no key." if "" in sets else ""
        raise ConfigError(
            f"{path} has no set of weights '{key}'.{bare}{nearest(key, named)} {available}"
        )
    chosen = key
    if chosen is None:
        by_rank = sorted(sets, key=_rank)
        chosen = by_rank[0]
        equal = [name for name in by_rank if _rank(name) == _rank(chosen)]
        if len(equal) > 1:
            raise CheckpointError(
                f"{path} holds {len(equal)} sets of weights, {', '.join(equal)}, and their "
                "names do not show which network is meant. Choose one with --weights-key."
            )
        _log_choice(path, stored, chosen, by_rank[1:])
    others = tuple(name for name in named if name != chosen)
    _check_stored(path, sets[chosen])
    return WeightSet(key=chosen, tensors=sets[chosen], others=others, sha256=sha256)


def _check_stored(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Checks that tensors are dense, and take little more memory than the file has for them.

    Raises:
        CheckpointError: they do not, such as a view of strides 0 that claims terabytes.
    """
    unpacked = 0
    for name, tensor in tensors.items():
        plain = tensor.layout is torch.strided and not tensor.is_quantized
        if not plain or tensor.device.type != "cpu":
            raise CheckpointError(
                f"{path} stores {name} as {tensor.layout} {tensor.dtype} on {tensor.device}; "
                "expected dense floating point. Save the state_dict() of the trained model, on "
                "the CPU and before it was quantized or made sparse."
            )
        claimed = tensor.numel() * tensor.element_size()
        # A view may repeat what is stored, as torch's expand() does; its values are copied later.
        unpacked += claimed if claimed > tensor.untyped_storage().nbytes() else 0
        if unpacked > _MOST_REPEATED:
            raise CheckpointError(
                f"{path} has {tensor.untyped_storage().nbytes()} bytes for {name}, which claims "
                f"{claimed} as {tuple(tensor.shape)}: it is a view that repeats its values. Save "
                "it with .contiguous()."
            )


def _log_choice(path: Path, stored: Any, chosen: str, others: list[str]) -> None:
    averaged = _rank(chosen)[0] < len(_AVERAGED)
    if others:
        reason = ", averaged over training" if averaged else ""
        names = ", ".join(name or "bare tensors" for name in (chosen, *others))
        _LOG.warning(
            "%s holds %d sets of weights (%s); %s is used%s. --weights-key NAME takes another.",
            path,
            len(others) + 1,
            names,
            chosen or "the bare one",
            reason,
        )
    # A list of averages without names, as torch_ema stores it, fits no network; one tensor or number
    # under such a name is the average of something else.
    content = stored if isinstance(stored, Mapping) else {}
    kept = {name: content.get(name) for name in _AVERAGED}
    unread = [n for n, value in kept.items() if isinstance(value, (Mapping, list, tuple)) and value]
    if unread and not averaged:
        _LOG.warning(
            "%s holds %s, but no tensors by name in it: %s is used, which is not averaged over "
            "training. Save the averaged model's state_dict() where its accuracy counts.",
            path,
            ", ".join(unread),
            chosen or "the bare set",
        )


def _weight_sets(
    path: Path, stored: Any, key: str, budget: Iterator[int]
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yields key and tensors of each mapping that holds a network's weights, outermost first."""
    if not isinstance(stored, Mapping):
        return
    # One mapping may stand under a thousand keys, and itself hold another under a thousand.
    if sum(1 for _ in zip(stored, budget, strict=False)) < len(stored):
        raise CheckpointError(
            f"{path} has more than {_ENTRIES} entries in its mappings; no network has as many. "
            "Save model.state_dict() alone."
        )
    tensors = {
        name: value
        for name, value in stored.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    # A network has matrices or kernels; vectors alone are class weights, scores or counters.
    if any(tensor.ndim > 1 for tensor in tensors.values()):
        branches = _branches(key, tensors)
        shapes = {
            name: {rest: tensor.shape for rest, tensor in part.items()}
            for name, part in branches.items()
        }
        copies = [name for name in shapes if list(shapes.values()).count(shapes[name]) > 1]
        if any(name.rpartition(".")[2] in _COPIES for name in copies):
            yield from ((name, branches[name]) for name in copies)
        else:
            yield key, tensors
    if key.count(".") + 1 == _DEPTH:
        return
    for name, value in stored.items():
        # An optimizer's moments have the shapes of the weights and are none.
        if isinstance(name, str) and "optim" not in name:
            yield from _weight_sets(path, value, f"{key}.{name}" if key else name, budget)


def _branches(key: str, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Returns the tensors by the first part of their names, as sets of their own."""
    branches: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        first, _, rest = name.removeprefix("module.").partition(".")
        if rest and not name.endswith(COUNTERS):
            branches.setdefault(f"{key}.{first}" if key else first, {})[rest] = tensor
    return branches


def _rank(key: str) -> tuple[int, int]:
    """Returns the place of a set in the order they are taken: averaged, trained, bare, unknown."""
    order = (*_AVERAGED, *_TRAINED, "")
    places = [order.index(part) for part in key.split(".") if part in order]
    # Of two under the same name, the outer one; unknown names have no order at all.
    return (min(places), key.count(".")) if places else (len(order), 0)


def _read_torch(path: Path, file: BinaryIO) -> Any:
    """Returns what torch.save stored, as long as it is data and no code."""
    head = file.read(4)
    _check_archive(path, file)
    # torch takes off its list at the end what was put on it, the caller's own included.
    listed = torch.serialization.get_safe_globals()
    safe: list[Any] = [value for value in SAFE_VALUES if value not in listed]
    with (
        foreign_parser(partial(_refused, path, head)),
        warnings.catch_warnings(),
        torch.serialization.safe_globals(safe),
    ):
        # What torch warns of here (TorchScript, an odd protocol) is refused below.
        warnings.simplefilter("ignore", UserWarning)
        return torch.load(file, map_location="cpu", weights_only=True)


def _check_archive(path: Path, file: BinaryIO) -> None:
    """Checks that a zip archive unpacks to about its size, and sets the file to its start.

    torch.save compresses nothing, so more is no checkpoint, and would fill the memory.

    Raises:
        CheckpointError: it claims more.
    """
    size = file.seek(0, os.SEEK_END)
    claimed = 0
    # torch itself says what is wrong with an archive that cannot be listed.
    with suppress(Exception), zipfile.ZipFile(file) as archive:
        claimed = sum(entry.file_size for entry in archive.infolist())
    file.seek(0)
    if claimed > size + _COMPRESSED:
        raise CheckpointError(
            f"{path} has {size} bytes and claims to unpack to {claimed}; torch.save compresses "
            "nothing. Save it again with torch.save."
        )


def _refused(path: Path, head: bytes, error: Exception) -> CheckpointError:
    """Returns why torch did not read a file, from its own words and the file's first bytes."""
    reason = str(error)
    # A class that may be named is not for that one whose state may be set.
    if code := re.search(r"(?:GLOBAL |but got <class ')([\w.]+)", reason):
        refusal = (
            f"was refused: reading it would run code ({code[1]}). Nothing was run. Expected "
            "plain weights: if you trust its origin, load it there and save "
            "model.state_dict() alone."
        )
    elif "TorchScript" in reason:
        refusal = "is a TorchScript archive, a program. Save the state_dict() of the model instead."
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
    return CheckpointError(f"{path} {refusal}")


def _read_safetensors(path: Path, file: BinaryIO) -> dict[str, Tensor]:
    def refused(error: Exception) -> CheckpointError:
        return CheckpointError(
            f"{path} is truncated or no safetensors file ({reason_of(error)}). Copy or download "
            "it again."
        )

    with foreign_parser(refused):
        tensors: dict[str, Tensor] = safetensors.torch.load(file.read())
    return tensors

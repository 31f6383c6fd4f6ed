"""The names of weights: brought to torchvision's form, or matched by order and shape.

Training frameworks put a prefix before every name and wrap the classifier; other codebases have
names of their own for the same layers. Knows names and shapes, nothing of files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgeres.plurals import counted

COUNTERS = ("num_batches_tracked", "n_averaged")
"""Endings of integers that training keeps beside the weights and inference does not read."""

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CanonicalNames:
    """torchvision's name of each weight, and what was taken off or renamed to get there."""

    by_key: Mapping[str, str]
    prefix: str
    """Common to all keys but the classifier's, with its point; empty without one."""
    classifier: str
    """Module that is the one linear layer; empty where it is `fc` or there is none."""


def canonical_names(shapes: Mapping[str, Shape]) -> CanonicalNames:
    """Returns torchvision's names of a network's weights.

    `module.` comes from DataParallel, `_orig_mod.` from torch.compile, `linear` and `shortcut`
    from the CIFAR nets of akamaster and kuangliu; any other prefix common to all from a training
    framework, such as `model.` or `backbone.`; `fc.1` from Sequential(Dropout, Linear).

    Args:
        shapes: of the weights by key, without counters.
    """
    # torch.compile may stand anywhere in a name, around a network or around one of its layers.
    bare = {key: re.sub(r"^(?:module\.)+", "", key.replace("_orig_mod.", "")) for key in shapes}
    linear = {
        bare[key].rpartition(".")[0]
        for key, shape in shapes.items()
        if len(shape) == 2 and key.endswith(".weight")
    }
    convolutional = any(len(shape) == 4 for shape in shapes.values())
    # The one matrix of a convolutional network is its classifier, whatever stands before it.
    head = linear.pop() if convolutional and len(linear) == 1 else None
    body = {name.rpartition(".")[0] for name in bare.values()} - {head}
    prefix = _branch(body)
    by_key = {}
    for key, name in bare.items():
        module, _, parameter = name.rpartition(".")
        if head is not None and module == head:
            by_key[key] = f"fc.{parameter}"
        else:
            short = re.sub(r"^linear\.", "fc.", name.removeprefix(prefix))
            by_key[key] = short.replace(".shortcut.", ".downsample.")
    usual = (None, "fc", "linear", f"{prefix}fc", f"{prefix}linear")
    return CanonicalNames(
        by_key=by_key, prefix=prefix, classifier="" if head in usual else str(head)
    )


def match_by_order(
    stored: Mapping[str, Shape], expected: Mapping[str, Shape]
) -> tuple[dict[str, str], str]:
    """Returns the stored name by expected one, or none and what stands in the way.

    Two codebases that register the same layers in the same order differ in names alone. Order
    and shapes leave room for a mistake, so the names must bear it out: every residual block of
    the network is one branch of the file's names, and numbered layers ascend.

    Args:
        stored: shapes in the order of the file.
        expected: shapes of a ResNet by torchvision's names, in the order of registration.
    """
    ours, theirs = _layers(expected), _layers(stored)
    for (name, layer), (other, other_layer) in zip(ours, theirs, strict=False):
        if layer != other_layer:
            return {}, f"{other} has {_described(other_layer)} where {name} has {_described(layer)}"
    if len(ours) != len(theirs):
        return {}, f"it has {counted(len(theirs), 'layer')}, the architecture {len(ours)}"
    pairs = {name: other for (name, _), (other, _) in zip(ours, theirs, strict=True)}
    for name, other in pairs.items():
        if other in pairs and other != name:
            return {}, f"{other} would become {name} by its place"
    if fault := _unordered(list(pairs.values())) or _split_block(pairs):
        return {}, fault
    return {
        f"{name}.{parameter}": f"{pairs[name]}.{parameter}"
        for name, layer in ours
        for parameter in layer
    }, ""


def _layers(shapes: Mapping[str, Shape]) -> list[tuple[str, dict[str, Shape]]]:
    """Returns modules in order, each with the shapes of its parameters by name."""
    layers: dict[str, dict[str, Shape]] = {}
    for key, shape in shapes.items():
        module, _, parameter = key.rpartition(".")
        layers.setdefault(module, {})[parameter] = shape
    return list(layers.items())


def _described(layer: Mapping[str, Shape]) -> str:
    return ", ".join(f"{parameter} {shape}" for parameter, shape in layer.items())


def _unordered(names: Sequence[str]) -> str:
    """Returns which numbered sibling stands before a smaller number, or nothing.

    conv2 registered before conv1 has the same shapes in another order.
    """
    last: dict[str, tuple[int, str]] = {}
    for name in names:
        parts = name.split(".")
        for depth, part in enumerate(parts):
            number = re.search(r"(\d+)$", part)
            if number is None:
                # conv_a before conv_b, as some codebases number them.
                number = re.search(r"[_-]([a-z])$", part)
            if number is None:
                continue
            value = int(number[1]) if number[1].isdigit() else ord(number[1])
            stem = ".".join((*parts[:depth], part[: number.start(1)]))
            before, where = last.get(stem, (value, name))
            if value < before:
                return f"{where} is stored before {name}"
            last[stem] = value, name
    return ""


def _split_block(pairs: Mapping[str, str]) -> str:
    """Returns the residual block that is not exactly one branch of the other names, or nothing.

    A pre-activation net has the layers of a plain ResNet in the same order, one place shifted:
    what is bn1 of a block there would be bn2 of the block before.
    """
    blocks: dict[str, list[str]] = {}
    for name, other in pairs.items():
        if located := re.match(r"layer\d+\.\d+", name):
            blocks.setdefault(located[0], []).append(other)
    branches = {block: _branch(members) for block, members in blocks.items()}
    for block, branch in branches.items():
        inside = [other for other in pairs.values() if f"{other}.".startswith(branch)]
        if not branch or inside != blocks[block]:
            members = blocks[block]
            return f"{members[0]} to {members[-1]} would be {block} and are no block by their names"
    return ""


def _branch(modules: Iterable[str]) -> str:
    """Returns the path that all modules stand under, with its point; empty without one."""
    parents = [module.split(".")[:-1] for module in modules]
    path = ""
    for parts in zip(*parents, strict=False):
        if len(set(parts)) > 1:
            break
        path += f"{parts[0]}."
    return path

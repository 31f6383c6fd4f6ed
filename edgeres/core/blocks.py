"""Where an operator stands in a network, read from its name: stage, residual block and layer.

torch's exporter names an operator by its type behind the modules around it, where a module of a
sequence repeats the sequence's name: `/layer2/layer2.0/downsample/downsample.0/Conv`. A state
dict has the same module as `layer2.0.downsample.0`. Knows names only: whether a block really
ends in an addition is decided by the graph (`edgeres.quantization.units`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_BLOCK = re.compile(r"(?:^|\.)(?P<block>(?P<stage>\w+(?:\.\d+)*)\.\d+)(?=\.|$)")
"""The first member of a sequence: `layer2.0`, and `features.4.0` where stages have no names."""

_INDEX = re.compile(r"\.\d+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlace:
    """Place of an operator in the network, read from its name."""

    module: str
    """Path of its module as a state dict has it; empty where the name is no path."""
    stage: str
    """Such as `layer2`; empty outside of blocks."""
    block: str
    """Such as `layer2.0`; empty outside of blocks."""
    layer: str
    """Own name of the module without its index, such as `conv1` or `downsample`; the operator's
    type where it belongs to the block itself, as an Add does."""


def locate(name: str, op_type: str) -> NodePlace:
    """Returns the place that a name stands for.

    Args:
        name: of the operator, as the exporter writes it or as a state dict names its module.
        op_type: of the operator, such as `Conv`.
    """
    parts = [part for part in name.split("/") if part]
    is_path = len(parts) > 1 or "." in name
    if parts[-1:] == [op_type]:
        parts.pop()
    modules: list[str] = []
    for part in parts:
        # A member repeats its sequence, `layer2/layer2.0`; only what it adds belongs to the path.
        if modules and part.startswith(f"{modules[-1]}."):
            modules.pop()
        modules.append(part)
    path = ".".join(modules)
    match = _BLOCK.search(path)
    own = path if match is None else path[match.end() :]
    return NodePlace(
        module=path if is_path else "",
        stage=match["stage"] if match else "",
        block=match["block"] if match else "",
        layer=_INDEX.sub("", own).rpartition(".")[2] or op_type,
    )

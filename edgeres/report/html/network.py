"""A network's layers gathered into its residual blocks, by the names that layers carry.

A layer's name is its module path: `/layer2/layer2.0/conv1/Conv` belongs to block `layer2.0` of
`layer2`. What stands in no block is stem before the first and head behind the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from edgeres.core.artifacts import LayerPrecision

_BLOCK = re.compile(r"(?:^|[/.])((?P<stage>[A-Za-z_]+\d+)\.\d+)(?=[/.]|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Layers that stand together."""

    name: str
    """Such as `layer2.0`; empty for what stands in no block."""
    layers: tuple[LayerPrecision, ...]
    sensitivity: float | None = None
    """What its INT8 costs the logits, in dB of their SQNR; None: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Blocks of one resolution, or what stands before or behind them."""

    name: str
    blocks: tuple[Block, ...]


def stages(
    layers: Iterable[LayerPrecision], sensitivity: Mapping[str, float] | None = None
) -> tuple[Stage, ...]:
    """Returns the layers by stage and block, in the order in which they are given.

    Args:
        layers: every operator of the network.
        sensitivity: dB by block or layer name; a block has its own, or its layers' largest.
    """
    gathered: dict[tuple[str, str], list[LayerPrecision]] = {}
    behind = ""
    for layer in layers:
        stage, block = _place(layer.name)
        # Layers outside stand apart by the stage that they follow: a head is no part of the stem.
        gathered.setdefault((stage, block or behind), []).append(layer)
        behind = stage or behind
    blocks = {place: _block(place, inside, sensitivity or {}) for place, inside in gathered.items()}
    grouped = [
        (name, [blocks[place] for place in places])
        for name, places in groupby(gathered, key=itemgetter(0))
    ]
    return tuple(
        Stage(name=name or _outside(number, len(grouped)), blocks=tuple(inside))
        for number, (name, inside) in enumerate(grouped)
    )


def short_name(layer: LayerPrecision) -> str:
    """Returns the layer's own name without its block's: `conv1`, `downsample`, `Add`."""
    parts = [part for part in layer.name.split("/") if part]
    own = parts[:-1] if parts[-1:] == [layer.op_type] else parts
    if not own or _BLOCK.fullmatch(own[-1]):
        return layer.op_type
    within = _BLOCK.sub("", own[-1]).lstrip(".")
    return re.sub(r"\.\d+$", "", within)


def _place(name: str) -> tuple[str, str]:
    """Returns the stage and the block that a layer belongs to; no stage for one outside."""
    found = _BLOCK.search(name)
    return ("", "") if found is None else (found["stage"], found[1])


def _outside(number: int, count: int) -> str:
    """Returns what layers in no block are called, by where they stand among `count` groups."""
    if count == 1:
        return "network"
    return "stem" if number == 0 else "head"


def _block(
    place: tuple[str, str], layers: Sequence[LayerPrecision], sensitivity: Mapping[str, float]
) -> Block:
    stage, name = place
    names = (name,) if name in sensitivity else tuple(layer.name for layer in layers)
    known = [sensitivity[one] for one in names if one in sensitivity]
    return Block(
        name=name if stage else "", layers=tuple(layers), sensitivity=max(known, default=None)
    )

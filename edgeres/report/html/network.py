"""A network's layers gathered into its residual blocks, by the names that layers carry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from edgeres.core.artifacts import LayerPrecision
from edgeres.core.blocks import locate
from edgeres.plurals import plural


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockLayers:
    """Layers that stand together."""

    name: str
    """Such as `layer2.0`; empty for what stands in no block."""
    layers: tuple[LayerPrecision, ...]
    sensitivity: float | None = None
    """What its INT8 costs the logits, in dB of their SQNR; None: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLayers:
    """Blocks of one resolution, or what stands before or behind them."""

    name: str
    blocks: tuple[BlockLayers, ...]

    @property
    def layers(self) -> tuple[LayerPrecision, ...]:
        """The layers of all blocks."""
        return tuple(layer for block in self.blocks for layer in block.layers)

    @property
    def is_uniform(self) -> bool:
        """Whether one precision and no measurement is all there is to see: a page folds it."""
        measured = any(block.sensitivity is not None for block in self.blocks)
        return not measured and len({layer.precision for layer in self.layers}) == 1

    @property
    def summary(self) -> str:
        """How many layers there are of each precision, in words."""
        counts = Counter(layer.precision.value for layer in self.layers).most_common()
        precisions = ", ".join(
            f"{number} {precision} {plural('layer', number)}" for precision, number in counts
        )
        named = sum(bool(block.name) for block in self.blocks)
        return f"{named} {plural('block', named)}: {precisions}" if named else precisions


def stages(
    layers: Iterable[LayerPrecision], sensitivity: Mapping[str, float] | None = None
) -> tuple[StageLayers, ...]:
    """Returns the layers by stage and block, in the order in which they are given.

    What stands in no block is the stem before the first one and the head behind the last.

    Args:
        layers: every operator of the network.
        sensitivity: dB by block or layer name; a block has its own, or its layers' largest.
    """
    costs = sensitivity or {}
    gathered: dict[tuple[str, str], list[LayerPrecision]] = {}
    previous_stage = ""
    for layer in layers:
        place = locate(layer.name, layer.op_type)
        # Layers outside stand apart by the stage that they follow: a head is no part of the stem.
        key = (place.stage, place.block or previous_stage)
        gathered.setdefault(key, []).append(layer)
        previous_stage = place.stage or previous_stage
    by_stage = [(name, tuple(keys)) for name, keys in groupby(gathered, key=itemgetter(0))]
    grouped = []
    for number, (stage, keys) in enumerate(by_stage):
        blocks = []
        for key in keys:
            names = (key[1],) if key[1] in costs else tuple(one.name for one in gathered[key])
            blocks.append(
                BlockLayers(
                    name=key[1] if stage else "",
                    layers=tuple(gathered[key]),
                    sensitivity=max((costs[n] for n in names if n in costs), default=None),
                )
            )
        outside = "network" if len(by_stage) == 1 else "head" if number else "stem"
        grouped.append(StageLayers(name=stage or outside, blocks=tuple(blocks)))
    return tuple(grouped)

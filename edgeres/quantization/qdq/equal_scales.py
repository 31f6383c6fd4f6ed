"""One scale for activations that could have any: a builder may compile a kernel for each.

A plan of TensorRT for RTX holds the source of every kernel between two convolutions, 146 kB each
and one for every different scale: 7 of a ResNet-50's 35 MB, compiled when the plan is first loaded.
A ReLU network's activations may be scaled, so the scale moves into the weights' scales on both
sides, and layers of one shape share a kernel.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from statistics import median

import numpy as np

from edgeres.core.methods import Method
from edgeres.core.table import CalibrationTable
from edgeres.quantization.fp16.exponents import (
    LINEAR,
    Groups,
    scaled,
    scaled_table,
    tied_groups,
)
from edgeres.quantization.fp16.typed import LARGEST_FP16, SMALLEST_FP16
from edgeres.quantization.graph import Graph
from edgeres.quantization.grids import Grid
from edgeres.quantization.placement import Placement
from edgeres.quantization.thresholds import threshold_of
from edgeres.quantization.weights import weight_scales

_LEAST_SCALE = 16 * SMALLEST_FP16
"""A smaller scale of weights would lose more than 4 of 127 levels to FP16's steps."""

_ROOM = 16
"""How far a value stays below FP16's largest: images may reach beyond what was observed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EqualScales:
    """A network of the same function, and the ranges of its activations."""

    graph: Graph
    table: CalibrationTable


def with_equal_scales(
    graph: Graph, table: CalibrationTable, method: Method | None, placement: Placement, grid: Grid
) -> EqualScales:
    """Returns a network whose activations have one scale, where FP16 loses nothing by it.

    An activation that is tied to another quantized one, in a residual stream, keeps its own.

    Args:
        graph: what is lowered, with FP16 between the integer layers.
        table: its ranges.
        method: which of the thresholds; None takes the table's own.
        placement: what is on `grid`.
        grid: of what is quantized.
    """
    groups = tied_groups(graph)
    quantized = defaultdict[int, dict[str, float]](dict)
    for root in dict.fromkeys(graph.root(edge.tensor) for edge in placement.edges):
        if root in groups.of and table.tensors[root].amax > 0:
            amax = threshold_of(table, root, method, grid)
            quantized[groups.of[root]][root] = float(grid.scale_from_amax(amax))
    alone = {
        group: scale
        for group, scales in quantized.items()
        for scale in scales.values()
        if len(scales) == 1 and group not in groups.fixed
    }
    if not alone:
        return EqualScales(graph=graph, table=table)
    # A power of two is exact in FP16, however a threshold was rounded.
    shared = 2.0 ** round(math.log2(median(alone.values())))
    factors = [shared / alone[group] if group in alone else 1.0 for group in range(groups.count)]
    while tight := _beyond_fp16(graph, groups, table, factors, grid):
        factors = [1.0 if group in tight else each for group, each in enumerate(factors)]
    return EqualScales(
        graph=scaled(graph, groups, factors), table=scaled_table(table, groups, factors)
    )


def _beyond_fp16(
    graph: Graph, groups: Groups, table: CalibrationTable, factors: list[float], grid: Grid
) -> set[int]:
    """Returns the moved groups beside which FP16 would lose levels, or could overflow."""
    tight = {
        groups.of[name]
        for name, observed in table.tensors.items()
        if name in groups.of and observed.amax * factors[groups.of[name]] > LARGEST_FP16 / _ROOM
    }
    for node in (n for n in graph.nodes if n.op_type in LINEAR):
        weight = graph.constant(node.input[1])
        if weight is None:
            continue
        read, written = groups.of.get(node.input[0]), groups.of[node.output[0]]
        scales = weight_scales(np.asarray(weight, np.float32), 0, grid)
        moved = scales * factors[written] / (1.0 if read is None else factors[read])
        biases = [np.asarray(graph.constant(name)) for name in node.input[2:]]
        largest = max((float(np.abs(each).max(initial=0.0)) for each in biases), default=0.0)
        if np.any(moved < np.minimum(scales, _LEAST_SCALE)):
            tight |= {written} if factors[written] < 1 else set()
            tight |= {read} if read is not None and factors[read] > 1 else set()
        if largest * factors[written] > LARGEST_FP16 / _ROOM:
            tight.add(written)
    return {group for group in tight if factors[group] != 1}

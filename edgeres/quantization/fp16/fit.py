"""What FP16 cannot hold of a network: moved where a power of two makes room, else counted or refused.

Weights, biases and scales are in the model; activations are known from a calibration table's
exact extremes, and from nothing else. Too large becomes infinite; too small falls among FP16's
subnormal numbers, 2^-24 apart, and loses levels, down to zero.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeres.core.artifacts import Fp16Layer
from edgeres.core.methods import Method
from edgeres.core.table import CalibrationTable
from edgeres.errors import QuantizationError
from edgeres.plurals import counted
from edgeres.quantization.fp16.exponents import (
    LINEAR,
    Groups,
    Numbers,
    choose_exponents,
    scaled,
    scaled_table,
    tied_groups,
)
from edgeres.quantization.fp16.typed import (
    LARGEST_FP16,
    LEAST_NORMAL_FP16,
    SMALLEST_FP16,
    half_scale,
)
from edgeres.quantization.graph import Graph, attribute
from edgeres.quantization.grids import E4M3, INT8, Grid
from edgeres.quantization.placement import Placement
from edgeres.quantization.thresholds import threshold_of
from edgeres.quantization.weights import by_channel, weight_scales

_LOG = logging.getLogger("edgeres.quantization")

_LEAST_LEVELS = 32
"""Steps of FP16 below an activation's largest value from which on it is refused: a uniform error of
one step is then 23 dB below a signal whose root mean square is an eighth of its largest value."""

_LEAST_WEIGHT_DB = 20.0
"""Signal-to-noise ratio of a layer's weights under which FP16 has cost the layer."""

_COST_DB = 3.0
"""What FP16 has to take of that ratio, so that it is FP16's fault and not the grid's."""


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A network that FP16 holds, and what it loses there."""

    graph: Graph
    table: CalibrationTable | None
    """The ranges of `graph`."""
    layers: tuple[Fp16Layer, ...]
    """Layers whose exponent was moved, or that lost levels."""


@dataclass(frozen=True, slots=True)
class Extreme:
    """The largest magnitude of what will be FP16."""

    layer: str
    kind: str
    """`weight or bias`, `weight scale`, `activation scale` or `activation`."""
    tensor: str
    largest: float

    def __str__(self) -> str:
        return f"{self.layer}: {self.kind} '{self.tensor}' reaches {self.largest:g}"


def fit_fp16(
    graph: Graph,
    table: CalibrationTable | None,
    method: Method | None = None,
    *,
    placement: Placement | None = None,
    grid: Grid = INT8,
    path: Path,
) -> Fitted:
    """Returns a network of the same function whose float parts FP16 holds.

    Args:
        graph: what is lowered.
        table: whose extremes bound the activations; None leaves them unchecked, moves nothing, and
            logs so.
        method: which of its thresholds the scales come from; None takes its own.
        placement: what is on `grid`; its scales count and its weights do not. None: nothing.
        grid: INT8, or E4M3.
        path: of the model, for messages.

    Raises:
        QuantizationError: something overflows, or loses so much that it costs accuracy; the
            message names all of it by layer.
        ArtifactError: the table lacks a tensor.
    """
    exponents: Mapping[str, int] = {}
    if table is None:
        _LOG.info(
            "%s: weights fit FP16 or are named; activations were not checked, for want of a "
            "calibration table. Pass --calibration to check them.",
            path,
        )
    else:
        groups = tied_groups(graph)
        chosen = choose_exponents(groups, _numbers(graph, groups, table, method, placement, grid))
        exponents = {name: chosen[group] for name, group in groups.of.items() if chosen[group]}
        if exponents:
            factors = [2.0**exponent for exponent in chosen]
            graph = scaled(graph, groups, factors)
            table = scaled_table(table, groups, factors)
    option = "--precision fp32" if placement is None else "--float-layers fp32"
    if grid is E4M3:
        option = f"--precision int8 {option}"
    beyond = list(overflows(graph, table, method, placement, grid))
    if beyond:
        raise QuantizationError(
            f"{path} has {counted(len(beyond), 'value')} beyond FP16, whose largest number is "
            f"{LARGEST_FP16:g}, and no power of two can be moved to another layer: "
            f"{'; '.join(map(str, beyond))}. Build with {option}."
        )
    layers, costly = [], []
    for node in graph.nodes:
        layer, reasons = _loss(graph, table, node, placement, grid, exponents)
        costly += reasons
        if layer != Fp16Layer(name=node.name):
            layers.append(layer)
    if costly:
        raise QuantizationError(
            f"{path} has {counted(len(costly), 'layer')} below FP16's smallest step, 2^-24, and no "
            f"power of two can be moved to another layer: {'; '.join(costly)}. "
            + (
                "Pass --calibration, so that it can be moved, or build"
                if table is None
                else "Build"
            )
            + f" with {option}."
        )
    _report(path, layers, option)
    return Fitted(graph, table, tuple(layers))


def overflows(
    graph: Graph,
    table: CalibrationTable | None,
    method: Method | None = None,
    placement: Placement | None = None,
    grid: Grid = INT8,
) -> Iterator[Extreme]:
    """Yields every value that FP16 cannot hold: constants and scales, then activations."""
    # A NaN is beyond FP16 too, so the comparison is the negated one.
    return (
        each
        for each in _extremes(graph, table, method, placement, grid)
        if not each.largest <= LARGEST_FP16
    )


def _extremes(
    graph: Graph,
    table: CalibrationTable | None,
    method: Method | None,
    placement: Placement | None,
    grid: Grid,
) -> Iterator[Extreme]:
    """Yields the largest magnitude of everything that will be typed FP16."""
    for node in graph.nodes:
        for index, name in enumerate(node.input):
            value = graph.constant(name)
            if value is None or value.dtype != np.float32:
                continue
            kind = "weight or bias"
            # A weight on a grid is no float in the file; its scales are what FP16 has to hold.
            if placement is not None and index == 1 and node.name in placement.weighted:
                kind, value = "weight scale", weight_scales(value, 0, grid)
            yield Extreme(node.name, kind, name, float(np.abs(value).max(initial=0.0)))
    if table is None:
        return
    for edge in () if placement is None else placement.edges:
        amax = threshold_of(table, graph.root(edge.tensor), method, grid)
        scale = float(grid.scale_from_amax(amax))
        yield Extreme(edge.node, "activation scale", edge.tensor, scale)
    for name, observed in table.tensors.items():
        producer = graph.producers.get(name)
        layer = graph.input if producer is None else producer.name
        yield Extreme(layer, "activation", name, observed.amax)


def _numbers(
    graph: Graph,
    groups: Groups,
    table: CalibrationTable,
    method: Method | None,
    placement: Placement | None,
    grid: Grid,
) -> Iterator[Numbers]:
    """Yields what FP16 has to hold, by the groups whose exponents scale it."""
    for node in (n for n in graph.nodes if n.op_type in LINEAR):
        weight = graph.constant(node.input[1])
        if weight is None:
            continue
        reads, writes = groups.of.get(node.input[0]), groups.of[node.output[0]]
        largest = _largest_by_channel(node, weight).astype(np.float64)
        levels = INT8.qmax
        if placement is not None and node.name in placement.weighted:
            largest, levels = largest / grid.qmax, 1
        yield Numbers(values=largest[largest > 0], reads=reads, writes=writes, levels=levels)
        for name in node.input[2:]:
            bias = np.abs(np.asarray(graph.constant(name), np.float64)).max(initial=0.0)
            yield Numbers(values=np.array([bias][: int(bias > 0)]), writes=writes, levels=0)
    quantized = {graph.root(e.tensor) for e in (() if placement is None else placement.edges)}
    for name, observed in table.tensors.items():
        if name not in groups.of or observed.amax == 0:
            continue
        on_grid = name in quantized
        amax = threshold_of(table, name, method, grid) if on_grid else observed.amax
        group = groups.of[name]
        yield Numbers(values=np.array([observed.amax]), writes=group, levels=0)
        yield Numbers(
            values=np.array([amax or 1.0]), writes=group, levels=(grid if on_grid else INT8).qmax
        )


def _largest_by_channel(node: onnx.NodeProto, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the largest magnitude of each output channel of a convolution or classifier."""
    first = node.op_type == "Conv" or (node.op_type == "Gemm" and attribute(node, "transB") == 1)
    rows = weight if first else np.moveaxis(weight, -1, 0)
    largest: NDArray[np.float32] = np.abs(rows.reshape(len(rows), -1)).max(axis=1, initial=0.0)
    return largest


def _loss(
    graph: Graph,
    table: CalibrationTable | None,
    node: onnx.NodeProto,
    placement: Placement | None,
    grid: Grid,
    exponents: Mapping[str, int],
) -> tuple[Fp16Layer, list[str]]:
    """Returns what FP16 takes of a layer, and a sentence for all that costs accuracy."""
    output, costly = str(node.output[0]), []
    layer = Fp16Layer(name=node.name, exponent=exponents.get(output, 0))
    weight = graph.constant(node.input[1]) if node.op_type in LINEAR else None
    if weight is not None:
        is_low = placement is not None and node.name in placement.weighted
        if is_low:
            layer, reason = _scale_loss(layer, node, weight, grid)
        else:
            layer, reason = _weight_loss(layer, node, weight)
        costly += [reason] if reason else []
    after = graph.only_consumer(output)
    result = after.output[0] if after is not None and after.op_type == "Relu" else output
    observed = None if table is None else table.tensors.get(result)
    if observed is not None and observed.amax > 0 and node.op_type != "Relu":
        steps = observed.amax / SMALLEST_FP16
        layer = replace(layer, levels=min(layer.levels, round(steps)))
        if steps < _LEAST_LEVELS:
            costly.append(
                f"{node.name}: activation '{result}' reaches {observed.amax:g}, {steps:.1f} steps"
            )
    return layer, costly


def _scale_loss(
    layer: Fp16Layer, node: onnx.NodeProto, weight: NDArray[np.float32], grid: Grid = INT8
) -> tuple[Fp16Layer, str]:
    """Returns what a weight on a grid loses by its scales, and how where that costs accuracy."""
    largest, scales = _largest_by_channel(node, weight), weight_scales(weight, 0, grid)
    halves = np.asarray(half_scale(scales), np.float32)
    # A channel of zeros has a scale, and nothing to lose.
    alive = largest > 0
    steps = by_channel(halves, weight.ndim)
    fraction = (largest / (halves * grid.qmax))[alive].min(initial=1.0)
    # Beyond it a value is more than half a step above the largest number.
    limit = grid.qmax + (0.5 if grid.mantissa_bits is None else 16.0)
    lossy = replace(
        layer,
        subnormal=int(np.count_nonzero(alive & (scales < LEAST_NORMAL_FP16))),
        # What a larger scale takes is the smallest steps: E4M3 has 229,376 of them below 448.
        levels=min(INT8.qmax, round(grid.most_steps * float(fraction))),
        clipped=int(np.count_nonzero(np.abs(weight) > limit * steps)),
    )
    half_db = _grid_db(weight, steps, grid)
    limit_db = _grid_db(weight, by_channel(scales, weight.ndim), grid) - _COST_DB
    return lossy, _costly(node, half_db) if half_db < min(_LEAST_WEIGHT_DB, limit_db) else ""


def _weight_loss(
    layer: Fp16Layer, node: onnx.NodeProto, weight: NDArray[np.float32]
) -> tuple[Fp16Layer, str]:
    """Returns what a float weight loses in FP16, and how where that costs accuracy."""
    largest = _largest_by_channel(node, weight)
    small = largest[(largest > 0) & (largest < LEAST_NORMAL_FP16)]
    levels = (small / SMALLEST_FP16).min(initial=INT8.qmax)
    half_db = _db(weight, weight.astype(np.float16).astype(np.float32))
    lossy = replace(layer, subnormal=len(small), levels=round(float(levels)))
    return lossy, _costly(node, half_db) if half_db < _LEAST_WEIGHT_DB else ""


def _costly(node: onnx.NodeProto, half_db: float) -> str:
    return f"{node.name}: weights '{node.input[1]}' keep {half_db:.1f} dB"


def _grid_db(weight: NDArray[np.float32], steps: NDArray[np.float32], grid: Grid) -> float:
    return _db(weight, grid.nearest(weight / steps) * steps)


def _db(exact: NDArray[np.float32], rounded: NDArray[np.float32]) -> float:
    """Returns the signal-to-noise ratio of rounded values; infinite where nothing was rounded."""
    # In units of the largest: squares of what FP16 cannot hold may be beyond FP32 too.
    unit = float(np.abs(exact).max(initial=0.0)) or 1.0
    signal = np.square(exact / unit, dtype=np.float64).sum()
    noise = np.square((exact - rounded) / unit, dtype=np.float64).sum()
    return float(10 * np.log10(signal / noise)) if signal and noise else np.inf


def _report(path: Path, layers: list[Fp16Layer], option: str) -> None:
    """Logs what was moved and what was lost."""
    moved = [layer for layer in layers if layer.exponent]
    if moved:
        _LOG.info(
            "%s: powers of two moved between %s, so that FP16 holds them; the function is the same",
            path, counted(len(moved), "layer"),
        )  # fmt: skip
    reduced = [layer for layer in layers if layer.levels < INT8.qmax or layer.clipped]
    if reduced:
        worst = min(reduced, key=lambda layer: layer.levels)
        _LOG.warning(
            "%s: FP16 leaves %s fewer than %d levels, %s the fewest: %d; clipped: %s. The manifest "
            "counts them by layer; %s keeps all",
            path, counted(len(reduced), "layer"), INT8.qmax, worst.name, worst.levels,
            counted(sum(layer.clipped for layer in reduced), "weight"), option,
        )  # fmt: skip

"""Powers of two that are moved between layers so that FP16 holds a network's numbers.

Activations of ReLU networks may be scaled: a convolution that writes 2^k times as much and a
reader whose weights are 2^-k times as large compute the same function. Powers of two keep every
bit of FP32 and every integer of INT8, so nothing but the exponents changes. Tensors that a ReLU, a
pool or an addition ties together share one exponent; the image and the logits keep theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.numpy_helper import from_array, to_array

from edgeres.core.table import CalibrationTable, TensorRange
from edgeres.quantization.fp16.typed import LARGEST_FP16, LEAST_NORMAL_FP16, SMALLEST_FP16
from edgeres.quantization.graph import Graph, is_pass_through, view

MAX_EXPONENT = 40
"""FP16 has 40 powers of two, subnormal ones included: no further move helps."""

_TIES_FIRST = frozenset(
    {"Relu", "LeakyRelu", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean"}
    | {"Unsqueeze", "Dropout"}
)
"""Operators whose result scales with their first input."""

_TIES_ALL = frozenset({"Add", "Sub", "Sum", "Concat", "Max", "Min"})
"""Operators whose result scales where all of their inputs do."""

LINEAR = frozenset({"Conv", "Gemm", "MatMul"})
"""Operators whose weight takes the difference of two exponents."""

_NO_MOVE = 2 * MAX_EXPONENT
"""Position of no difference among the differences of two exponents."""

_OVERFLOW = 1e6
"""Cost of a number beyond FP16: above that of any number of lost bits."""

_MOVE = 2.0**-16
"""Cost of moving one exponent by one, below that of the least loss: without one nothing moves."""

_SUBNORMAL = 0.2
"""Cost in bits of a subnormal number, however little it loses. Without it a few channels gain at
the cost of many: on a trained ResNet-20 177 of 688 scales become subnormal; so 20, of which 3 are
off by more than 5 %, where 11 of 18 were before."""

_ALL_RUNS = 64
"""Tied groups up to which all runs of neighbours are tried as one."""


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Tensors that share an exponent."""

    of: Mapping[str, int]
    """Group of each activation, numbered in topological order."""
    fixed: frozenset[int]
    """Groups whose exponent stays 0."""

    @property
    def count(self) -> int:
        """Number of groups."""
        return max(self.of.values(), default=-1) + 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Numbers:
    """Positive numbers that FP16 has to hold, once they are times 2^(`writes` - `reads`)."""

    values: NDArray[np.float64]
    reads: int | None = None
    """Group that divides them; None for what is no weight."""
    writes: int
    """Group that multiplies them."""
    levels: float = 1.0
    """Levels of INT8 that a value is to have: 1 for a scale, 0 for what may only overflow."""


def tied_groups(graph: Graph) -> Groups:
    """Returns which activations of a network have to be scaled together, and which not at all."""
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        parents.setdefault(name, name)
        while parents[name] != name:
            name = parents[name]
        return name

    fixed = [graph.input, graph.output]
    for node in graph.nodes:
        activations = [n for n in node.input if n and n not in graph.constants]
        outputs = [n for n in node.output if n]
        for name in (*activations, *outputs):
            root(name)
        if node.op_type in _TIES_FIRST or is_pass_through(graph, node):
            tied = [*activations[:1], *outputs[:1]]
        elif node.op_type in _TIES_ALL and len(activations) == len(node.input):
            tied = [*activations, *outputs]
        elif _is_scalable(graph, node) or node.op_type == "Shape":
            continue
        else:
            fixed += [*activations, *outputs]
            continue
        for name in tied[1:]:
            parents[root(name)] = root(tied[0])
    numbers: dict[str, int] = {}
    of = {name: numbers.setdefault(root(name), len(numbers)) for name in _in_order(graph)}
    return Groups(of, frozenset(of[name] for name in fixed if name in of))


def choose_exponents(groups: Groups, numbers: Iterable[Numbers]) -> tuple[int, ...]:
    """Returns the exponent of each group with which FP16 loses the least; 0 where none helps.

    A search from no move at all: runs of neighbouring groups are moved together, since the
    weights between two groups of one exponent stay as they are.
    """
    pairs, costs = _costs(groups, numbers)
    chosen = np.zeros(groups.count + 1, np.int64)
    free = np.array([i not in groups.fixed for i in range(groups.count)] + [False])
    positions, rows = np.arange(groups.count + 1), np.arange(len(pairs))
    improved = bool(costs[rows, _NO_MOVE].sum() > 0)
    while improved:
        improved = False
        for run in _runs(groups.count):
            moved = free & (run.start <= positions) & (positions < run.stop)
            # Weights between two groups that move alike stay as they are.
            signs = moved[pairs[:, 1]].astype(np.int64) - moved[pairs[:, 0]]
            touched = rows[signs != 0]
            room = MAX_EXPONENT - int(np.abs(chosen[moved]).max(initial=0))
            steps = np.arange(-room, room + 1)
            at = chosen[pairs[touched, 1]] - chosen[pairs[touched, 0]] + _NO_MOVE
            totals = costs[touched, at + signs[touched] * steps[:, None]].sum(axis=1)
            totals += _MOVE * np.abs(chosen[moved] + steps[:, None]).sum(axis=1)
            least = int(np.argmin(totals))
            if totals[least] < totals[room] - _MOVE / 2:
                chosen[moved] += steps[least]
                improved = True
    return tuple(int(exponent) for exponent in chosen[:-1])


def scaled(graph: Graph, groups: Groups, factors: Sequence[float]) -> Graph:
    """Returns the network whose groups of tensors are so many times as large."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    times: dict[str, float] = {}
    for node in (n for n in graph.nodes if n.op_type in LINEAR and _is_scalable(graph, n)):
        reads, writes = (factors[groups.of[name]] for name in (node.input[0], node.output[0]))
        times[node.input[1]] = writes / reads
        for bias in node.input[2:]:
            times[bias] = writes
    for tensor in model.graph.initializer:
        if (factor := times.get(tensor.name, 1.0)) != 1:
            tensor.CopyFrom(from_array(to_array(tensor) * np.float32(factor), tensor.name))
    return view(model).keeping(graph.kept)


def scaled_table(
    table: CalibrationTable, groups: Groups, factors: Sequence[float]
) -> CalibrationTable:
    """Returns the ranges of a network that was `scaled`."""

    def times(observed: TensorRange, factor: float) -> TensorRange:
        thresholds = {method: t.scaled(factor) for method, t in observed.thresholds.items()}
        return replace(observed, amax=observed.amax * factor, thresholds=thresholds)

    tensors = {
        name: times(observed, factors[groups.of[name]]) if name in groups.of else observed
        for name, observed in table.tensors.items()
    }
    return replace(table, tensors=tensors)


def missing_bits(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns how many bits of a scale FP16 may lose, at most: 0 for a normal number."""
    missing = np.log2(1 + SMALLEST_FP16 / values) + _SUBNORMAL
    return np.where(values >= LEAST_NORMAL_FP16, 0.0, missing)


def _is_scalable(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node's weight and bias are constants of its own, so that they can be scaled."""
    parameters = [name for name in node.input[1:] if name]
    return node.op_type in LINEAR and all(
        name in graph.constants and graph.only_consumer(name) is not None for name in parameters
    )


def _in_order(graph: Graph) -> Iterator[str]:
    yield graph.input
    for node in graph.nodes:
        yield from (name for name in node.output if name)


def _runs(count: int) -> Iterator[range]:
    """Yields ranges of neighbouring groups, the short ones first: the fewer move, the better.

    All of them, or in a deep network those of 2^n groups and those that reach the end.
    """
    for length in range(1, count + 1):
        for start in range(count - length + 1):
            stop = start + length
            if count <= _ALL_RUNS or stop == count or length & (length - 1) == 0:
                yield range(start, stop)


def _costs(
    groups: Groups, numbers: Iterable[Numbers]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Returns pairs of groups, reader's and writer's, and what FP16 loses at each difference.

    The group beyond the last stands for none. The second array is (pairs, differences), with no
    difference in column `_NO_MOVE`.
    """
    differences = np.arange(-_NO_MOVE, _NO_MOVE + 1)
    tables: dict[tuple[int, int], NDArray[np.float64]] = {}
    for each in numbers:
        pair = (groups.count if each.reads is None else each.reads, each.writes)
        moved = np.ldexp(each.values[:, None], differences)
        # What is moved keeps one power of two free, for larger values than were observed.
        limits = np.where(differences == 0, LARGEST_FP16, LARGEST_FP16 / 2)
        beyond = np.log2(np.maximum(moved / limits, 1))
        total = np.where(beyond > 0, _OVERFLOW * (1 + beyond), 0.0).sum(axis=0)
        if each.levels and len(each.values):
            # A layer's mean, and its square: a layer without bits makes the others useless.
            bits = missing_bits(moved / each.levels).mean(axis=0)
            total += bits + bits**2
        tables[pair] = tables[pair] + total if pair in tables else total
    pairs = np.array(list(tables), np.int64).reshape(-1, 2)
    return pairs, np.array(list(tables.values())).reshape(len(pairs), len(differences))

"""Channels on scales of their own: a network of the same function that is easier to round.

A channel may be divided by a factor where convolutions make it and multiplied where others read
it: ReLU, pooling and addition let a positive factor through. What an addition joins shares its
factors, so those of a residual stream reach from its first block to its last, and through
shortcuts of option A, which only thin out and pad, to the next stage.
Source: Nagel et al. 2019, Data-Free Quantization, section 4.1, for what lies within a block.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeres.errors import ArtifactError
from edgeres.plurals import counted
from edgeres.quantization.graph import Graph, attribute, is_pass_through
from edgeres.quantization.parameters import Parameters, parameters_of
from edgeres.quantization.weights import by_channel

Array = NDArray[np.float32]
Groups = Mapping[str, NDArray[np.int64]]
"""By activation, the group of each of its channels; those of group 0 keep their scale."""

_FIXED = 0
_SAME = frozenset({"Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
"""Operators whose channels are those of their input, and scale with them."""


def channel_groups(graph: Graph) -> Groups:
    """Returns which channels have to share a factor, over all activations of known shape."""
    parents = [_FIXED]

    def root(group: int) -> int:
        while parents[group] != group:
            group = parents[group]
        return group

    def fresh(count: int) -> list[int]:
        first = len(parents)
        parents.extend(range(first, first + count))
        return list(range(first, first + count))

    def tie(first: list[int], second: list[int]) -> None:
        for one, other in zip(first, second, strict=True):
            # Towards the smaller, so that what is tied to group 0 is fixed.
            low, high = sorted((root(one), root(other)))
            parents[high] = low

    of = {graph.input: [_FIXED] * (graph.shapes.get(graph.input) or (0,))[0]}
    for node in graph.nodes:
        output, channels = str(node.output[0]), (graph.shapes.get(node.output[0]) or (0,))[0]
        read = [of[name] for name in node.input if name in of]
        if node.op_type == "Conv" and has_constant_parameters(graph, node):
            of[output] = fresh(channels)
        elif node.op_type == "Gemm" and has_constant_parameters(graph, node):
            of[output] = [_FIXED] * channels
        elif (
            node.op_type == "Add" and {len(each) for each in read} == {channels} and len(read) == 2
        ):
            tie(*read)
            of[output] = read[0]
        elif _keeps_channels(graph, node, read, channels):
            before, after = _padding(graph, node)
            of[output] = [*fresh(before), *read[0], *fresh(after)]
        else:
            for each in read:
                tie(each, [_FIXED] * len(each))
            of[output] = [_FIXED] * channels
    return {
        name: np.array([root(each) for each in groups], np.int64) for name, groups in of.items()
    }


def equalized_parameters(
    graph: Graph, equalization: Mapping[str, tuple[float, ...]]
) -> dict[str, Parameters]:
    """Returns the parameters of the operators that make or read an equalized activation.

    Raises:
        ArtifactError: an activation has other channels, or some that are tied to others' scales.
    """
    if not equalization:
        return {}
    groups = channel_groups(graph)
    factors = np.ones(1 + max(int(each.max(initial=0)) for each in groups.values()), np.float32)
    for tensor, values in equalization.items():
        if len(groups.get(tensor, ())) == len(values):
            factors[groups[tensor]] = np.array(values, np.float32)
    for tensor, values in equalization.items():
        of = groups.get(tensor, np.zeros(0, np.int64))
        wanted = np.array(values, np.float32)
        if len(of) != len(values) or factors[_FIXED] != 1 or (factors[of] != wanted).any():
            raise ArtifactError(
                f"The table's recovery equalizes {counted(len(values), 'channel')} of '{tensor}', "
                "which the network does not have, or not by themselves. Run calibrate again."
            )
    changed = {}
    for node in (n for n in graph.nodes if n.op_type in {"Conv", "Gemm"}):
        reads, writes = factors[groups[node.input[0]]], factors[groups[node.output[0]]]
        if has_constant_parameters(graph, node) and ((reads != 1).any() or (writes != 1).any()):
            changed[str(node.name)] = _rescaled(graph, node, reads, writes)
    return changed


def has_constant_parameters(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether an operator's weight and bias are constants."""
    return all(not name or name in graph.constants for name in node.input[1:])


def scaled_inputs(weight: Array, factors: Array) -> Array:
    """Returns a weight, (O, C / groups, kh, kw), times a factor for each channel that it reads, (C,)."""
    # The filters of one group read the same channels.
    by_group = factors.reshape(-1, weight.shape[1])
    rows = np.repeat(by_group, len(weight) // len(by_group), axis=0)
    return weight * rows[:, :, None, None]


def _rescaled(graph: Graph, node: onnx.NodeProto, reads: Array, writes: Array) -> Parameters:
    """Returns an operator's parameters once its channels are on their scales."""
    if node.op_type == "Gemm":
        weight = np.asarray(graph.constant(node.input[1]), np.float32)
        turned = attribute(node, "transB") == 1
        bias = np.zeros(weight.shape[0 if turned else 1], np.float32)
        if len(node.input) > 2 and node.input[2]:
            bias = np.asarray(graph.constant(node.input[2]), np.float32)
        return Parameters(weight * (reads if turned else reads[:, None]), bias)
    trained = parameters_of(graph, node)
    weight = scaled_inputs(trained.weight, reads)
    return Parameters(weight / by_channel(writes, weight.ndim), trained.bias / writes)


def _keeps_channels(
    graph: Graph, node: onnx.NodeProto, read: list[list[int]], channels: int
) -> bool:
    """Whether an operator's channels are those that it reads, and zeros around them."""
    moved = node.op_type in _SAME or is_pass_through(graph, node)
    return (
        moved
        and node.op_type != "Transpose"
        and len(read) == 1
        and len(read[0]) + sum(_padding(graph, node)) == channels
    )


def _padding(graph: Graph, node: onnx.NodeProto) -> tuple[int, int]:
    """Returns the channels that an operator adds before and behind its input's."""
    amounts = graph.constant(node.input[1]) if node.op_type == "Pad" else None
    if amounts is None or len(node.input) > 3:
        return 0, 0
    return max(0, int(amounts[1])), max(0, int(amounts[len(amounts) // 2 + 1]))

"""A lowered network cut where one tensor of integers holds all that is known of an image.

Candidates of a search differ in a few scales, and all that lies before the first of them computes
the same values in each. So a network is cut between its blocks, and what follows a cut is a network
of its own, whose input is the tensor at the cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

from edgeres.quantization.graph import emptied


@dataclass(frozen=True, slots=True)
class Cut:
    """A place in a network that all of an image passes as one tensor."""

    position: int
    """Number of operators before it."""
    tensor: str
    type: int
    """Of its integers, as `TensorProto` numbers types."""


def cuts_of(model: onnx.ModelProto) -> tuple[Cut, ...]:
    """Returns the places behind a QuantizeLinear whose result alone is read further on.

    Only there: between other operators a cut would part what a runtime fuses to one kernel.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    last_read = {name: i for i, node in enumerate(graph.node) for name in node.input}
    last_read[graph.output[0].name] = len(graph.node)
    alive = {value.name for value in graph.input if value.name not in constants}
    cuts = []
    for position, node in enumerate(graph.node):
        alive.update(node.output)
        alive = {name for name in alive if last_read.get(name, -1) > position}
        if node.op_type == "QuantizeLinear" and alive == set(node.output):
            zero = constants.get(node.input[2]) if len(node.input) > 2 else None
            if zero is not None:
                cuts.append(Cut(position + 1, node.output[0], zero.data_type))
    return tuple(cuts)


def common_operators(first: onnx.ModelProto, second: onnx.ModelProto) -> int:
    """Returns how many operators two networks have in common, constants too, from the image on."""
    constants = [{t.name: t for t in model.graph.initializer} for model in (first, second)]
    pairs = zip(first.graph.node, second.graph.node, strict=False)
    for position, (one, other) in enumerate(pairs):
        if one != other:
            return position
        values = [[known.get(name) for name in one.input] for known in constants]
        if values[0] != values[1]:
            return position
    return min(len(first.graph.node), len(second.graph.node))


def behind(
    model: onnx.ModelProto, start: tuple[Cut, Sequence[int]] | None, kept: Sequence[Cut]
) -> onnx.ModelProto:
    """Returns the network behind a cut, or all of it.

    Args:
        model: the whole network.
        start: the cut whose tensor is its input, with the shape of one image's; None: the image.
        kept: further cuts, whose tensors it returns beside the logits.
    """
    tail = emptied(model)
    graph = tail.graph
    graph.node.extend(model.graph.node[0 if start is None else start[0].position :])
    read = {name for node in graph.node for name in node.input}
    graph.initializer.extend(t for t in model.graph.initializer if t.name in read)
    if start is not None:
        cut, shape = start
        del graph.input[:]
        dims: list[str | int | None] = [f"{cut.tensor}/images", *shape]
        graph.input.append(helper.make_tensor_value_info(cut.tensor, cut.type, dims))
    graph.output.extend(helper.make_tensor_value_info(c.tensor, c.type, None) for c in kept)
    return tail


def kept_cuts(sizes: Sequence[int], limit: int) -> tuple[int, ...]:
    """Returns the positions of the cuts to keep the values of: the last of each size in turn.

    Values of one size belong to the blocks of one stage, and searches go stage by stage from the
    logits to the image, so those nearest to the image are the first that memory has no room for.

    Args:
        sizes: bytes of the values at each cut, from the image on.
        limit: bytes of those that are kept together.
    """
    kept: list[int] = []
    total, last = 0, 0
    for index in reversed(range(len(sizes))):
        if sizes[index] == last:
            continue
        last = sizes[index]
        total += last
        if total > limit:
            break
        kept.append(index)
    return tuple(reversed(kept))

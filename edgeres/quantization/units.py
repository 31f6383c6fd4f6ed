"""The units that precision is decided by: residual blocks, and the layers in and between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import onnx

from edgeres.core.blocks import locate
from edgeres.quantization.graph import Graph
from edgeres.quantization.placement import branches_of, refusal


@dataclass(frozen=True, slots=True)
class Unit:
    """Operators that are quantized, or kept in float, together."""

    name: str
    kind: str
    """`block` or `layer`."""
    nodes: frozenset[str]
    """Names of operators that have an integer form."""


def blocks(graph: Graph) -> tuple[Unit, ...]:
    """Returns every residual block, and each operator outside of them, in topological order.

    A block is an Add and all operators on its branches up to where they part. An operator in
    two of them, as behind a shortcut that spans several, belongs to the first.
    """
    integer = quantizable(graph)
    order = {node.name: position for position, node in enumerate(graph.nodes)}
    taken: set[str] = set()
    units: list[Unit] = []
    for add in (n for n in graph.nodes if n.op_type == "Add" and n.name in integer):
        branches = _branch_nodes(graph, add) & integer - taken
        taken |= branches
        units.append(_block([node for node in graph.nodes if node.name in branches]))
    units += [_layer(n) for n in graph.nodes if n.name in integer - taken]
    return tuple(sorted(units, key=lambda unit: min(order[name] for name in unit.nodes)))


def layers(graph: Graph) -> tuple[Unit, ...]:
    """Returns every operator that has an integer form as a unit of its own."""
    integer = quantizable(graph)
    return tuple(_layer(node) for node in graph.nodes if node.name in integer)


def residual_additions(graph: Graph) -> tuple[Unit, ...]:
    """Returns every residual Add that has an integer form, whose shortcut is the residual stream."""
    integer = quantizable(graph)
    return tuple(_layer(n) for n in graph.nodes if n.op_type == "Add" and n.name in integer)


def quantizable(graph: Graph) -> frozenset[str]:
    """Returns the names of the operators that have an integer form."""
    return frozenset(node.name for node in graph.nodes if refusal(graph, node) is None)


def _branch_nodes(graph: Graph, add: onnx.NodeProto) -> frozenset[str]:
    """Returns the names of the operators from where an Add's branches part to the Add."""
    pending, names = list(add.input), {add.name}
    # An empty name is an optional input that is left out.
    visited = {branches_of(graph, add).start, ""}
    while pending:
        tensor = pending.pop()
        if tensor not in visited and tensor in graph.producers:
            visited.add(tensor)
            names.add(graph.producers[tensor].name)
            pending.extend(graph.producers[tensor].input)
    return frozenset(names)


def _block(nodes: Sequence[onnx.NodeProto]) -> Unit:
    """Returns a block, named by its operators' names, or by its last operator."""
    names = [node.name for node in nodes]
    places = {locate(node.name, node.op_type).block for node in nodes}
    if len(places) == 1 and (block := places.pop()):
        return Unit(block, "block", frozenset(names))
    # A block whose module has a name of its own, such as `/res1/conv1/Conv`.
    parts = zip(*(name.split("/") for name in names), strict=False)
    shared = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, parts)]
    return Unit("".join(shared[-1:]) or names[-1], "block", frozenset(names))


def _layer(node: onnx.NodeProto) -> Unit:
    """Returns an operator as a unit, named `layer1.0.conv1` where its name is the exporter's path."""
    name, module = node.name, locate(node.name, node.op_type).module
    if module and name.endswith(f"/{node.op_type}"):
        name = module if node.op_type == "Conv" else f"{module}.{node.op_type}"
    return Unit(name, "layer", frozenset({node.name}))

"""Names in an ONNX graph that are free for what quantization adds.

Every lowering names a tensor that it adds after one that exists: `image/scale`, `conv1/weight_s8`,
`logits/fp16`. A graph may hold such a name already, and two tensors of one name are one tensor.
So such names are changed once, when the file is read, and no later stage has to look for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx

from edgeres.errors import ArtifactError

ADDED = re.compile(
    r"scales?|zero_points?|q|dq\d*|u8|float|fp16|pads|padded|shift|shifted|steps|folded|pixels"
    r"|cast|exact|half|joint|nhwc|rows|sum|unit|mean|thinned\d*|(?:weight|bias)(?:_s\d+|_scale|_zero)?"
    r"|recovered_(?:weight|bias)|edgeres_\w*[^\W_]"
)
"""What stands behind the last slash of an added name."""

_ADDED_ALONE = re.compile(r"shape/\d+(?:x\d+)*|ones/\d+|edgeres_\w*[^\W_]")
"""Added names that are after no other one."""


def free_added_names(path: Path, model: onnx.ModelProto) -> None:
    """Renames in place the tensors and operators whose names quantization would add.

    Raises:
        ArtifactError: it is the input or the output, whose name is not the graph's own.
    """
    # Each rename is final, but its new name may be the base of another one's.
    while renamed := _renamed(path, model.graph):
        for graph in subgraphs(model.graph):
            _rename(graph, renamed)


def subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yields a graph and the bodies of its control flow, however deep."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from subgraphs(body)


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yields the graphs inside an operator, such as the branches of an If."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _renamed(path: Path, graph: onnx.GraphProto) -> dict[str, str]:
    """Returns the new name of each tensor and operator that has to give its name up."""
    tensors: set[str] = set()
    nodes: set[str] = set()
    for body in subgraphs(graph):
        tensors.update(tensor.name for tensor in body.initializer)
        tensors.update(sparse.values.name for sparse in body.sparse_initializer)
        tensors.update(value.name for value in (*body.input, *body.output, *body.value_info))
        tensors.update(name for node in body.node for name in (*node.input, *node.output))
        nodes.update(node.name for node in body.node)
    # A node without a name is named by operator and position, and one of two equal names gets
    # underscores.
    bases = {name.rstrip("_") for name in tensors | nodes}
    unnamed = re.compile(f"(?:{'|'.join(re.escape(n.op_type) for n in graph.node)})_\\d+")
    interface = {value.name for value in (*graph.input, *graph.output)}
    interface -= {tensor.name for tensor in graph.initializer}
    renamed: dict[str, str] = {}
    for name in sorted(tensors | nodes):
        *parents, last = name.split("/")
        prefixes = ("/".join(parents[:end]).rstrip("_") for end in range(1, len(parents) + 1))
        collides = ADDED.fullmatch(last) and any(
            prefix and (prefix in bases or unnamed.fullmatch(prefix)) for prefix in prefixes
        )
        if not collides and not _ADDED_ALONE.fullmatch(name):
            continue
        if name in interface:
            raise ArtifactError(
                f"{path} has an input or output called '{name}', which is the name of a tensor "
                "that quantization adds. Export the model again with another name, such as "
                f"'{name.replace('/', '_')}'."
            )
        new = name + "_"
        while new in tensors or new in nodes or new in renamed.values():
            new += "_"
        renamed[name] = new
    return renamed


def _rename(graph: onnx.GraphProto, renamed: Mapping[str, str]) -> None:
    for node in graph.node:
        node.name = renamed.get(node.name, node.name)
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name in renamed:
                    names[index] = renamed[name]
    values = (*graph.initializer, *graph.input, *graph.output, *graph.value_info)
    for value in (*values, *(sparse.values for sparse in graph.sparse_initializer)):
        value.name = renamed.get(value.name, value.name)
    for annotation in graph.quantization_annotation:
        annotation.tensor_name = renamed.get(annotation.tensor_name, annotation.tensor_name)

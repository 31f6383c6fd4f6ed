"""The part of a network between some of its tensors, as a network of its own."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

import onnx
from onnx import TensorProto, helper


def between(
    model: onnx.ModelProto,
    sources: Sequence[str],
    tensors: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    integers: Container[str] = (),
) -> onnx.ModelProto:
    """Returns the part of a model that makes `tensors` of those sources that it needs for them.

    Args:
        model: the network.
        sources: what the part may start at.
        tensors: what it makes.
        shapes: of both, without the images; a tensor may be missing.
        integers: tensors that are of type uint8, and not float.
    """
    known, needed, nodes = set(sources), set(tensors), []
    for node in reversed(model.graph.node):
        if (needed - known).intersection(node.output):
            nodes.append(node)
            needed.update(node.input)

    def described(names: Iterable[str]) -> list[onnx.ValueInfoProto]:
        types = {True: TensorProto.UINT8, False: TensorProto.FLOAT}
        infos = []
        for name in names:
            shape: list[str | int | None] = ["images", *shapes.get(name, ())]
            kind = types[name in integers]
            dims = shape if name in shapes else None
            infos.append(helper.make_tensor_value_info(name, kind, dims))
        return infos

    graph = helper.make_graph(
        nodes[::-1],
        "part",
        described(name for name in sources if name in needed),
        described(tensors),
        [tensor for tensor in model.graph.initializer if tensor.name in needed],
    )
    part = helper.make_model(graph, opset_imports=model.opset_import)
    part.ir_version = model.ir_version
    return part

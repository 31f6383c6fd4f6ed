"""What the operators of an ONNX graph cost, and the activations that are alive at one time."""

from __future__ import annotations

import math

import onnx

from edgeres.core.cost import OperatorCost
from edgeres.graph_structure import infer_shapes
from edgeres.quantization.graph import Graph


def operator_cost(graph: Graph, node: onnx.NodeProto) -> OperatorCost:
    """Returns what an operator costs for one image.

    A tensor whose shape is not known counts as empty, a pixel that a strided kernel passes over
    as read.
    """
    outputs = sum(math.prod(graph.shapes[name]) for name in node.output if name in graph.shapes)
    inputs = sum(math.prod(graph.shapes[name]) for name in node.input if name in graph.shapes)
    weight = graph.constants.get(node.input[1]) if len(node.input) > 1 else None
    if node.op_type not in {"Conv", "Gemm"} or weight is None:
        return OperatorCost(inputs=inputs, outputs=outputs)
    # A group's filter reads that group's channels alone, which the weight's shape,
    # (O, C / groups, kh, kw), says already. A Gemm is a convolution on one pixel.
    on_one_pixel = node.op_type == "Gemm"
    return OperatorCost(
        macs=math.prod(weight.dims) if on_one_pixel else outputs * math.prod(weight.dims[1:]),
        weights=math.prod(weight.dims),
        channels=outputs if on_one_pixel else int(weight.dims[0]),
        inputs=inputs,
        outputs=outputs,
    )


def peak_activations(model: onnx.ModelProto, image: tuple[int, ...]) -> int:
    """Returns the most values of activations that are alive at once, in the order of the graph.

    Args:
        model: with one image input.
        image: shape to give to that input, (N, C, H, W).
    """
    sizes = _tensor_sizes(model, image)
    last_use = {name: i for i, node in enumerate(model.graph.node) for name in node.input}
    alive = {v.name: sizes[v.name] for v in model.graph.input if v.name in sizes}
    peak = now = sum(alive.values())
    for index, node in enumerate(model.graph.node):
        born = {name: sizes[name] for name in node.output if name in sizes}
        alive.update(born)
        now += sum(born.values())
        # An operator's inputs are alive while it writes its outputs: count before freeing.
        peak = max(peak, now)
        for name in {*node.input, *node.output} & alive.keys():
            if last_use.get(name, -1) <= index:
                now -= alive.pop(name)
    return peak


def _tensor_sizes(model: onnx.ModelProto, image: tuple[int, ...]) -> dict[str, int]:
    """Returns the values of every tensor that shape inference finds the shape of."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    source = next(value for value in fixed.graph.input if value.name not in constants)
    for dim, size in zip(source.type.tensor_type.shape.dim, image, strict=True):
        dim.dim_value = size
    # Shapes that the file carries were inferred with another batch.
    del fixed.graph.value_info[:]
    graph = infer_shapes(fixed, images=image[0]).graph
    values = (v for v in (*graph.input, *graph.value_info) if v.name not in constants)
    sizes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
    return {name: math.prod(shape) for name, shape in sizes.items() if all(shape)}

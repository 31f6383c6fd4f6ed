"""What the operators of an ONNX graph cost, and the activations that are alive at one time."""

from __future__ import annotations

import math

import onnx

from edgeres.core.cost import OperatorCost
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


def stored_bytes(graph: Graph) -> int:
    """Returns the bytes of a graph's constants, in the types that it has them in."""
    return sum(
        math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in graph.constants.values()
    )


def peak_activations(graph: Graph) -> int:
    """Returns the most values of one image's activations that are alive at once, in its order.

    A tensor whose shape is not known counts as empty; what is computed from weights alone is one.
    """
    last_use = {name: i for i, node in enumerate(graph.nodes) for name in node.input}
    alive = {graph.input: math.prod(graph.shapes.get(graph.input, (0,)))}
    peak = 0
    for index, node in enumerate(graph.nodes):
        if alive.keys().isdisjoint(node.input):
            continue
        alive |= {name: math.prod(graph.shapes.get(name, (0,))) for name in node.output}
        # An operator's inputs are alive while it writes its outputs: count before freeing.
        peak = max(peak, sum(alive.values()))
        alive = {name: size for name, size in alive.items() if last_use.get(name, -1) > index}
    return peak

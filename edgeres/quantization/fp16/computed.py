"""An FP16-typed network as FP32 operators that round what it rounds, for a CPU without FP16.

Each FP16 tensor that an operator computes is rounded by a pair of Casts; within an operator sums
are FP32, as NVIDIA's tensor cores accumulate them. ONNX Runtime's own answer to a typed network is
no reference: its CPU has few FP16 kernels, and between two operators without one it leaves out the
Casts, and with them the rounding. Dequantized values are not rounded again: integer kernels
multiply the integers, and apply the scale to the sum.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array, to_array

from edgeres.graph_structure import infer_shapes, skeleton
from edgeres.quantization.graph import PASS_THROUGH, Graph, view

_ON_GRID = PASS_THROUGH | {"Relu", "Concat", "DequantizeLinear"}
"""Operators whose results need no rounding."""


def computed_in_fp32(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the network with FP32 types and FP16 values; one without FP16 as it is."""
    if not any(t.data_type == TensorProto.FLOAT16 for t in model.graph.initializer):
        return model
    graph = view(model)
    rounded = _rounded_tensors(graph)
    computed = graph.model
    for tensor in computed.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(from_array(to_array(tensor).astype(np.float32), tensor.name))
    nodes: list[onnx.NodeProto] = []
    for node in graph.nodes:
        nodes.append(node)
        for index, name in enumerate(node.output):
            if name not in rounded:
                continue
            half = name + "/half"
            if node.op_type == "Cast":
                node.output[index] = half
            else:
                node.output[index] = name + "/exact"
                nodes.append(_cast(name + "/exact", half, TensorProto.FLOAT16))
            nodes.append(_cast(half, name, TensorProto.FLOAT))
    # Copied first: the nodes are the graph's own until it is cleared.
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del computed.graph.node[:], computed.graph.value_info[:]
    computed.graph.node.extend(copies)
    onnx.checker.check_model(computed)
    return computed


def _rounded_tensors(graph: Graph) -> frozenset[str]:
    """Returns the tensors that are rounded where they are written."""
    inferred = infer_shapes(skeleton(graph.model)).graph
    values = (*inferred.value_info, *inferred.output)
    halves = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
    rounded = set()
    for node in (n for n in graph.nodes if n.op_type not in _ON_GRID):
        for name in (str(output) for output in node.output if output in halves):
            # Behind the ReLU, since the two commute, and a runtime fuses only what is adjacent.
            reader = graph.only_consumer(name)
            after = reader is not None and reader.op_type == "Relu" and reader.output[0]
            rounded.add(after or name)
    return frozenset(rounded)


def _cast(source: str, output: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [output], name=output + "/cast", to=to)

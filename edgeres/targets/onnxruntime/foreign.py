"""What an ONNX file of any tool asks of ONNX Runtime: which layers are quantized, which are not.

Two forms are read: Q/DQ, where a layer is quantized that takes its operands from
DequantizeLinear, and operators that are integer by themselves, such as QLinearConv.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import TensorProto

from edgeres.core.artifacts import LayerPrecision
from edgeres.core.precision import Precision
from edgeres.graph_checks import live_nodes, low_precision
from edgeres.onnx_file import LoadedModel

_INTEGER_OPERATORS = {
    "QLinearConv": "Conv",
    "ConvInteger": "Conv",
    "QLinearAdd": "Add",
    "QGemm": "Gemm",
    "QLinearMatMul": "MatMul",
    "MatMulInteger": "MatMul",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
}
"""Operators that compute in integers, and the operator that each stands for."""

_OPERANDS = {"Conv": 2, "Gemm": 2, "MatMul": 2, "Add": 2, "GlobalAveragePool": 1}
"""Operators that have an integer form, and their inputs that have to be integers for it."""

_INTEGERS = frozenset({TensorProto.INT8, TensorProto.UINT8})


def precisions_of(
    model: LoadedModel,
) -> tuple[tuple[LayerPrecision, ...], Precision]:
    """Returns what each layer of a file was quantized to, and what that makes of the file."""
    proto = with_names(model.proto)
    layers = tuple(_layers(proto))
    convolutions = [layer.precision for layer in layers if layer.op_type == "Conv"]
    if any(layer.precision is Precision.INT8 for layer in layers):
        is_all = all(precision is Precision.INT8 for precision in convolutions)
        return layers, Precision.INT8 if is_all else Precision.MIXED
    # Casts and weights of half precision, without any integer.
    floats = Precision.FP16 if "FLOAT16" in low_precision(proto) else Precision.FP32
    return layers, floats


def with_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with a name for every operator, by which an audit finds it again."""
    if all(node.name for node in model.graph.node):
        return model
    named = onnx.ModelProto()
    named.CopyFrom(model)
    for node in named.graph.node:
        node.name = node.name or f"{node.op_type} of {node.output[0]}"
    return named


def _layers(model: onnx.ModelProto) -> Iterator[LayerPrecision]:
    graph = model.graph
    producers = {output: node for node in graph.node for output in node.output}
    constants = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                constants[node.output[0]] = attribute.t.data_type
    live = {name for node in live_nodes(model) for name in node.output}
    for node in graph.node:
        kind = node.op_type
        if live.isdisjoint(node.output):
            continue
        if kind in _INTEGER_OPERATORS:
            yield LayerPrecision(
                name=node.name, op_type=_INTEGER_OPERATORS[kind], precision=Precision.INT8
            )
        elif kind in _OPERANDS:
            floats = [
                name
                for name in node.input[: _OPERANDS[kind]]
                if not _is_dequantized(name, producers, constants)
            ]
            reason = f"no DequantizeLinear before {', '.join(floats)}" if floats else ""
            precision = Precision.FP32 if floats else Precision.INT8
            yield LayerPrecision(name=node.name, op_type=kind, precision=precision, reason=reason)


def _is_dequantized(
    name: str, producers: dict[str, onnx.NodeProto], constants: dict[str, int]
) -> bool:
    """Returns whether a tensor is the float form of 8-bit integers."""
    node = producers.get(name)
    if node is None or node.op_type != "DequantizeLinear":
        return False
    integers = node.input[0]
    source = producers.get(integers)
    # Without a zero point the type of the integers is QuantizeLinear's default, uint8.
    if source is not None and integers not in constants:
        return source.op_type == "QuantizeLinear" and (
            len(source.input) < 3 or constants.get(source.input[2], TensorProto.UINT8) in _INTEGERS
        )
    return constants.get(integers) in _INTEGERS

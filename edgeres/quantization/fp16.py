"""The FP16-typed form of a model, with or without Q/DQ, for strongly typed networks.

Input and output stay FP32 behind a Cast, so that every runner feeds the same arrays. Made
after calibration and never run on ONNX Runtime, whose FP16 QuantizeLinear has been wrong
(onnxruntime issue 22741).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeres.errors import QuantizationError
from edgeres.quantization.graph import normalized, opset_of

QDQ_OPSET = 19
"""First opset whose QuantizeLinear takes FP16. Source: ONNX operator QuantizeLinear."""

_QDQ_IR_VERSION = 9
_SMALLEST = np.float16(2.0**-24)
LARGEST_FP16 = float(np.finfo(np.float16).max)
"""65504. Source: IEEE 754, binary16."""


def half_scale(scale: NDArray[np.float32] | np.float32) -> NDArray[np.float32] | np.float32:
    """Returns the nearest positive scale that FP16 holds, as float32.

    Weights are quantized with the rounded scale, so that its rounding is no error of theirs.

    Raises:
        QuantizationError: a scale is beyond FP16's largest number.
    """
    if np.max(scale) > LARGEST_FP16:
        raise QuantizationError(
            f"A scale of {np.max(scale):g} overflows FP16 (largest {LARGEST_FP16}). "
            "Keep the float layers in FP32: --float-layers fp32."
        )
    rounded = np.maximum(np.asarray(scale).astype(np.float16), _SMALLEST)
    return rounded.astype(np.float32)


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with every FP32 initializer in FP16 and Casts at input and output.

    Raises:
        QuantizationError: weights, biases or scales overflow FP16; the message names them all.
    """
    typed = _with_fp16_qdq(model)
    graph = typed.graph
    floats = [tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT]
    _check_range(floats)
    for tensor in floats:
        tensor.CopyFrom(_half(tensor))
    del graph.value_info[:]
    _cast_input(graph)
    _cast_output(graph)
    onnx.checker.check_model(typed)
    return typed


def _with_fp16_qdq(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of an opset whose Q/DQ, if the model has any, take FP16."""
    quantized = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    if quantized and opset_of(model) < QDQ_OPSET:
        raised = onnx.version_converter.convert_version(model, QDQ_OPSET)
        raised.ir_version = _QDQ_IR_VERSION
        return normalized(raised)
    return normalized(model)


def _check_range(tensors: Iterable[TensorProto]) -> None:
    """Refuses values that FP16 cannot hold, all of them in one sentence."""
    reached = {tensor.name: _largest(tensor) for tensor in tensors}
    beyond = {name: value for name, value in reached.items() if not value <= LARGEST_FP16}
    if beyond:
        raise QuantizationError(
            f"{', '.join(f'{name!r} holds {value:g}' for name, value in beyond.items())}, beyond "
            f"FP16's largest number {LARGEST_FP16}. "
            "Build with --precision fp32, or int8 with --float-layers fp32."
        )


def _largest(tensor: TensorProto) -> float:
    return float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0))


def _half(tensor: TensorProto) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    return numpy_helper.from_array(values.astype(np.float16), tensor.name)


def _cast_input(graph: onnx.GraphProto) -> None:
    constants = {tensor.name for tensor in graph.initializer}
    name = next(value.name for value in graph.input if value.name not in constants)
    for node in graph.node:
        for index, source in enumerate(node.input):
            if source == name:
                node.input[index] = name + "/fp16"
    cast = helper.make_node(
        "Cast", [name], [name + "/fp16"], name=name + "/fp16", to=TensorProto.FLOAT16
    )
    graph.node.insert(0, cast)


def _cast_output(graph: onnx.GraphProto) -> None:
    name = graph.output[0].name
    for node in graph.node:
        for index, made in enumerate(node.output):
            if made == name:
                node.output[index] = name + "/fp16"
    graph.node.append(
        helper.make_node("Cast", [name + "/fp16"], [name], name=name, to=TensorProto.FLOAT)
    )

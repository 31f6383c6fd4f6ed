"""The FP16-typed form of a model, with or without Q/DQ, for strongly typed networks.

Input and output stay FP32 behind a Cast, so that every runner feeds the same arrays. On ONNX
Runtime it runs by its FP32 form, `computed_in_fp32`: FP16 QuantizeLinear has been wrong there
(onnxruntime issue 22741).
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array, to_array

from edgeres.errors import QuantizationError
from edgeres.onnx_file import opset_of
from edgeres.quantization.graph import normalized

QDQ_OPSET = 19
"""First opset whose QuantizeLinear takes FP16. Source: ONNX operator QuantizeLinear."""

_QDQ_IR_VERSION = 9
"""The IR that opset 19 came with. Source: ONNX versioning table."""

SMALLEST_FP16 = 2.0**-24
"""Smallest positive number of FP16, and the step between its subnormal ones. Source: IEEE 754,
binary16."""

LEAST_NORMAL_FP16 = 2.0**-14
"""Below it FP16 has fewer than 11 bits. Source: IEEE 754, binary16."""

LARGEST_FP16 = float(np.finfo(np.float16).max)
"""65504. Source: IEEE 754, binary16."""

_LEAST_OF_SCALE = 1 - 0.5 / 127
"""Fraction of a scale from which on its 127 steps leave out less than half a step."""


def half_scale(scale: NDArray[np.float32] | np.float32) -> NDArray[np.float32] | np.float32:
    """Returns the nearest positive scale that FP16 holds, as float32.

    Weights are quantized with the rounded scale, so that its rounding is no error of theirs. Among
    the subnormal numbers, which are far apart, the next larger one where the nearest would clip:
    fewer levels cost less than the largest weights.

    Raises:
        QuantizationError: a scale is beyond FP16's largest number.
    """
    if np.max(scale) > LARGEST_FP16:
        raise QuantizationError(
            f"A scale of {np.max(scale):g} overflows FP16 (largest {LARGEST_FP16}). "
            "Keep the float layers in FP32: --float-layers fp32."
        )
    halves = np.maximum(np.asarray(scale).astype(np.float16), np.float16(SMALLEST_FP16))
    clips = halves.astype(np.float32) < np.asarray(scale) * np.float32(_LEAST_OF_SCALE)
    # Only subnormal numbers are so far apart, and the largest has no next one.
    above = np.nextafter(np.minimum(halves, np.float16(LEAST_NORMAL_FP16)), np.float16(1))
    halves = np.where(clips, above, halves)
    rounded: NDArray[np.float32] | np.float32 = halves.astype(np.float32)
    return rounded


def at_opset(model: onnx.ModelProto, least: int) -> onnx.ModelProto:
    """Returns the model with the opset of typed Q/DQ or a later one of its own."""
    if opset_of(model) >= least:
        return model
    raised = onnx.version_converter.convert_version(model, least)
    # The converter raises the opset alone; the checker wants an IR that knows it.
    raised.ir_version = _QDQ_IR_VERSION
    return raised


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with every FP32 initializer in FP16 and Casts at input and output.

    Raises:
        QuantizationError: weights, biases or scales overflow FP16; the message names them all.
    """
    quantized = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    if quantized:
        model = at_opset(model, QDQ_OPSET)
    typed = normalized(model)
    graph = typed.graph
    floats = [tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT]
    extremes = {t.name: float(np.abs(to_array(t)).max(initial=0.0)) for t in floats}
    # Not `extreme > LARGEST_FP16`, which NaN is not.
    beyond = {name: value for name, value in extremes.items() if not value <= LARGEST_FP16}
    if beyond:
        raise QuantizationError(
            f"{', '.join(f'{name!r} holds {value:g}' for name, value in beyond.items())}, beyond "
            f"FP16's largest number {LARGEST_FP16}. "
            "Build with --precision fp32, or int8 with --float-layers fp32."
        )
    for tensor in floats:
        tensor.CopyFrom(from_array(to_array(tensor).astype(np.float16), tensor.name))
    # Shapes that the file carries name FP32.
    del graph.value_info[:]
    constants = {tensor.name for tensor in graph.initializer}
    image = next(value.name for value in graph.input if value.name not in constants)
    logits = graph.output[0].name
    for node in graph.node:
        for names, outer in ((node.input, image), (node.output, logits)):
            for index, name in enumerate(names):
                if name == outer:
                    names[index] = name + "/fp16"
    graph.node.insert(0, _cast(image, image + "/fp16", TensorProto.FLOAT16))
    graph.node.append(_cast(logits + "/fp16", logits, TensorProto.FLOAT))
    onnx.checker.check_model(typed)
    return typed


def _cast(source: str, output: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [output], name=output, to=to)

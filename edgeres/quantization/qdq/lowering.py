"""TensorRT's lowering: symmetric Q/DQ, zero point 0, float bias, the shortcut rule on Add.

Nothing stands between a convolution and its ReLU, between the main branch's last convolution
and the Add, on a bias or on the network's output. Readers of one tensor share one Q/DQ pair,
so a block's input that feeds both branches has one scale. Source: NVIDIA TensorRT developer
guide, "Working with Quantized Types", placement recommendations.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeres.core.methods import Method
from edgeres.core.table import CalibrationTable
from edgeres.quantization.emit import Emitter
from edgeres.quantization.fp16.typed import half_scale
from edgeres.quantization.graph import Graph
from edgeres.quantization.grids import INT8, UINT8
from edgeres.quantization.placement import Placement


def lower_for_tensorrt(
    graph: Graph,
    placement: Placement,
    table: CalibrationTable,
    method: Method | None = None,
    *,
    fp16_scales: bool = False,
    unsigned: bool = False,
) -> onnx.ModelProto:
    """Returns the FP32 model with Q/DQ pairs where the placement has them.

    Args:
        graph: the FP32 model that the table was made from.
        placement: edges and weights to quantize.
        table: thresholds of its activations.
        method: which thresholds to use; None takes the table's own.
        fp16_scales: round every scale to one that FP16 holds, because `to_fp16` follows.
        unsigned: give what is never negative the unsigned grid, which TensorRT does not have, to
            simulate another target's placement.

    Raises:
        ArtifactError: the table lacks a tensor.
        QuantizationError: a scale overflows FP16.
    """
    out = Emitter(graph)
    quantized = {(edge.node, edge.index) for edge in placement.edges}
    # Readers of one tensor share its pair.
    pairs: dict[str, str] = {}
    zero_point: np.int8 | np.uint8
    for node in graph.nodes:
        inputs = list(node.input)
        for index, tensor in enumerate(node.input):
            if (node.name, index) not in quantized:
                continue
            if tensor not in pairs:
                threshold = table.threshold(graph.root(tensor), method)
                if unsigned and threshold.u8 is not None:
                    zero_point, scale = np.uint8(0), UINT8.scale_from_amax(threshold.u8)
                else:
                    zero_point, scale = np.int8(0), INT8.scale_from_amax(threshold.s8)
                    scale = np.float32(half_scale(scale)) if fp16_scales else scale
                pairs[tensor] = _activation_pair(out, tensor, scale, zero_point)
            inputs[index] = pairs[tensor]
        if node.name in placement.weighted:
            # The file holds the INT8 weight alone: the float one is left out with its last reader.
            weight = graph.weights.quantized(
                node.name,
                partial(_weight, graph, node),
                _half_scales if fp16_scales else lambda scales: scales,
            )
            parameters = [
                out.constant(node.name + "/weight_s8", weight.values),
                out.constant(node.name + "/weight_scale", weight.scales),
                out.constant(node.name + "/weight_zero", np.zeros(len(weight.scales), np.int8)),
            ]
            inputs[1] = out.node("DequantizeLinear", parameters, parameters[0] + "/dq", axis=0)
        out.copy(node, inputs, node.output)
    return out.model()


def _weight(graph: Graph, node: onnx.NodeProto) -> NDArray[np.float32]:
    return np.asarray(graph.constant(node.input[1]), np.float32)


def _half_scales(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(half_scale(scales))


def _activation_pair(
    out: Emitter, tensor: str, scale: np.float32, zero_point: np.int8 | np.uint8
) -> str:
    parameters = [
        out.constant(tensor + "/scale", scale),
        out.constant(tensor + "/zero_point", zero_point),
    ]
    quantized = out.node("QuantizeLinear", [tensor, *parameters], tensor + "/q")
    return out.node("DequantizeLinear", [quantized, *parameters], tensor + "/dq")

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
from onnx.helper import make_tensor
from onnx.numpy_helper import from_array

from edgeres.core.methods import Method
from edgeres.core.table import CalibrationTable
from edgeres.quantization.emit import Emitter
from edgeres.quantization.fp16.typed import half_scale
from edgeres.quantization.graph import Graph
from edgeres.quantization.grids import E4M3, INT8, UINT8, Grid, e4m3_codes
from edgeres.quantization.placement import Placement
from edgeres.quantization.qdq.exact_pixels import ExactPixels
from edgeres.quantization.thresholds import threshold_of
from edgeres.quantization.weights import by_channel, mse_weight_scales


def lower_for_tensorrt(
    graph: Graph,
    placement: Placement,
    table: CalibrationTable,
    method: Method | None = None,
    *,
    grid: Grid = INT8,
    fp16_scales: bool = False,
    unsigned: bool = False,
    pixels: ExactPixels | None = None,
    raw: bool = False,
) -> onnx.ModelProto:
    """Returns the FP32 model with Q/DQ pairs where the placement has them.

    Args:
        graph: the FP32 model that the table was made from; for FP8 of opset 19 or later.
        placement: edges and weights to quantize.
        table: thresholds of its activations.
        method: which thresholds to use; None takes the table's own.
        grid: of weights and activations, INT8 or E4M3.
        fp16_scales: round every scale to one that FP16 holds, because `to_fp16` follows.
        unsigned: give what is never negative the unsigned grid, which TensorRT does not have, to
            simulate another target's placement.
        pixels: how the first convolution takes pixels as they are; None rounds the image.
        raw: whether the network is to be fed pixels then, and not normalised values.

    Raises:
        ArtifactError: the table lacks a tensor, or its thresholds for FP8.
        QuantizationError: a scale overflows FP16.
    """
    out = Emitter(graph)
    quantized = {(edge.node, edge.index) for edge in placement.edges}
    # Readers of one tensor share its pair.
    pairs: dict[str, str] = {}
    for node in graph.nodes:
        inputs = list(node.input)
        for index, tensor in enumerate(node.input):
            is_stem = pixels is not None and node.name == pixels.stem.name
            if (node.name, index) not in quantized or is_stem:
                continue
            if tensor not in pairs:
                root = graph.root(tensor)
                u8 = table.threshold(root, method).u8
                tensor_grid = UINT8 if unsigned and u8 is not None else grid
                scale = tensor_grid.scale_from_amax(threshold_of(table, root, method, tensor_grid))
                scale = np.float32(half_scale(scale)) if fp16_scales else scale
                pairs[tensor] = _activation_pair(out, tensor, scale, tensor_grid)
            inputs[index] = pairs[tensor]
        if pixels is not None and node.name == pixels.stem.name:
            inputs = pixels.emit(out, graph, node, fp16_scales=fp16_scales, raw=raw)
            out.copy(node, inputs, node.output, pads=(0, 0, 0, 0))
            continue
        if node.name in placement.weighted:
            # The file holds the low-precision weight alone: the float one is left out with its last
            # reader.
            parameters = [
                *_weight_parameters(out, graph, node, grid, fp16_scales=fp16_scales),
            ]
            inputs[1] = out.node("DequantizeLinear", parameters, parameters[0] + "/dq", axis=0)
        out.copy(node, inputs, node.output)
    return out.model()


def _weight(graph: Graph, node: onnx.NodeProto) -> NDArray[np.float32]:
    return np.asarray(graph.constant(node.input[1]), np.float32)


def _half_scales(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(half_scale(scales))


def _weight_parameters(
    out: Emitter, graph: Graph, node: onnx.NodeProto, grid: Grid, *, fp16_scales: bool
) -> list[str]:
    """Returns the names of a weight on a grid, its scales and its zero points."""
    round_scales = _half_scales if fp16_scales else lambda scales: scales
    if grid is INT8:
        quantized = graph.weights.quantized(node.name, partial(_weight, graph, node), round_scales)
        return [
            out.constant(node.name + "/weight_s8", quantized.values),
            out.constant(node.name + "/weight_scale", quantized.scales),
            out.constant(node.name + "/weight_zero", np.zeros(len(quantized.scales), np.int8)),
        ]
    weight = _weight(graph, node)
    scales = round_scales(mse_weight_scales(weight, 0, grid))
    steps = grid.nearest(weight / by_channel(scales, weight.ndim))
    return [
        out.stored(_low_precision(node.name + "/weight_e4m3", steps, grid)),
        out.constant(node.name + "/weight_scale", scales),
        out.stored(_low_precision(node.name + "/weight_zero", np.zeros_like(scales), grid)),
    ]


def _activation_pair(out: Emitter, tensor: str, scale: np.float32, grid: Grid) -> str:
    parameters = [
        out.constant(tensor + "/scale", scale),
        out.stored(_low_precision(tensor + "/zero_point", np.zeros((), np.float32), grid)),
    ]
    quantized = out.node("QuantizeLinear", [tensor, *parameters], tensor + "/q")
    return out.node("DequantizeLinear", [quantized, *parameters], tensor + "/dq")


def _low_precision(name: str, steps: NDArray[np.float32], grid: Grid) -> onnx.TensorProto:
    """Returns numbers of a grid in its own type."""
    if grid is not E4M3:
        return from_array(steps.astype(np.uint8 if grid is UINT8 else np.int8), name)
    kind, codes = onnx.TensorProto.FLOAT8E4M3FN, e4m3_codes(steps)
    return make_tensor(name, kind, steps.shape, codes.tobytes(), raw=True)

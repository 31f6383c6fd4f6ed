"""The CPU's lowering: u8 activations, every operator that has one on its integer kernel.

ONNX Runtime's s8 kernels are three to four times slower than its u8 ones, so a tensor with a
sign is u8 with zero point 128, value for value the same as s8 with zero point 0; behind a ReLU
it is u8 with zero point 0, which has twice the levels and does the ReLU by saturating, so the
ReLU itself is dropped. Pooling, slicing and padding move integers. Between integers stand
QuantizeLinear and DequantizeLinear, which ONNX Runtime fuses with the operator between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeres.errors import ArtifactError
from edgeres.quantize.emit import Emitter
from edgeres.quantize.graph import Graph, is_pass_through
from edgeres.quantize.methods import SIGNED_LEVELS, UNSIGNED_LEVELS, scale_of
from edgeres.quantize.placement import activation_inputs, held_tensors, refusal, result_of
from edgeres.quantize.stem import FOLD, FoldedStem, fold_stem
from edgeres.quantize.weights import (
    QuantizedWeight,
    least_weight_scales,
    quantize_bias,
    quantize_weight,
    weight_scales,
)
from edgeres.spec import Method
from edgeres.table import CalibrationTable


@dataclass(frozen=True, slots=True)
class _Grid:
    """Scale and zero point of a u8 tensor; initializers are named after its root."""

    scale: np.float32
    zero_point: np.uint8
    root: str


class _CpuLowering:
    """One pass over the graph; `_integer` maps each held tensor to its u8 name once made."""

    def __init__(self, graph: Graph, table: CalibrationTable, method: Method | None) -> None:
        self._graph = graph
        self._table = table
        self._method = method
        self._out = Emitter(graph)
        self._held = held_tensors(graph)
        self._stem = graph.only_consumer(graph.input)
        self._folded = _folded_stem(graph, self._stem)
        self._integer: dict[str, str] = {}
        self._reads = 0

    def run(self) -> onnx.ModelProto:
        """Returns the lowered model."""
        self._store(self._graph.input, self._image())
        absorbed = set()
        for node in self._graph.nodes:
            if node.output[0] in absorbed:
                continue
            if refusal(self._graph, node) is None:
                result = result_of(self._graph, node)
                if result != node.output[0] and result in self._held:
                    absorbed.add(result)
                self._emit_integer(node, result if result in self._held else node.output[0])
            elif is_pass_through(self._graph, node) and node.output[0] in self._held:
                self._emit_pass_through(node)
            else:
                self._emit_float(node)
        return self._out.model()

    def _image(self) -> str:
        """Returns the float image, with squares of pixels in the channels where the stem is folded."""
        image = self._graph.input
        if self._folded is None:
            return image
        return self._out.node("SpaceToDepth", [image], image + "/folded", blocksize=FOLD)

    def _emit_integer(self, node: onnx.NodeProto, result: str) -> None:
        inputs = list(node.input)
        for index in activation_inputs(node):
            inputs[index] = self._load(inputs[index])
        if node.op_type == "Conv":
            inputs[1:] = self._weight_and_bias(node)
        stored = result in self._held
        raw = result + "/float" if stored else result
        folded = self._fold_of(node)
        self._out.copy(node, inputs, [raw], **({} if folded is None else folded.attributes))
        if stored:
            self._store(result, raw)

    def _emit_pass_through(self, node: onnx.NodeProto) -> None:
        """Emits a pool, slice or pad on the integers themselves; zeros become the zero point."""
        source, target = self._integer[node.input[0]], node.output[0]
        inputs = [source, *node.input[1:]]
        if node.op_type == "Pad":
            grid = self._grid(target)
            padding = self._out.constant(grid.root + "/zero_point", grid.zero_point)
            inputs = [source, node.input[1], padding, *node.input[3:]]
        self._integer[target] = target + "/u8"
        self._out.copy(node, inputs, [target + "/u8"])

    def _emit_float(self, node: onnx.NodeProto) -> None:
        load = self._load_by_channel if node.op_type == "Conv" else self._load
        inputs = [load(name) if name in self._integer else name for name in node.input]
        output = node.output[0]
        stored = output in self._held
        raw = output + "/float" if stored else output
        self._out.copy(node, inputs, [raw, *node.output[1:]])
        if stored:
            self._store(output, raw)

    def _store(self, tensor: str, raw: str) -> None:
        """Quantizes the float tensor `raw` as the value of `tensor`."""
        if tensor in self._held:
            self._integer[tensor] = self._out.node(
                "QuantizeLinear", [raw, *self._parameters(tensor)], tensor + "/u8"
            )

    def _load(self, tensor: str) -> str:
        """Returns a float name of `tensor` for one reader: fusions want a node for each."""
        if tensor not in self._integer:
            return tensor
        self._reads += 1
        name = f"{tensor}/dq{self._reads}"
        inputs = [self._integer[tensor], *self._parameters(tensor)]
        return self._out.node("DequantizeLinear", inputs, name)

    def _load_by_channel(self, tensor: str) -> str:
        """Returns a float name of `tensor` for a convolution that is kept in float.

        ONNX Runtime quantizes the weights of any convolution between a DequantizeLinear and a
        QuantizeLinear by itself, in its own way, unless the first has a scale for each channel.
        Source: onnxruntime, WeightBiasQuantization, pull request 22969.
        """
        self._reads += 1
        grid, channels = self._grid(tensor), self._graph.shapes[tensor][0]
        parameters = [
            self._out.constant(f"{tensor}/scales", np.full(channels, grid.scale)),
            self._out.constant(f"{tensor}/zero_points", np.full(channels, grid.zero_point)),
        ]
        inputs = [self._integer[tensor], *parameters]
        return self._out.node("DequantizeLinear", inputs, f"{tensor}/dq{self._reads}", axis=1)

    def _weight_and_bias(self, node: onnx.NodeProto) -> list[str]:
        weight = np.asarray(self._graph.constant(node.input[1]), np.float32)
        input_scale = self._grid(node.input[0]).scale
        has_bias = len(node.input) > 2 and bool(node.input[2])
        bias = np.zeros(len(weight), np.float32)
        if has_bias:
            bias = np.asarray(self._graph.constant(node.input[2]), np.float32)
        least = least_weight_scales(bias, float(input_scale))
        scales = np.maximum(weight_scales(weight, axis=0), least)
        quantized = quantize_weight(weight, scales, axis=0)
        parameters = [
            self._out.constant(node.name + "/weight_s8", self._stored_weight(node, quantized)),
            self._out.constant(node.name + "/weight_scale", quantized.scales),
            self._out.constant(node.name + "/weight_zero", np.zeros(len(bias), np.int8)),
        ]
        names = [self._dequantized(parameters)]
        if has_bias:
            units = (input_scale * quantized.scales).astype(np.float32)
            parameters = [
                self._out.constant(node.name + "/bias_s32", quantize_bias(bias, units)),
                self._out.constant(node.name + "/bias_scale", units),
                self._out.constant(node.name + "/bias_zero", np.zeros(len(bias), np.int32)),
            ]
            names.append(self._dequantized(parameters))
        return names

    def _stored_weight(self, node: onnx.NodeProto, weight: QuantizedWeight) -> NDArray[np.int8]:
        folded = self._fold_of(node)
        return weight.values if folded is None else folded.weight(weight.values)

    def _fold_of(self, node: onnx.NodeProto) -> FoldedStem | None:
        return self._folded if self._stem is not None and node.name == self._stem.name else None

    def _dequantized(self, parameters: list[str]) -> str:
        return self._out.node("DequantizeLinear", parameters, parameters[0] + "/dq", axis=0)

    def _parameters(self, tensor: str) -> list[str]:
        grid = self._grid(tensor)
        return [
            self._out.constant(grid.root + "/scale", grid.scale),
            self._out.constant(grid.root + "/zero_point", grid.zero_point),
        ]

    def _grid(self, tensor: str) -> _Grid:
        root = self._graph.root(tensor)
        threshold = self._table.threshold(root, self._method)
        if (threshold.u8 is None) is self._graph.is_non_negative(root):
            raise ArtifactError(
                f"The calibration table takes '{root}' for "
                f"{'signed' if threshold.u8 is None else 'unsigned'}, the network makes it "
                "otherwise. It was made by another version of edgeres: run calibrate again."
            )
        if threshold.u8 is None:
            return _Grid(scale_of(threshold.s8, SIGNED_LEVELS), np.uint8(128), root)
        return _Grid(scale_of(threshold.u8, UNSIGNED_LEVELS), np.uint8(0), root)


def _folded_stem(graph: Graph, stem: onnx.NodeProto | None) -> FoldedStem | None:
    """Returns how to fold the operator that alone reads the image, where it can be."""
    image = graph.shapes.get(graph.input)
    if stem is None or image is None or stem.op_type != "Conv" or refusal(graph, stem) is not None:
        return None
    return fold_stem(stem, graph.constants[stem.input[1]].dims[2:], image)


def lower_for_cpu(
    graph: Graph, table: CalibrationTable, method: Method | None = None
) -> onnx.ModelProto:
    """Returns the model lowered for ONNX Runtime's integer kernels.

    Args:
        graph: the FP32 model that the table was made from.
        table: thresholds of its activations.
        method: which thresholds to use; None takes the table's own.

    Raises:
        ArtifactError: the table lacks a tensor, or has the wrong grid for one.
    """
    return _CpuLowering(graph, table, method).run()

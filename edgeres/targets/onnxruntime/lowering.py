"""The CPU's lowering: u8 activations, every operator that has one on its integer kernel.

ONNX Runtime's s8 kernels are three to four times slower than its u8 ones, so a tensor with a
sign is u8 with zero point 128, value for value the same as s8 with zero point 0; behind a ReLU
it is u8 with zero point 0, which has twice the levels and does the ReLU by saturating, so the
ReLU itself is dropped. Pooling, slicing and padding move integers. Between integers stand
QuantizeLinear and DequantizeLinear, which ONNX Runtime fuses with the operator between them.
Values that nothing reads are not computed (`strides.py`), a projection is added in the
accumulator (`joint.py`), a global mean is an exact sum, and the image keeps its pixels
(`pixels.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeres.core.methods import Method
from edgeres.core.table import CalibrationTable
from edgeres.errors import ArtifactError
from edgeres.quantization.emit import Emitter
from edgeres.quantization.graph import Graph, is_pass_through
from edgeres.quantization.grids import INT8, UINT8
from edgeres.quantization.image import image_of
from edgeres.quantization.placement import refusal
from edgeres.quantization.weights import WeightMemory, least_weight_scales, quantize_bias
from edgeres.targets.onnxruntime.joint import affine_of, bias_of, joint_affine, weight_of
from edgeres.targets.onnxruntime.pixels import PixelGrid, pixel_grid
from edgeres.targets.onnxruntime.placement import (
    integer_tensors,
    joined_convolutions,
    result_of,
)
from edgeres.targets.onnxruntime.stem import FOLD, folded_stem
from edgeres.targets.onnxruntime.strides import DENSE, Pair, moved_strides


@dataclass(frozen=True, slots=True)
class U8Grid:
    """Scale and zero point of a u8 tensor; initializers are named after its root."""

    scale: np.float32
    zero_point: np.uint8
    root: str


class _CpuLowering:
    """One pass over the graph; `_integer` maps each stored tensor to its u8 name once emitted."""

    def __init__(
        self, graph: Graph, table: CalibrationTable, method: Method | None, *, raw: bool
    ) -> None:
        self._graph = graph
        self._raw = raw
        self._table = table
        self._method = method
        self._out = Emitter(graph)
        self._stored = integer_tensors(graph)
        self._image = image_of(graph)
        stem = graph.only_consumer(self._image.tensor)
        self._stem = "" if stem is None else stem.name
        self._pixels = pixel_grid(graph, table)
        self._folded = folded_stem(graph) if self._pixels is None else self._pixels.folded
        self._strides = moved_strides(graph)
        self._joined = joined_convolutions(graph)
        self._integer: dict[str, str] = {}
        self._reads = 0

    def run(self) -> onnx.ModelProto:
        """Returns the lowered model."""
        bytes_in = self._raw and self._pixels is not None
        if bytes_in or self._image.tensor == self._graph.input:
            self._emit_image(self._graph.input)
        done = {conv.output[0] for convs in self._joined.values() for conv in convs}
        for node in self._graph.nodes:
            output = node.output[0]
            # The weights take up what is done to the channels of bytes.
            if output in done or (bytes_in and node.name in self._image.arithmetic):
                continue
            if refusal(self._graph, node) is None:
                result = result_of(self._graph, node)
                if result in self._stored:
                    # With zero point 0, saturation does the ReLU: its node is not emitted.
                    done.add(result)
                else:
                    result = output
                self._emit_integer(node, result)
            elif is_pass_through(self._graph, node) and output in self._stored:
                inputs = [self._integer[node.input[0]], *node.input[1:]]
                if node.op_type == "Pad":
                    # It pads with zeros, which as integers are the zero point.
                    grid = self._grid(output)
                    inputs[2:3] = [self._out.constant(grid.root + "/zero_point", grid.zero_point)]
                self._integer[output] = output + "/u8"
                self._out.copy(node, inputs, [output + "/u8"])
            else:
                self._emit_float(node)
        return self._out.model()

    def _emit_image(self, raw: str) -> None:
        """Emits the image as integers: as its pixels where it can be, folded where the stem is.

        Args:
            raw: the bytes that the network is fed, or the image in float.
        """
        image, out, pixels = self._image.tensor, self._out, self._pixels
        if pixels is None:
            self._quantize(image, raw)
        elif self._raw:
            self._integer[image] = self._padded_bytes(pixels, raw)
        else:
            if any(pixels.pads):
                # Zero is another level in each channel, so the stem cannot pad the stored image.
                around = np.array([0, *pixels.pads[:3], 0, *pixels.pads[3:]], np.int64)
                pads = out.constant(image + "/pads", around)
                raw = out.node("Pad", [raw, pads], image + "/padded")
            if pixels.shifts.any():
                shift = out.constant(image + "/shift", pixels.shifts.reshape(-1, 1, 1))
                raw = out.node("Sub", [raw, shift], image + "/shifted")
            parameters = [
                out.constant(image + "/steps", pixels.steps),
                out.constant(image + "/zero_points", pixels.zero_points),
            ]
            self._integer[image] = out.node(
                "QuantizeLinear", [raw, *parameters], image + "/u8", axis=1
            )
        if self._folded is not None:
            self._integer[image] = out.node(
                "SpaceToDepth", [self._integer[image]], image + "/folded", blocksize=FOLD
            )

    def _padded_bytes(self, pixels: PixelGrid, raw: str) -> str:
        """Emits the pixels with the level of zero around them, which each channel has its own of."""
        image, out = self._image.tensor, self._out
        spare, around = pixels.pads[3], (0, 0, *pixels.pads[1:3], 0, 0, *pixels.pads[4:])
        if not any(pixels.pads):
            return raw
        channels = len(pixels.steps) - spare
        planes = [raw]
        if channels > 1:
            planes = [f"{image}/pixels{channel}" for channel in range(channels)]
            out.split(raw, planes)
        amounts = out.constant(image + "/pads", np.array(around, np.int64))
        padded = [
            out.node(
                "Pad",
                [plane, amounts, out.constant(f"edgeres_u8_{level}", level)],
                f"{image}/padded{channel}",
            )
            for channel, (plane, level) in enumerate(
                zip(planes, pixels.zero_points[:channels], strict=True)
            )
        ]
        if spare:
            more = out.constant(
                image + "/edgeres_spare", np.array([0] * 5 + [spare, 0, 0], np.int64)
            )
            padded[-1] = out.node("Pad", [padded[-1], more], image + "/padded")
        return padded[0] if len(padded) == 1 else out.node("Concat", padded, image + "/u8", axis=1)

    def _emit_integer(self, node: onnx.NodeProto, result: str) -> None:
        """Emits an operator with an integer kernel and stores its result where integers are read."""
        raw = result + "/float" if result in self._stored else result
        if node.op_type == "Conv":
            source, bias = node.input[0], bias_of(self._graph, node)
            grid, weights = self._grid(source), self._graph.weights
            read = partial(weight_of, self._graph, node)
            attributes: dict[str, Any] = {"strides": self._strides.of(node)}
            if node.name == self._stem and self._pixels is not None:
                # The weights take up what a level is worth, and the image has the padding.
                grid = U8Grid(np.float32(1), np.uint8(0), source + "/pixels")
                affine = self._pixels.affine(affine_of(self._graph, node))
                bias = affine.bias
                read, weights = partial(np.asarray, affine.weight), WeightMemory()
                attributes["pads"] = (0, 0, 0, 0)
            if node.name == self._stem and self._folded is not None:
                attributes = self._folded.attributes
            parameters = self._quantized(node.name, read, bias, grid.scale, weights)
            activation = self._dequantized(self._integer[source], grid)
            self._out.copy(node, [activation, *parameters], [raw], **attributes)
        elif node.op_type == "GlobalAveragePool":
            self._emit_mean(node, raw)
        elif node.name in self._joined:
            self._emit_joint(node, raw)
        else:
            inputs = []
            for index, source in enumerate(node.input):
                strides = self._strides.additions.get((node.name, index), DENSE)
                inputs.append(self._dequantized(self._thinned(source, strides), self._grid(source)))
            self._out.copy(node, inputs, [raw])
        self._store(result, raw)

    def _emit_joint(self, add: onnx.NodeProto, raw: str) -> None:
        """Emits an addition and the two convolutions before it as one."""
        convs = self._joined[add.name]
        sources = [conv.input[0] for conv in convs]
        grids = [self._grid(source) for source in sources]
        affine = joint_affine(
            [affine_of(self._graph, conv) for conv in convs], [grid.scale for grid in grids]
        )
        stored = [
            self._thinned(source, self._strides.of(conv))
            for source, conv in zip(sources, convs, strict=True)
        ]
        # The scales are in the weights, so the integers of both sources stand side by side in
        # units of 1; `joined_convolutions` sees to it that both have one zero point.
        unit = U8Grid(np.float32(1), grids[0].zero_point, add.name + "/joint")
        joint = self._out.node("Concat", stored, unit.root, axis=1)
        sources_side_by_side = self._dequantized(joint, unit)
        # The weights hold the scales of this table, so none are shared with other networks.
        parameters = self._quantized(
            add.name, partial(np.asarray, affine.weight), affine.bias, unit.scale, WeightMemory()
        )
        inputs = [sources_side_by_side, *parameters]
        self._out.node("Conv", inputs, raw, name=add.name, kernel_shape=(1, 1))

    def _emit_mean(self, node: onnx.NodeProto, raw: str) -> None:
        """Emits a global mean as an exact sum of integers, which no 8 bits have to hold."""
        source = node.input[0]
        grid, (channels, *size) = self._grid(source), self._graph.shapes[source]
        pixels = int(np.prod(size))
        # A tensor may have the operator's name, and then adds names of its own after it.
        out = self._out
        root = node.name + "/mean" if node.name in self._graph.producers else node.name
        # MatMulInteger sums over the last axis but one: a row of ones times (pixels, channels).
        rows = out.node("Transpose", [self._integer[source]], root + "/nhwc", perm=(0, 2, 3, 1))
        rows = out.node("Reshape", [rows, out.shape(0, pixels, channels)], root + "/rows")
        ones = out.constant(f"ones/{pixels}", np.ones((1, pixels), np.uint8))
        terms = [ones, rows, "", out.constant(grid.root + "/zero_point", grid.zero_point)]
        total = out.node("MatMulInteger", terms, root + "/sum", name=node.name)
        # Not DequantizeLinear: ONNX Runtime would carry it over the Reshape, as one of u8.
        levels = out.node("Cast", [total], root + "/float", to=onnx.TensorProto.FLOAT)
        unit = out.constant(root + "/unit", np.float32(grid.scale / np.float32(pixels)))
        mean = out.node("Mul", [levels, unit], root + "/mean")
        out.node("Reshape", [mean, out.shape(0, channels, *[1] * len(size))], raw)

    def _emit_float(self, node: onnx.NodeProto) -> None:
        """Emits an operator that stays in float, with what it reads of the integers as float."""
        out, inputs = self._out, []
        for name in node.input:
            if name not in self._integer:
                inputs.append(name)
                continue
            grid = self._grid(name)
            if node.op_type != "Conv":
                inputs.append(self._dequantized(self._integer[name], grid))
                continue
            # ONNX Runtime quantizes the weights of any convolution between a DequantizeLinear and
            # a QuantizeLinear by itself, in its own way, unless the first has a scale for each
            # channel. Source: onnxruntime, WeightBiasQuantization, pull request 22969.
            self._reads += 1
            channels = self._graph.shapes[name][0]
            scales = out.constant(f"{name}/scales", np.full(channels, grid.scale))
            zeros = out.constant(f"{name}/zero_points", np.full(channels, grid.zero_point))
            read = f"{name}/dq{self._reads}"
            out.node("DequantizeLinear", [self._integer[name], scales, zeros], read, axis=1)
            inputs.append(read)
        output = node.output[0]
        raw = output + "/float" if output in self._stored else output
        out.copy(node, inputs, [raw, *node.output[1:]])
        self._store(output, raw)

    def _store(self, tensor: str, raw: str) -> None:
        """Stores the float tensor `raw` as the value of `tensor`, where integers are wanted."""
        if tensor == self._image.tensor:
            self._emit_image(raw)
        else:
            self._quantize(tensor, raw)

    def _quantize(self, tensor: str, raw: str) -> None:
        if tensor in self._stored:
            self._integer[tensor] = self._out.node(
                "QuantizeLinear", [raw, *self._parameters(self._grid(tensor))], tensor + "/u8"
            )

    def _thinned(self, tensor: str, strides: Pair) -> str:
        """Returns the integers of `tensor` at every n-th row and column."""
        stored = self._integer[tensor]
        if strides == DENSE:
            return stored
        self._reads += 1
        name = f"{tensor}/thinned{self._reads}"
        return self._out.node("MaxPool", [stored], name, kernel_shape=(1, 1), strides=strides)

    def _dequantized(self, stored: str, grid: U8Grid) -> str:
        """Returns a float name of integers for one reader: fusions want a node for each."""
        self._reads += 1
        name = f"{grid.root}/dq{self._reads}"
        return self._out.node("DequantizeLinear", [stored, *self._parameters(grid)], name)

    def _quantized(
        self,
        name: str,
        read: Callable[[], NDArray[np.float32]],
        bias: NDArray[np.float32] | None,
        input_scale: np.float32,
        weights: WeightMemory,
    ) -> list[str]:
        """Returns float names of a quantized weight and, where there is one, of its bias."""
        # A nearly dead channel takes a coarser scale, so that its bias fits int32.
        least = np.zeros(1) if bias is None else least_weight_scales(bias, float(input_scale))
        weight = weights.quantized(
            name, read, lambda scales: np.maximum(scales, least.astype(np.float32))
        )
        values, scales = weight.values, weight.scales
        if name == self._stem and self._folded is not None:
            values = self._folded.weight(values)
        names = [self._by_channel(name + "/weight", values, scales)]
        if bias is None:
            return names
        if name == self._stem and self._pixels is not None:
            # Of the rounded weights: what zero lies off level 0 is then taken off exactly.
            bias = self._pixels.bias(bias, weight)
        units = (input_scale * scales).astype(np.float32)
        return [*names, self._by_channel(name + "/bias", quantize_bias(bias, units), units)]

    def _by_channel(
        self, root: str, values: NDArray[np.signedinteger[Any]], scales: NDArray[np.float32]
    ) -> str:
        """Returns a float name of integers with a scale for each output channel."""
        parameters = [
            self._out.constant(f"{root}_s{8 * values.itemsize}", values),
            self._out.constant(root + "_scale", scales),
            self._out.constant(root + "_zero", np.zeros(len(scales), values.dtype)),
        ]
        return self._out.node("DequantizeLinear", parameters, parameters[0] + "/dq", axis=0)

    def _parameters(self, grid: U8Grid) -> list[str]:
        return [
            self._out.constant(grid.root + "/scale", grid.scale),
            self._out.constant(grid.root + "/zero_point", grid.zero_point),
        ]

    def _grid(self, tensor: str) -> U8Grid:
        return activation_grid(self._graph, self._table, tensor, self._method)


def activation_grid(
    graph: Graph, table: CalibrationTable, tensor: str, method: Method | None = None
) -> U8Grid:
    """Returns the grid that the CPU keeps a tensor on.

    Raises:
        ArtifactError: the table lacks the tensor, or takes its sign for another one.
    """
    root = graph.root(tensor)
    threshold = table.threshold(root, method)
    if (threshold.u8 is None) is graph.is_non_negative(root):
        raise ArtifactError(
            f"The calibration table takes '{root}' for "
            f"{'signed' if threshold.u8 is None else 'unsigned'}, the network makes it "
            "otherwise. Another version of edgeres wrote it: run calibrate again."
        )
    if threshold.u8 is None:
        # s8 with zero point 0, moved by 128: the same values on the faster u8 kernels.
        return U8Grid(INT8.scale_from_amax(threshold.s8), np.uint8(128), root)
    return U8Grid(UINT8.scale_from_amax(threshold.u8), np.uint8(0), root)


def lower_for_cpu(
    graph: Graph, table: CalibrationTable, method: Method | None = None, *, raw: bool = False
) -> onnx.ModelProto:
    """Returns the model lowered for ONNX Runtime's integer kernels.

    Args:
        graph: the FP32 model that the table was made from.
        table: thresholds of its activations.
        method: which thresholds to use; None takes the table's own.
        raw: whether it is to be fed bytes where the image keeps its pixels.

    Raises:
        ArtifactError: the table lacks a tensor, or has the wrong grid for one.
    """
    return _CpuLowering(graph, table, method, raw=raw).run()

"""A network with signed Q/DQ pairs on ONNX Runtime's integer kernels: another target's, simulated.

ONNX Runtime fuses what stands between DequantizeLinear and QuantizeLinear into fast kernels only for
u8 activations, so signed integers are moved by 128, and behind a ReLU kept as u8 that ends at 127.
Each convolution sums in int32, which is exact:

- where a QuantizeLinear follows, the sum is rounded to 8 bits by the kernel; its bias is an integer
  in the unit of the sum, hundreds of which are one step of the result;
- where none follows, as before TensorRT's Add, the sum is scaled and its bias added in float32.

What matches neither stays as it is. On ResNet-50 an inference takes a third of the time of the same
network in float. A value that lies within rounding of half a step may fall on the other side, as
it may in any two orders of summation.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeres.machine import int8_may_saturate
from edgeres.quantization.emit import Emitter
from edgeres.quantization.graph import Graph, attribute, integers, view_of_normalized
from edgeres.quantization.grids import INT8
from edgeres.quantization.weights import bias_fits, quantize_bias

_FUSED = "com.microsoft"
"""Domain of ONNX Runtime's own operators."""

_OFFSET = 128
_NHWC = (0, 2, 3, 1)
_NCHW = (0, 3, 1, 2)


@dataclass(frozen=True, slots=True, eq=False)
class _Rounding:
    """A QuantizeLinear, with the ReLU and the pooling that it is moved in front of."""

    node: onnx.NodeProto
    relu: onnx.NodeProto | None
    pool: onnx.NodeProto | None
    non_negative: bool

    @property
    def source(self) -> str:
        """The tensor that is rounded."""
        first = self.relu or self.pool or self.node
        return str(first.input[0])

    @property
    def zero_point(self) -> int:
        """The integer that zero is stored as."""
        return 0 if self.non_negative else _OFFSET


@dataclass(frozen=True, slots=True, eq=False)
class _Convolution:
    """A convolution of integers, and what its operands are."""

    node: onnx.NodeProto
    activation: str
    """Integers of what it reads."""
    rounding: _Rounding
    scale: np.float32
    weight: NDArray[np.int8]
    weight_scales: NDArray[np.float32]
    weight_parameters: tuple[str, ...]
    bias: NDArray[np.float32]

    @property
    def units(self) -> NDArray[np.float32]:
        """What one unit of its sums is worth, by output channel."""
        return (self.scale * self.weight_scales).astype(np.float32)

    @property
    def is_product(self) -> bool:
        """Whether it is a product of matrices, pixel by pixel."""
        dense = all(
            set(integers(self.node, name, (only,))) == {only}
            for name, only in (("strides", 1), ("pads", 0))
        )
        return (
            self.weight.shape[2:] == (1, 1)
            and dense
            and attribute(self.node, "group") in (None, 1)
            and attribute(self.node, "auto_pad") in (None, b"NOTSET", b"VALID")
        )


def on_integer_kernels(
    model: onnx.ModelProto, non_negative: Set[str] = frozenset()
) -> onnx.ModelProto:
    """Returns a network that computes what `model` does, on integer kernels where there are some.

    Args:
        model: with QuantizeLinear and DequantizeLinear on the signed grid, zero point 0; all of a
            network or a part of one.
        non_negative: tensors that are never negative, beside those that this shows of `model`.
    """
    return _Kernels(view_of_normalized(model), non_negative).run()


class _Kernels:
    """One pass over the graph; tensors keep their names, integers become u8."""

    def __init__(self, graph: Graph, non_negative: Set[str]) -> None:
        self._graph = graph
        self._outputs = {value.name for value in graph.model.graph.output}
        self._out = Emitter(graph, domains=(_FUSED,))
        self._roundings = {
            str(n.output[0]): _rounding(graph, n, non_negative)
            for n in graph.nodes
            if _is_signed(graph, n)
        }
        convolutions = (self._convolution(node) for node in graph.nodes if node.op_type == "Conv")
        self._convolutions = {conv.node.name: conv for conv in convolutions if conv is not None}
        before = {r.source: r for r in self._roundings.values()}
        # Fused with the rounding behind it where that alone reads the convolution.
        self._rounded = {
            name
            for name, conv in self._convolutions.items()
            if conv.node.output[0] in before
            and graph.only_consumer(conv.node.output[0]) is not None
            and bias_fits(conv.bias, conv.units)
        }
        moved = (n for r in self._roundings.values() for n in (r.relu, r.pool) if n is not None)
        self._moved = {node.name for node in moved}

    def run(self) -> onnx.ModelProto:
        """Returns the network."""
        graph, out = self._graph, self._out
        for node in graph.nodes:
            conv = self._convolutions.get(node.name)
            if node.name in self._moved:
                continue
            if node.op_type == "QuantizeLinear" and node.output[0] in self._roundings:
                self._emit_rounding(self._roundings[node.output[0]])
            elif conv is not None and node.name in self._rounded:
                self._emit_rounded(conv)
            elif conv is not None and conv.is_product:
                self._emit_product(conv)
            elif conv is not None:
                self._emit_sum(conv)
            elif node.op_type == "DequantizeLinear":
                readers = graph.consumers.get(node.output[0], ())
                # Each integer convolution has a pair of its own, or reads the integers.
                integer = all(reader.name in self._convolutions for reader in readers)
                if integer and node.output[0] not in self._outputs:
                    continue
                rounding = self._roundings.get(node.input[0])
                zero = list(node.input[2:]) if rounding is None else [self._zero(rounding)]
                out.copy(node, [*node.input[:2], *zero], node.output)
            else:
                out.copy(node, node.input, node.output)
        return out.model()

    def _convolution(self, node: onnx.NodeProto) -> _Convolution | None:
        """Returns a convolution whose operands are integers; None for another."""
        graph = self._graph
        pair, weights = (graph.producers.get(name) for name in node.input[:2])
        if pair is None or weights is None or weights.op_type != "DequantizeLinear":
            return None
        rounding = self._roundings.get(pair.input[0])
        values = graph.constant(weights.input[0])
        no_bias = len(node.input) < 3 or not node.input[2]
        bias = None if no_bias else graph.constant(node.input[2])
        if rounding is None or values is None or values.dtype != np.int8:
            return None
        if bias is None and not no_bias:
            return None
        scales = np.asarray(graph.constant(weights.input[1]), np.float32)
        return _Convolution(
            node=node,
            activation=pair.input[0],
            rounding=rounding,
            scale=np.float32(graph.constant(pair.input[1])),
            weight=np.asarray(values, np.int8),
            weight_scales=scales,
            weight_parameters=tuple(weights.input),
            bias=np.zeros(len(scales), np.float32) if bias is None else np.asarray(bias),
        )

    def _emit_rounding(self, rounding: _Rounding) -> None:
        node, out = rounding.node, self._out
        steps = [rounding.source, node.input[1], self._zero(rounding)]
        if not rounding.non_negative:
            out.copy(node, steps, node.output)
            return
        # Saturating at 0 does the ReLU; the largest of what is rounded is what the largest rounds to.
        integers_ = f"{node.output[0]}/edgeres_u8"
        out.copy(node, steps, [integers_])
        if rounding.pool is not None:
            pooled = f"{node.output[0]}/edgeres_pooled"
            out.copy(rounding.pool, [integers_], [pooled])
            integers_ = pooled
        ends = [out.constant(f"edgeres_u8_{end}", np.uint8(end)) for end in (0, INT8.qmax)]
        out.node("Clip", [integers_, *ends], node.output[0], name=f"{node.name}/edgeres_clip")

    def _emit_rounded(self, conv: _Convolution) -> None:
        """Emits a convolution between pairs of its own, which becomes one kernel."""
        out, node = self._out, conv.node
        units = out.constant(f"{node.name}/edgeres_bias_scale", conv.units)
        bias = out.constant(f"{node.name}/edgeres_bias_s32", quantize_bias(conv.bias, conv.units))
        zeros = out.constant(f"{node.name}/edgeres_bias_zero", np.zeros(len(conv.bias), np.int32))
        pair = self._graph.producers[node.input[0]]
        operands = [
            out.node(
                "DequantizeLinear",
                [conv.activation, pair.input[1], self._zero(conv.rounding)],
                f"{node.name}/edgeres_activation",
            ),
            out.node(
                "DequantizeLinear", conv.weight_parameters, f"{node.name}/edgeres_weight", axis=0
            ),
            out.node("DequantizeLinear", [bias, units, zeros], f"{node.name}/edgeres_bias", axis=0),
        ]
        out.copy(node, operands, node.output)

    def _emit_product(self, conv: _Convolution) -> None:
        """Emits a convolution of single pixels as a product with its scale and bias in float."""
        out, name = self._out, conv.node.name
        pair = self._graph.producers[conv.node.input[0]]
        matrix: NDArray[np.integer[Any]] = conv.weight.reshape(len(conv.weight), -1).T
        zero = ""
        if int8_may_saturate():
            # Sums of u8 times s8 saturate in 16 bits here, those of u8 times u8 do not.
            matrix = _unsigned(conv.weight).reshape(len(conv.weight), -1).T
            offsets = np.full(len(conv.bias), _OFFSET, np.uint8)
            zero = out.constant(f"edgeres_u8_{len(conv.bias)}x{_OFFSET}", offsets)
        channels_last = out.node("Transpose", [conv.activation], f"{name}/edgeres_nhwc", perm=_NHWC)
        product = out.node(
            "MatMulIntegerToFloat",
            [
                channels_last,
                out.constant(f"{name}/edgeres_matrix", np.ascontiguousarray(matrix)),
                pair.input[1],
                conv.weight_parameters[1],
                self._zero(conv.rounding),
                zero,
                out.constant(f"{name}/edgeres_bias_f32", conv.bias),
            ],
            f"{name}/edgeres_product",
            domain=_FUSED,
        )
        out.node("Transpose", [product], conv.node.output[0], name=name, perm=_NCHW)

    def _emit_sum(self, conv: _Convolution) -> None:
        """Emits a convolution as exact sums, scaled, and its bias, in float."""
        out, name = self._out, conv.node.name
        operands = [
            conv.activation,
            # The kernel for s8 weights is five times as slow.
            out.constant(f"{name}/edgeres_weight_u8", _unsigned(conv.weight)),
            self._zero(conv.rounding),
            out.constant(f"edgeres_u8_{_OFFSET}", np.uint8(_OFFSET)),
        ]
        sums = onnx.NodeProto(op_type="ConvInteger", name=name, attribute=conv.node.attribute)
        out.copy(sums, operands, [f"{name}/edgeres_sums"])
        units = out.constant(f"{name}/edgeres_units", conv.units)
        scaled = out.node(
            "DequantizeLinear", [f"{name}/edgeres_sums", units], f"{name}/edgeres_scaled", axis=1
        )
        bias = out.constant(f"{name}/edgeres_bias_f32", conv.bias.reshape(-1, 1, 1))
        out.node("Add", [scaled, bias], conv.node.output[0], name=f"{name}/edgeres_biased")

    def _zero(self, rounding: _Rounding) -> str:
        value = rounding.zero_point
        return self._out.constant(f"edgeres_u8_{value}", np.uint8(value))


def _is_signed(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node rounds a whole tensor to s8 with zero point 0."""
    if node.op_type != "QuantizeLinear" or len(node.input) < 3:
        return False
    scale, zero = (graph.constant(name) for name in node.input[1:3])
    return (
        scale is not None
        and zero is not None
        and scale.ndim == 0
        and zero.dtype == np.int8
        and not zero.any()
    )


def _rounding(graph: Graph, node: onnx.NodeProto, non_negative: Set[str]) -> _Rounding:
    """Returns a rounding with what it can be moved in front of: a ReLU and a pool that it alone reads."""
    relu = pool = None
    source = graph.producers.get(node.input[0])
    if source is not None and source.op_type == "MaxPool" and _reads_alone(graph, node):
        before = graph.producers.get(source.input[0])
        # Pads of u8 are its least, 0, which is no result where there is a real one.
        if before is not None and before.op_type == "Relu" and _reads_alone(graph, source):
            pool, relu = source, before
    elif source is not None and source.op_type == "Relu" and _reads_alone(graph, node):
        relu = source
    known = node.input[0] in non_negative or graph.is_non_negative(node.input[0])
    return _Rounding(node, relu, pool, relu is not None or known)


def _reads_alone(graph: Graph, node: onnx.NodeProto) -> bool:
    return graph.only_consumer(node.input[0]) is not None


def _unsigned(weight: NDArray[np.int8]) -> NDArray[np.uint8]:
    return (weight.astype(np.int16) + _OFFSET).astype(np.uint8)

"""A network on a camera's bytes: the arithmetic of its preprocessing contract as its first operators.

`(x * scale - mean) / std` is written as `(x - mean / scale) * (scale / std)`, behind a Cast, which
TensorRT's parser wants first of all, and behind a Transpose where the bytes come (H, W, C).
Quantization works on the network without them, so they are taken off when a file is read, and
refused where they are not what the contract has.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeres.core.contract import Contract
from edgeres.names import Name

_TO_CHW = [0, 3, 1, 2]
_REMEDY = (
    "Then images would be normalized twice, or not at all. Export it again with --input uint8, or "
    "with --input float."
)


class Reads(Name):
    """What a network takes for its image before bytes are put in front of it."""

    NORMALIZED = "normalized values"
    PIXELS = "pixels as floats"
    BYTES = "pixels as bytes"


def levels_of(contract: Contract) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Returns what a level of each channel is worth, and the level at which it is zero, (C,) each."""
    steps = contract.scale / np.array(contract.std)
    return steps.astype(np.float32), np.array(contract.mean) / contract.scale


def with_byte_input(
    model: onnx.ModelProto, contract: Contract, reads: Reads, *, channels_last: bool
) -> onnx.ModelProto:
    """Returns a network that takes uint8.

    Args:
        model: of one image input, (N, C, H, W).
        contract: its arithmetic.
        reads: what the network takes so far.
        channels_last: whether the bytes come (N, H, W, C).
    """
    fed = onnx.ModelProto()
    fed.CopyFrom(model)
    graph = fed.graph
    image = _image(graph)
    name, read = image.name, image.name
    nodes: list[onnx.NodeProto] = []

    def add(kind: str, end: str, *constants: NDArray[np.generic], **attributes: Any) -> None:
        nonlocal read
        names = [f"{name}/{end}/value"] if constants else []
        graph.initializer.extend(map(numpy_helper.from_array, constants, names))
        output = f"{name}/{end}"
        nodes.append(helper.make_node(kind, [read, *names], [output], name=output, **attributes))
        read = output

    if reads is not Reads.BYTES:
        add("Cast", "cast", to=TensorProto.FLOAT)
    if channels_last:
        add("Transpose", "planar", perm=_TO_CHW)
    if reads is Reads.NORMALIZED:
        steps, zeros = levels_of(contract)
        add("Sub", "centred", zeros.astype(np.float32).reshape(-1, 1, 1))
        add("Mul", "normalized", steps.reshape(-1, 1, 1))
    for node in graph.node:
        node.input[:] = [read if each == name else each for each in node.input]
    kept = list(graph.node)
    del graph.node[:], graph.value_info[:]
    graph.node.extend([*nodes, *kept])
    _declare(image, TensorProto.UINT8, contract, channels_last=channels_last)
    return fed


def without_byte_input(model: onnx.ModelProto, contract: Contract) -> onnx.ModelProto:
    """Returns the network of normalized values, float32 (N, C, H, W), behind a byte input.

    Raises:
        ValueError: its first operators are not those of `with_byte_input`; the message is for the
            user.
    """
    core = onnx.ModelProto()
    core.CopyFrom(model)
    graph = core.graph
    image = _image(graph)
    kinds = ["Cast", "Transpose", "Sub", "Mul"] if takes_channels_last(model, contract) else []
    kinds = kinds or ["Cast", "Sub", "Mul"]
    head = list(graph.node[: len(kinds)])
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    steps, zeros = levels_of(contract)
    expected = {"Sub": zeros.astype(np.float32), "Mul": steps}
    read = image.name
    for kind, node in zip(kinds, head, strict=False):
        readers = sum(read in other.input for other in graph.node)
        if node.op_type != kind or node.input[0] != read or readers != 1:
            raise ValueError(
                f"it takes uint8, and does not begin with {', '.join(kinds)}. {_REMEDY}"
            )
        if kind in expected:
            own = values.get(node.input[1], np.empty(0)).ravel()
            if own.shape != expected[kind].shape or not np.allclose(own, expected[kind], 1e-6, 0):
                raise ValueError(
                    f"its own arithmetic has {own.tolist()[:3]} in {kind}, and its contract "
                    f"({contract}) {expected[kind].tolist()}. {_REMEDY}"
                )
        read = node.output[0]
    removed = {name for node in head for name in node.input[1:]}
    rest = list(graph.node[len(kinds) :])
    for node in rest:
        node.input[:] = [image.name if each == read else each for each in node.input]
    stored = [tensor for tensor in graph.initializer if tensor.name not in removed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(rest)
    graph.initializer.extend(stored)
    _declare(image, TensorProto.FLOAT, contract, channels_last=False)
    return core


def takes_bytes(model: onnx.ModelProto) -> bool:
    """Whether a network's image is uint8."""
    return bool(_image(model.graph).type.tensor_type.elem_type == TensorProto.UINT8)


def takes_channels_last(model: onnx.ModelProto, contract: Contract) -> bool:
    """Whether a network of bytes declares them (N, H, W, C)."""
    dims = [d.dim_value for d in _image(model.graph).type.tensor_type.shape.dim][1:]
    return dims == [contract.height, contract.width, contract.channels]


def _image(graph: onnx.GraphProto) -> onnx.ValueInfoProto:
    stored = {tensor.name for tensor in graph.initializer}
    image: onnx.ValueInfoProto = next(v for v in graph.input if v.name not in stored)
    return image


def _declare(
    value: onnx.ValueInfoProto, kind: int, contract: Contract, *, channels_last: bool
) -> None:
    """Gives an input its type and, behind the batch, its shape."""
    channels, *sides = contract.shape
    tensor = value.type.tensor_type
    tensor.elem_type = kind
    shape = (*sides, channels) if channels_last else (channels, *sides)
    for dim, size in zip(list(tensor.shape.dim)[1:], shape, strict=True):
        dim.dim_value = size

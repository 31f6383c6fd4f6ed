"""A model's input and output in one layout: any batch, channels first, one image size."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeres.normalization.constants import put

BATCH = "N"

_CHANNELS = (1, 3)
"""Channels of an image: gray, or colour."""

_TO_NCHW = (0, 3, 1, 2)
_TO_NHWC = (0, 2, 3, 1)

_FIRST_IR_WITH_WEIGHTS_APART = 4
"""Source: ONNX, docs/IR.md."""

Dims = tuple[int | None, ...]


def image_input(graph: onnx.GraphProto) -> onnx.ValueInfoProto:
    """Returns the input that is fed, also where older files list the weights among the inputs."""
    stored = {tensor.name for tensor in graph.initializer}
    image: onnx.ValueInfoProto = next(v for v in graph.input if v.name not in stored)
    return image


def dims_of(value: onnx.ValueInfoProto) -> Dims:
    """Returns the dimensions of a tensor, None for those that are open."""
    return tuple(
        d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim
    )


def feed_image_alone(model: onnx.ModelProto) -> None:
    """Takes the weights out of a graph's inputs, where files before ONNX IR 4 list them."""
    image = image_input(model.graph)
    put(model.graph.input, [image])
    model.ir_version = max(model.ir_version, _FIRST_IR_WITH_WEIGHTS_APART)


def is_channels_last(graph: onnx.GraphProto) -> bool:
    """Whether a model takes (N, H, W, C), as TensorFlow's converters write it."""
    value = image_input(graph)
    _, first, _, last = dims_of(value)
    if first in _CHANNELS or (first is not None and last not in _CHANNELS):
        return False
    if last in _CHANNELS:
        return True
    # Nothing but the graph shows it where all dimensions are open.
    readers = [node for node in graph.node if value.name in node.input]
    return bool(readers) and all(is_transpose(node, _TO_NCHW) for node in readers)


def is_transpose(node: onnx.NodeProto, perm: tuple[int, ...]) -> bool:
    """Whether a node is the Transpose of that permutation."""
    found = next((tuple(a.ints) for a in node.attribute if a.name == "perm"), None)
    return node.op_type == "Transpose" and found == perm


def take_channels_first(graph: onnx.GraphProto) -> None:
    """Lets a graph of (N, H, W, C) take (N, C, H, W), in place."""
    value = image_input(graph)
    old, name = dims_of(value), value.name
    set_dims(value, [old[axis] for axis in _TO_NCHW])
    readers = [node for node in graph.node if name in node.input]
    if all(is_transpose(node, _TO_NCHW) for node in readers):
        # The usual case: what the model turned at its start comes turned.
        for node in readers:
            _redirect(graph, node.output[0], name)
            graph.node.remove(node)
        return
    turned = _free_name(graph, f"{name}_channels_last")
    _redirect(graph, name, turned)
    graph.node.insert(0, helper.make_node("Transpose", [name], [turned], perm=_TO_NHWC))


def open_batch(graph: onnx.GraphProto) -> None:
    """Lets a graph of one batch size take any, in place.

    Reshapes to that size become reshapes to the size of what they read; whatever else depends on
    the batch is found when both are compared.
    """
    value = image_input(graph)
    size = dims_of(value)[0]
    for each in (value, *graph.output):
        _, *others = dims_of(each)
        set_dims(each, [None, *others])
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        shape = stored.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is None:
            continue
        wanted = numpy_helper.to_array(shape)
        # 0 stands for the dimension of what is read, unless `allowzero` is set. Source: ONNX
        # operator Reshape.
        zero = [a for a in node.attribute if a.name == "allowzero"]
        if wanted.size and wanted[0] == size and not (zero and 0 in wanted):
            for each in zero:
                node.attribute.remove(each)
            name = _free_name(graph, f"{node.input[1]}_any_batch")
            dims = np.array([0, *wanted[1:]], np.int64)
            graph.initializer.append(numpy_helper.from_array(dims, name))
            node.input[1] = name
    del graph.value_info[:]


def fix_shape(graph: onnx.GraphProto, shape: tuple[int, int, int]) -> None:
    """Gives what is open of channels, height and width that of the images, in place."""
    value = image_input(graph)
    batch, *own = dims_of(value)
    set_dims(value, [batch, *(b if a is None else a for a, b in zip(own, shape, strict=True))])
    # Shapes that were inferred with open sides would hide the known ones.
    del graph.value_info[:]


def set_dims(value: onnx.ValueInfoProto, dims: Iterable[int | None]) -> None:
    """Writes the dimensions of a tensor; the first that is open gets the batch's name."""
    shape = value.type.tensor_type.shape
    kept = [d.dim_param for d in shape.dim]
    del shape.dim[:]
    for index, size in enumerate(dims):
        dim = shape.dim.add()
        if size is not None:
            dim.dim_value = size
        elif index == 0:
            dim.dim_param = BATCH
        else:
            dim.dim_param = kept[index] if index < len(kept) else ""


def _redirect(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new


def _free_name(graph: onnx.GraphProto, wanted: str) -> str:
    taken = {tensor.name for tensor in graph.initializer}
    taken.update(value.name for value in graph.input)
    taken.update(name for node in graph.node for name in node.output)
    while wanted in taken:
        wanted += "_"
    return wanted

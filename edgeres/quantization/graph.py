"""A read-only view of an ONNX graph: producer and consumers of a tensor, constants, shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeres.errors import QuantizationError
from edgeres.graph_structure import infer_shapes, skeleton
from edgeres.normalization import MIN_OPSET
from edgeres.onnx_file import opset_of
from edgeres.quantization.weights import WeightMemory

PASS_THROUGH = frozenset(
    {"MaxPool", "Slice", "Pad", "Flatten", "Reshape", "Transpose", "Identity", "Squeeze"}
)
"""Operators whose output holds values of their input (and zeros): both share one scale."""

_LEAST_IR_VERSION = 4
"""First ONNX IR whose initializers need not be graph inputs too. Source: ONNX versioning table."""


@dataclass(frozen=True, slots=True)
class Graph:
    """An ONNX graph by its tensors."""

    model: onnx.ModelProto
    producers: Mapping[str, onnx.NodeProto] = field(repr=False)
    consumers: Mapping[str, Sequence[onnx.NodeProto]] = field(repr=False)
    positions: Mapping[str, int] = field(repr=False)
    """Topological position of each tensor's producer."""
    constants: Mapping[str, onnx.TensorProto] = field(repr=False)
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    """Shapes without the batch dimension, where shape inference finds all of it."""
    kept: Mapping[str, str] = field(default_factory=dict)
    """Operators that stay in float although they could be integer, and why."""
    weights: WeightMemory = field(default_factory=WeightMemory, repr=False, compare=False)
    """Its weights on their grids, once a network was lowered."""

    @property
    def nodes(self) -> Sequence[onnx.NodeProto]:
        """The operators in topological order."""
        return list(self.model.graph.node)

    @property
    def input(self) -> str:
        """Name of the image tensor."""
        return next(str(v.name) for v in self.model.graph.input if v.name not in self.constants)

    @property
    def output(self) -> str:
        """Name of the logits."""
        return str(self.model.graph.output[0].name)

    def constant(self, name: str) -> NDArray[np.float32] | None:
        """Returns the value of a constant, None for an activation."""
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def keeping(self, kept: Mapping[str, str]) -> Graph:
        """Returns the same graph with these operators kept in float, each with its reason."""
        return replace(self, kept=kept)

    def only_consumer(self, tensor: str) -> onnx.NodeProto | None:
        """Returns the one operator that reads `tensor`; None if there are several, or none."""
        readers = self.consumers.get(tensor, ())
        return readers[0] if len(readers) == 1 and tensor != self.output else None

    def root(self, tensor: str) -> str:
        """Returns the tensor whose values `tensor` holds, upstream of pass-through operators."""
        node = self.producers.get(tensor)
        while node is not None and is_pass_through(self, node):
            tensor = node.input[0]
            node = self.producers.get(tensor)
        return tensor

    def is_non_negative(self, tensor: str) -> bool:
        """Whether the operators before `tensor` keep it from ever being negative."""
        root = self.root(tensor)
        node = self.producers.get(root)
        if node is None:
            return False
        # A mean of what is never negative is never negative.
        if node.op_type in {"GlobalAveragePool", "AveragePool", "ReduceMean"}:
            return self.is_non_negative(node.input[0])
        if node.op_type != "Clip" or len(node.input) < 2 or not node.input[1]:
            return node.op_type == "Relu"
        low = self.constant(node.input[1])
        return low is not None and float(low) >= 0


def view(model: onnx.ModelProto) -> Graph:
    """Returns the view of a checked model.

    Raises:
        QuantizationError: the opset is too old for per-channel scales.
        ArtifactError: the shapes of its activations cannot be.
    """
    opset = opset_of(model)
    if opset < MIN_OPSET:
        raise QuantizationError(
            f"The model has opset {opset}; per-channel quantization needs {MIN_OPSET} or newer. "
            "Export it again with --opset 17."
        )
    return view_of_normalized(normalized(model))


def view_of_normalized(model: onnx.ModelProto) -> Graph:
    """Returns the view of a model of the caller's own that `normalized` would change nothing in.

    Raises:
        ArtifactError: the shapes of its activations cannot be.
    """
    inferred = infer_shapes(skeleton(model))
    producers = {out: node for node in model.graph.node for out in node.output if out}
    positions = {o: i for i, node in enumerate(model.graph.node) for o in node.output}
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        # An Add of a tensor to itself is one reader, not two.
        for name in dict.fromkeys(node.input):
            consumers.setdefault(name, []).append(node)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    values = [*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]
    dims = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim][1:] for v in values}
    # A dimension that inference does not find has the value 0.
    shapes = {name: tuple(d) for name, d in dims.items() if all(d)}
    return Graph(model, producers, consumers, positions, constants, shapes)


def emptied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy without operators, weights, and shapes inside: inputs, outputs, metadata."""
    copied = onnx.ModelProto()
    inside = {"node", "initializer", "value_info"}
    # Field by field: a copy of all that is emptied afterwards takes the weights' memory again.
    for source, target, left_out in (
        (model, copied, {"graph"}),
        (model.graph, copied.graph, inside),
    ):
        for field_, value in source.ListFields():
            if field_.name in left_out:
                continue
            if isinstance(value, (int, float, str, bytes)):
                setattr(target, field_.name, value)
            else:
                getattr(target, field_.name).MergeFrom(value)
    return copied


def attribute(node: onnx.NodeProto, name: str) -> object:
    """Returns the value of a node's attribute, None where it is not set."""
    attributes = (a for a in node.attribute if a.name == name)
    return next((onnx.helper.get_attribute_value(a) for a in attributes), None)


def integers(node: onnx.NodeProto, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the value of a node's attribute that is a list of integers."""
    value = attribute(node, name)
    return default if value is None else tuple(cast("list[int]", value))


def is_pass_through(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node hands on values of its input: one of `PASS_THROUGH`, padding with zeros."""
    if node.op_type != "Pad":
        return node.op_type in PASS_THROUGH
    if attribute(node, "mode") not in {None, b"constant"}:
        return False
    if len(node.input) < 3 or not node.input[2]:
        return True
    value = graph.constant(node.input[2])
    return value is not None and not value.any()


def normalized(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy whose operators have unique names and whose constants are initializers."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    copied.ir_version = max(copied.ir_version, _LEAST_IR_VERSION)
    graph = copied.graph
    # Backwards, so that a deletion moves no index that is still to come.
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            del graph.node[index]
    # An initializer that is an input as well is a default, as ONNX IR 3 wanted of every one; once
    # the initializer is gone it would be an input that every caller has to feed.
    constants = {tensor.name for tensor in graph.initializer}
    for index in reversed(range(len(graph.input))):
        if graph.input[index].name in constants:
            del graph.input[index]
    # ONNX allows empty and equal names of operators.
    taken: set[str] = set()
    for index, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
        while node.name in taken:
            node.name += "_"
        taken.add(node.name)
    return copied

"""Builds a new ONNX graph node by node: the writing half of every lowering."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeres.quantization.graph import Graph


class Emitter:
    """Nodes and initializers of a graph that takes the place of another.

    Inputs, outputs and metadata stay as they are; only what the new nodes read is kept of the
    old initializers.
    """

    def __init__(self, graph: Graph) -> None:
        """Starts with no nodes."""
        self._graph = graph
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: NDArray[np.generic] | np.generic) -> str:
        """Adds an initializer, unless one of that name is there, and returns its name."""
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def shape(self, *dims: int) -> str:
        """Adds the shape that a Reshape is to give and returns its name; 0 keeps a dimension."""
        return self.constant("shape/" + "x".join(map(str, dims)), np.array(dims, np.int64))

    def node(
        self, op_type: str, inputs: Iterable[str], output: str, *, name: str = "", **attributes: Any
    ) -> str:
        """Adds a new operator, named after its output if not otherwise, and returns the output."""
        self._nodes.append(
            helper.make_node(op_type, list(inputs), [output], name=name or output, **attributes)
        )
        return output

    def copy(
        self,
        node: onnx.NodeProto,
        inputs: Iterable[str],
        outputs: Iterable[str],
        **attributes: Any,
    ) -> None:
        """Adds an operator of the old graph with other inputs, outputs and attributes."""
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        del copied.input[:], copied.output[:]
        copied.input.extend(inputs)
        copied.output.extend(outputs)
        kept = [a for a in node.attribute if a.name not in attributes]
        changed = [helper.make_attribute(name, value) for name, value in attributes.items()]
        del copied.attribute[:]
        copied.attribute.extend([*kept, *changed])
        self._nodes.append(copied)

    def model(self) -> onnx.ModelProto:
        """Returns the finished model, checked.

        Raises:
            onnx.checker.ValidationError: the lowering wrote an invalid graph; a bug.
        """
        model = onnx.ModelProto()
        model.CopyFrom(self._graph.model)
        graph = model.graph
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self._nodes)
        graph.initializer.extend(self._kept_initializers())
        onnx.checker.check_model(model)
        return model

    def _kept_initializers(self) -> list[onnx.TensorProto]:
        read = {name for node in self._nodes for name in node.input}
        old = self._graph.model.graph.initializer
        kept = [t for t in old if t.name in read and t.name not in self._initializers]
        return [*kept, *self._initializers.values()]

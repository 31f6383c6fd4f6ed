"""Builds a new ONNX graph node by node: the writing half of every lowering."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeres.graph_structure import with_weights_as_inputs
from edgeres.quantization.graph import Graph, emptied


class Emitter:
    """Nodes and initializers of a graph that takes the place of another.

    Inputs, outputs and metadata stay as they are.
    """

    def __init__(self, graph: Graph, domains: Iterable[str] = ()) -> None:
        """Starts with no nodes.

        Args:
            graph: to take the place of.
            domains: of operators beyond the standard ones, in their first version.
        """
        self._domains = tuple(domains)
        self._graph = graph
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._names = {node.name for node in graph.nodes}

    def constant(self, name: str, value: NDArray[np.generic] | np.generic) -> str:
        """Adds an initializer, unless there is one of that name, and returns the name."""
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def stored(self, tensor: onnx.TensorProto) -> str:
        """Adds an initializer of a type that NumPy lacks, and returns its name."""
        self._initializers[tensor.name] = tensor
        return str(tensor.name)

    def shape(self, *dims: int) -> str:
        """Adds the target shape of a Reshape and returns its name; 0 keeps a dimension."""
        return self.constant("shape/" + "x".join(map(str, dims)), np.array(dims, np.int64))

    def node(
        self, op_type: str, inputs: Iterable[str], output: str, *, name: str = "", **attributes: Any
    ) -> str:
        """Adds a new operator, by default named after its output, and returns the output."""
        if not name:
            name = output
            # An operator of the old graph may be called like a tensor.
            while name in self._names:
                name += "_"
            self._names.add(name)
        self._nodes.append(
            helper.make_node(op_type, list(inputs), [output], name=name, **attributes)
        )
        return output

    def split(self, source: str, outputs: list[str]) -> None:
        """Adds the operator that takes a tensor's channels apart, one for each output."""
        sizes = self.constant(source + "/edgeres_ones", np.ones(len(outputs), np.int64))
        self._nodes.append(
            helper.make_node("Split", [source, sizes], outputs, name=outputs[0], axis=1)
        )

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
        # Shapes and types that the old file carries are of other tensors.
        model = emptied(self._graph.model)
        graph = model.graph
        graph.node.extend(self._nodes)
        known = {opset.domain for opset in model.opset_import}
        added = (domain for domain in self._domains if domain not in known)
        model.opset_import.extend(helper.make_opsetid(domain, 1) for domain in added)
        # Of the old initializers those that a new node still reads; a weight that was quantized
        # leaves the file.
        read = {name for node in self._nodes for name in node.input}
        old = self._graph.model.graph.initializer
        kept = [t for t in old if t.name in read and t.name not in self._initializers]
        graph.initializer.extend([*kept, *self._initializers.values()])
        onnx.checker.check_model(with_weights_as_inputs(model))
        return model

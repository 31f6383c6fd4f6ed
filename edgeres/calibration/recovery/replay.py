"""The FP32 network and its quantized copy, read layer by layer on the same images.

The copy has TensorRT's Q/DQ on its activations and float weights that lie on their grid, so
ONNX Runtime runs it at FP32's speed and each weight can be replaced alone. A reading runs only
the operators behind the cached activation, and is of as many images as are cached: large feature
maps, of which one image has many positions, of fewer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeres.core.table import CalibrationTable
from edgeres.quantization.graph import Graph
from edgeres.quantization.parameters import Parameters
from edgeres.quantization.placement import Placement
from edgeres.quantization.qdq.lowering import lower_for_tensorrt
from edgeres.session import open_session, run_session

Array = NDArray[np.float32]

CACHE_BYTES = 256 << 20
"""Most memory that the cached activation may take, in each of the two networks."""

LEAST_CACHED = 48
"""Fewest images that a reading is cut down to. On ResNet-50 the 80 of 320 that the first stage is
cached of leave its logits as close to FP32 as all would."""

_BATCH = 8
"""Images per inference: activations of a batch of ResNet-50's blocks stay in the cache."""


class Replay:
    """One network on all images: `read` gives activations, `advance` moves the cached one on."""

    def __init__(self, graph: Graph, model: onnx.ModelProto, images: Array) -> None:
        """Starts with the images themselves cached.

        Args:
            graph: the FP32 graph, whose activations `model` has by the same names.
            model: what is run.
            images: (N, 3, H, W), preprocessed.
        """
        self._graph = graph
        self._model = model
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._cuts = cuts(graph)
        self._images = images
        self._every = 1
        self._cached = graph.input
        self._values = images

    def count(self, images: int) -> int:
        """Returns how many of the first `images` are read now."""
        return len(range(0, images, self._every))

    def settle(self, node: onnx.NodeProto, parameters: Parameters) -> None:
        """Gives a convolution of the FP32 graph another weight and bias in this network."""
        for name, value in zip(node.input[1:], (parameters.weight, parameters.bias), strict=True):
            self._constants[name].CopyFrom(numpy_helper.from_array(value, name))

    def read(self, tensors: Sequence[str]) -> Iterator[list[Array]]:
        """Yields the tensors' values on the next few images, from the first image to the last."""
        model = between(self._model, self._cached, tensors)
        # Float kernels: integer ones would round the float weights a second time.
        session = open_session(model.SerializeToString(), integer=False)
        for start in range(0, len(self._values), _BATCH):
            values = self._values[start : start + _BATCH]
            yield run_session(session, tensors, {self._cached: values})

    def advance(self, node: onnx.NodeProto) -> None:
        """Caches the last activation that `node` and all after it follow from.

        Of every image, or every second, fourth ... where more would not fit; where too few
        would, the cached one stays.
        """
        position = self._graph.positions[node.output[0]]
        before = [t for t in self._cuts if self._graph.positions[t] < position]
        if not before or before[-1] == self._cached:
            return
        tensor, every = before[-1], 1
        elements = int(np.prod(self._graph.shapes[tensor], dtype=np.int64))
        fitting = CACHE_BYTES // (elements * self._images.itemsize)
        while len(self._images[::every]) > fitting:
            every *= 2
            if len(self._images[::every]) < LEAST_CACHED:
                return
        if every < self._every:
            # A smaller feature map fits more images again; those were dropped, so start over.
            self._cached, self._values, self._every = self._graph.input, self._images, 1
        self._values = self._values[:: every // self._every]
        self._values = np.concatenate([values for (values,) in self.read([tensor])])
        self._cached, self._every = tensor, every


@dataclass(frozen=True, slots=True, eq=False)
class ReplayPair:
    """The FP32 network and its quantized copy, both at the same activation of the same images."""

    exact: Replay
    quantized: Replay

    def advance(self, node: onnx.NodeProto) -> None:
        """Caches in both the last activation that `node` and all after it follow from."""
        self.exact.advance(node)
        self.quantized.advance(node)

    def outputs(self, tensor: str) -> Iterator[tuple[Array, Array]]:
        """Yields a tensor of one image, (O, h, w), in FP32 and quantized, image by image."""
        batches = zip(self.exact.read([tensor]), self.quantized.read([tensor]), strict=True)
        for (exact,), (quantized,) in batches:
            yield from zip(exact, quantized, strict=True)


def float_replay(graph: Graph, images: Array) -> Replay:
    """Returns the FP32 network on the images."""
    return Replay(graph, graph.model, images)


def quantized_replay(
    graph: Graph, placement: Placement, table: CalibrationTable, images: Array, *, unsigned: bool
) -> Replay:
    """Returns the network with quantized activations on the images; weights are as in `graph`.

    Args:
        graph: the FP32 graph.
        placement: which activations are quantized.
        table: their thresholds.
        images: (N, 3, H, W), preprocessed.
        unsigned: whether the placement's target has an unsigned grid.
    """
    # No Q/DQ on weights: `settle` replaces them, and they lie on their grid as floats.
    activations = replace(placement, weighted=frozenset())
    return Replay(graph, lower_for_tensorrt(graph, activations, table, unsigned=unsigned), images)


def cuts(graph: Graph) -> list[str]:
    """Returns the activations that everything behind them follows from, in topological order."""
    last_read = {
        name: max(graph.positions[reader.output[0]] for reader in readers)
        for name, readers in graph.consumers.items()
        if name not in graph.constants
    }
    tensors, reach = [], last_read.get(graph.input, -1)
    for position, node in enumerate(graph.nodes):
        output = node.output[0]
        # Nothing that was computed before is read behind this node.
        if reach <= position and output in graph.shapes and output != graph.output:
            tensors.append(str(output))
        reach = max(reach, last_read.get(output, -1))
    return tensors


def between(model: onnx.ModelProto, source: str, tensors: Sequence[str]) -> onnx.ModelProto:
    """Returns the part of a model that makes `tensors` of `source`, which becomes its input."""
    needed, nodes = set(tensors), []
    for node in reversed(model.graph.node):
        if (needed - {source}).intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    graph = helper.make_graph(
        nodes[::-1],
        "part",
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors],
        [tensor for tensor in model.graph.initializer if tensor.name in needed],
    )
    part = helper.make_model(graph, opset_imports=model.opset_import)
    part.ir_version = model.ir_version
    return part

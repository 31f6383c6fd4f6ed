"""The FP32 network and its quantized copy, read layer by layer on the same images.

The copy has TensorRT's Q/DQ on its activations and float weights that lie on their grid, so
ONNX Runtime runs it at FP32's speed and each weight can be replaced alone. A reading runs only
the operators behind the cached activation, and is of as many images as are cached: large feature
maps, of which one image has many positions, of fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeres.core.table import CalibrationTable
from edgeres.quantization.graph import Graph
from edgeres.quantization.grids import INT8, Grid
from edgeres.quantization.parameters import Parameters
from edgeres.quantization.placement import Placement
from edgeres.quantization.qdq.lowering import lower_for_tensorrt
from edgeres.session import open_session, run_session

Array = NDArray[np.float32]

CACHE_BYTES = 256 << 20
"""Most memory that a cached activation may take, in each of the two networks."""

LEAST_CACHED = 48
"""Fewest images that a reading is cut down to. On ResNet-50 the 80 of 320 that the first stage is
cached of leave its logits as close to FP32 as all would."""

_BATCH = 8
"""Images per inference: activations of a batch of ResNet-50's blocks stay in the cache."""


class Replay:
    """One network on all images: `read` gives activations, `advance` moves the cached ones on.

    An operator runs once on the way forward: what was computed is kept while anything reads it.
    """

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
        self._images = images
        self._every = 1
        self._cached = {graph.input: images}

    def count(self, images: int) -> int:
        """Returns how many of the first `images` are read now."""
        return len(range(0, images, self._every))

    def settle(self, node: onnx.NodeProto, parameters: Parameters) -> None:
        """Gives a convolution of the FP32 graph another weight and bias in this network."""
        for name, value in zip(node.input[1:], (parameters.weight, parameters.bias), strict=True):
            self._constants[name].CopyFrom(numpy_helper.from_array(value, name))
        position = self._graph.positions[node.output[0]]
        self._cached = {t: v for t, v in self._cached.items() if self._position(t) < position}

    def shift(self, node: onnx.NodeProto, target: str, shift: Array) -> None:
        """Adds to a convolution's bias.

        Args:
            node: the convolution.
            target: what comes of it by no more than an Add; if it is kept it is moved along.
            shift: (O,).
        """
        bias = self._constants[node.input[2]]
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + shift, bias.name))
        if target in self._cached:
            self._cached[target] += shift[:, None, None]

    def read(self, tensors: Sequence[str]) -> Iterator[list[Array]]:
        """Yields the tensors' values on the next few images, from the first image to the last."""
        missing = [name for name in tensors if name not in self._cached]
        run = self._runner(missing) if missing else None
        for start in range(0, len(next(iter(self._cached.values()))), _BATCH):
            few = {t: values[start : start + _BATCH] for t, values in self._cached.items()}
            computed = dict(zip(missing, run(few), strict=True)) if run else {}
            yield [computed[name] if name in computed else few[name] for name in tensors]

    def keep(self, tensor: str) -> None:
        """Computes an activation and caches it beside what is."""
        if tensor not in self._cached:
            self._cached[tensor] = self._computed([tensor])[tensor]

    def advance(self, node: onnx.NodeProto) -> None:
        """Caches the activations that `node` and all after it follow from, and no others.

        Of every image, or every second, fourth ... where more would not fit; where too few
        would, the cached ones stay.
        """
        position = self._graph.positions[node.output[0]]
        read = {t for n in self._graph.nodes[position:] for t in n.input}
        names = [self._graph.input, *self._graph.positions]
        kept = [t for t in names if t in read and self._position(t) < position]
        # What the node computes is cached beside them once it is asked for.
        sizes = (self._graph.shapes[t] for t in (*kept, node.output[0]))
        elements = max(int(np.prod(shape, dtype=np.int64)) for shape in sizes)
        fitting = CACHE_BYTES // (elements * self._images.itemsize)
        every = 1
        while len(self._images[::every]) > fitting:
            every *= 2
            if len(self._images[::every]) < LEAST_CACHED:
                return
        if every < self._every:
            # A smaller feature map fits more images again; those were dropped, so start over.
            self._cached, self._every = {self._graph.input: self._images}, 1
        thinned, self._every = every // self._every, every
        if thinned > 1:
            # Copied, since a view would keep the images that are left out.
            self._cached = {t: values[::thinned].copy() for t, values in self._cached.items()}
        self._cached = self._computed(kept)

    def _position(self, tensor: str) -> int:
        return self._graph.positions.get(tensor, -1)

    def _computed(self, tensors: Sequence[str]) -> dict[str, Array]:
        """Returns the tensors on all images, those that are cached as they are."""
        missing = [name for name in tensors if name not in self._cached]
        values = {t: self._cached[t] for t in tensors if t in self._cached}
        count, start = len(next(iter(self._cached.values()))), 0
        for few in self.read(missing) if missing else ():
            stop = start + len(few[0])
            for name, computed in zip(missing, few, strict=True):
                # Filled in place: joined at the end, all of it would be held, and written, twice.
                if name not in values:
                    values[name] = np.empty((count, *computed.shape[1:]), computed.dtype)
                values[name][start:stop] = computed
            start = stop
        return values

    def _runner(self, tensors: Sequence[str]) -> Callable[[Mapping[str, Array]], list[Array]]:
        """Returns what makes tensors of the cached ones."""
        model = between(self._model, list(self._cached), tensors)
        # Float kernels: integer ones would round the float weights a second time.
        session = open_session(model.SerializeToString(), integer=False)
        inputs = [value.name for value in model.graph.input]
        return lambda few: run_session(session, tensors, {name: few[name] for name in inputs})


@dataclass(frozen=True, slots=True, eq=False)
class ReplayPair:
    """The FP32 network and its quantized copy, both at the same activation of the same images."""

    exact: Replay
    quantized: Replay

    def advance(self, node: onnx.NodeProto, target: str) -> None:
        """Caches in both what `node` and all after it follow from, and the target in FP32."""
        self.exact.advance(node)
        self.exact.keep(target)
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
    graph: Graph,
    placement: Placement,
    table: CalibrationTable,
    images: Array,
    *,
    grid: Grid = INT8,
    unsigned: bool = False,
) -> Replay:
    """Returns the network with quantized activations on the images; weights are as in `graph`.

    Args:
        graph: the FP32 graph.
        placement: which activations are quantized.
        table: their thresholds.
        images: (N, 3, H, W), preprocessed.
        grid: that they are on.
        unsigned: whether the placement's target has an unsigned grid too.
    """
    # No Q/DQ on weights: `settle` replaces them, and they lie on their grid as floats.
    activations = replace(placement, weighted=frozenset())
    lowered = lower_for_tensorrt(graph, activations, table, grid=grid, unsigned=unsigned)
    return Replay(graph, lowered, images)


def between(
    model: onnx.ModelProto, sources: Sequence[str], tensors: Sequence[str]
) -> onnx.ModelProto:
    """Returns the part of a model that makes `tensors` of those sources that it needs for them."""
    known, needed, nodes = set(sources), set(tensors), []
    for node in reversed(model.graph.node):
        if (needed - known).intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    inputs = [name for name in sources if name in needed]
    graph = helper.make_graph(
        nodes[::-1],
        "part",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors],
        [tensor for tensor in model.graph.initializer if tensor.name in needed],
    )
    part = helper.make_model(graph, opset_imports=model.opset_import)
    part.ir_version = model.ir_version
    return part

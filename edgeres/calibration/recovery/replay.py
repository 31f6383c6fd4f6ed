"""The FP32 network and its quantized copy, read layer by layer on the same images.

The copy has TensorRT's Q/DQ on its activations. Where its weights lie on a grid of their own it
runs on integer kernels, and what is kept of it are integers: a third of the time, a quarter of the
memory. Elsewhere weights are floats, and each can be replaced alone. A reading runs only the
operators behind the cached activation, and is of as many images as are cached: large feature
maps, of which one image has many positions, of fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeres.calibration.recovery.parts import between
from edgeres.core.table import CalibrationTable
from edgeres.quantization.graph import Graph, view_of_normalized
from edgeres.quantization.grids import INT8, Grid
from edgeres.quantization.parameters import Parameters
from edgeres.quantization.placement import Placement
from edgeres.quantization.qdq.lowering import lower_for_tensorrt
from edgeres.quantization.weights import quantize_weight, weight_scales
from edgeres.session import open_session, run_session
from edgeres.targets.base import cpu_target

Array = NDArray[np.float32]

CACHE_BYTES = 256 << 20
"""Most memory that a cached activation may take, in each of the two networks."""

LEAST_CACHED = 48
"""Fewest images that a reading is cut down to. On ResNet-50 the 80 of 320 that the first stage is
cached of leave its logits as close to FP32 as all would."""

_BATCH = 8
"""Images per inference: activations of a batch of ResNet-50's blocks stay in the cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Rounded:
    """Activations as the integers they are rounded to; what is taken of them is float32."""

    integers: NDArray[np.uint8]
    scale: np.float32
    zero: int
    """The integer that zero is stored as."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the activations."""
        return self.integers.shape

    def __len__(self) -> int:
        return len(self.integers)

    def __getitem__(self, index: tuple[slice, ...]) -> Array:
        steps = np.subtract(self.integers[index], np.float32(self.zero), dtype=np.float32)
        steps *= self.scale
        return steps


class Replay:
    """One network on all images: `read` gives activations, `advance` moves the cached ones on.

    An operator runs once on the way forward: what was computed is kept while anything reads it.
    """

    def __init__(
        self, graph: Graph, model: onnx.ModelProto, images: Array, *, integer: bool = False
    ) -> None:
        """Starts with the images themselves cached.

        Args:
            graph: the FP32 graph, whose activations `model` has by the same names.
            model: what is run.
            images: (N, 3, H, W), preprocessed.
            integer: run it on integer kernels: weights of convolutions that read rounded
                activations are stored as integers in `model`.
        """
        self._graph = graph
        self._model = model
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._images = images
        self._every = 1
        self._cached: dict[str, NDArray[Any]] = {graph.input: images}
        self._integer = integer
        lowered = view_of_normalized(model)
        self._producers = lowered.producers
        self._shapes = lowered.shapes
        # What is read by its rounding alone is kept as integers.
        readers = {t: lowered.only_consumer(t) for t in (graph.input, *graph.positions)}
        self._roundings = {
            str(node.output[0]): tensor
            for tensor, node in readers.items()
            if integer and node is not None and node.op_type == "QuantizeLinear"
        }
        self._integers = {tensor: rounded for rounded, tensor in self._roundings.items()}
        self._non_negative = frozenset(t for t in graph.positions if graph.is_non_negative(t))

    @property
    def every(self) -> int:
        """One of so many images is read now."""
        return self._every

    @property
    def total(self) -> int:
        """How many images there are."""
        return len(self._images)

    def count(self, images: int) -> int:
        """Returns how many of the first `images` are read now."""
        return len(range(0, images, self._every))

    def settle(self, node: onnx.NodeProto, parameters: Parameters) -> None:
        """Gives a convolution of the FP32 graph another weight and bias in this network."""
        weight, bias = self._reader(node).input[1:]
        values: dict[str, NDArray[Any]] = {bias: parameters.bias}
        if weight in self._constants:
            values[weight] = parameters.weight
        else:
            scales = weight_scales(parameters.weight, axis=0)
            stored = self._producers[weight].input
            values[stored[0]] = quantize_weight(parameters.weight, scales, axis=0).values
            values[stored[1]] = scales
        for name, value in values.items():
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
        bias = self._constants[self._reader(node).input[2]]
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + shift, bias.name))
        if target in self._cached:
            self._cached[target] += shift[:, None, None]

    def read(self, tensors: Sequence[str], *, ahead: Sequence[str] = ()) -> Iterator[list[Array]]:
        """Yields the tensors' values on the next few images, from the first image to the last.

        Args:
            tensors: what to read.
            ahead: what to cache in the place of what is, from `before`, once all images are read.
        """
        wanted = list(dict.fromkeys([*tensors, *ahead]))
        missing = [name for name in wanted if name not in self._cached]
        run = self._runner(missing) if missing else None
        count = len(next(iter(self._cached.values())))
        kept = {name: self._cached[name] for name in ahead if name in self._cached}
        for start in range(0, count, _BATCH):
            few = {t: values[start : start + _BATCH] for t, values in self._cached.items()}
            computed = dict(zip(missing, run(few), strict=True)) if run else {}
            values = {name: computed[name] if name in computed else few[name] for name in wanted}
            for name in computed.keys() & ahead:
                # Filled in place: joined at the end, all of it would be held, and written, twice.
                if not start:
                    kept[name] = np.empty((count, *values[name].shape[1:]), values[name].dtype)
                kept[name][start : start + _BATCH] = values[name]
            yield [values[name] for name in tensors]
        if ahead:
            self._cached = kept

    def images(self, tensors: Sequence[str]) -> Iterator[list[Array | Rounded]]:
        """Yields the tensors' values, (C, H, W), on each image; rounded ones as their integers."""
        nodes = [self._producers.get(name) for name in tensors]
        integers = [
            str(node.input[0])
            if node is not None
            and node.op_type == "DequantizeLinear"
            and node.input[0] in self._roundings
            else None
            for node in nodes
        ]
        names = [integer or name for name, integer in zip(tensors, integers, strict=True)]
        for few in self.read(names):
            for each in zip(*few, strict=True):
                yield [
                    values if integer is None else self._rounded(integer, values)
                    for integer, values in zip(integers, each, strict=True)
                ]

    def keep(self, tensor: str) -> None:
        """Computes an activation and caches it beside what is."""
        if tensor not in self._cached:
            for _ in self.read((), ahead=[*self._cached, tensor]):
                pass

    def thinning(self, node: onnx.NodeProto, otherwise: int, *, output: bool = True) -> int:
        """Returns of one in how many images what `node` and all after it follow from fits.

        Args:
            node: an operator.
            otherwise: what to return where too few images would fit.
            output: whether its output is to be cached beside.
        """
        cached = self._before(node)
        fitting = CACHE_BYTES // self._bytes([*cached, node.output[0]] if output else cached)
        every = 1
        while len(self._images[::every]) > fitting:
            every *= 2
            if len(self._images[::every]) < LEAST_CACHED:
                return otherwise
        return every

    def before(self, node: onnx.NodeProto, every: int) -> list[str]:
        """Returns by which names the activations that `node` and all after it follow from are cached.

        None where they are too large to be cached of one in `every` images.
        """
        kept = self._before(node)
        fits = self._bytes(kept) * len(self._images[::every]) <= CACHE_BYTES
        return kept if fits else []

    def advance(self, node: onnx.NodeProto, every: int = 0) -> None:
        """Caches the activations that `node` and all after it follow from, and no others.

        Where they are too large, the cached ones stay.

        Args:
            node: an operator.
            every: one of so many images; 0: of as many as fit with the operator's output.
        """
        every = every or self.thinning(node, self._every)
        if every < self._every:
            # A smaller feature map fits more images again; those were dropped, so start over.
            self._cached, self._every = {self._graph.input: self._images}, 1
        thinned, self._every = every // self._every, every
        if thinned > 1:
            # Copied, since a view would keep the images that are left out.
            self._cached = {t: values[::thinned].copy() for t, values in self._cached.items()}
        if kept := self.before(node, every):
            for _ in self.read((), ahead=kept):
                pass

    def _before(self, node: onnx.NodeProto) -> list[str]:
        """Returns the names that these activations are cached by."""
        position = self._graph.positions[node.output[0]]
        read = {t for n in self._graph.nodes[position:] for t in n.input}
        names = [self._graph.input, *self._graph.positions]
        kept = (t for t in names if t in read and self._position(t) < position)
        return list(dict.fromkeys(self._stored(t) for t in kept))

    def _stored(self, tensor: str) -> str:
        """Returns the name that an activation, or what it is computed of again, is cached by."""
        node = self._graph.producers.get(tensor)
        if tensor in self._integers or node is None or node.op_type != "Conv":
            return self._integers.get(tensor, tensor)
        # What waits in float for an addition takes four times what its convolution reads.
        return self._integers.get(node.input[0], tensor)

    def _bytes(self, names: Sequence[str]) -> int:
        """Returns what the largest of these takes of one image."""
        return max(
            int(np.prod(self._graph.shapes[self._tensor(name)], dtype=np.int64))
            * (1 if name in self._roundings else self._images.itemsize)
            for name in names
        )

    def _reader(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """Returns the convolution of this network that one of the FP32 graph became."""
        return self._producers[node.output[0]]

    def _tensor(self, name: str) -> str:
        """Returns the activation that is cached by that name."""
        return self._roundings.get(name, name)

    def _position(self, name: str) -> int:
        return self._graph.positions.get(self._tensor(name), -1)

    def _rounded(self, name: str, integers: NDArray[np.uint8]) -> Rounded:
        scale = numpy_helper.to_array(self._constants[self._producers[name].input[1]])
        zero = 0 if self._tensor(name) in self._non_negative else 128
        return Rounded(integers, np.float32(scale), zero)

    def _runner(self, names: Sequence[str]) -> Callable[[Mapping[str, NDArray[Any]]], list[Array]]:
        """Returns what makes tensors of the cached ones."""
        sources = list(self._cached)
        model = between(self._model, list(map(self._tensor, sources)), names, self._shapes)
        if self._integer:
            # First with the floats of each rounding, since the kernels are of whole pairs.
            model = cpu_target().simulated(model, self._non_negative)
            model = between(model, sources, names, self._shapes, integers=self._roundings)
        # Float kernels: integer ones would round float weights a second time.
        session = open_session(model.SerializeToString(), integer=self._integer)
        inputs = [value.name for value in model.graph.input]
        return lambda few: run_session(session, names, {name: few[name] for name in inputs})


@dataclass(frozen=True, slots=True, eq=False)
class ReplayPair:
    """The FP32 network and its quantized copy, both at the same activation of the same images."""

    exact: Replay
    quantized: Replay

    def advance(self, node: onnx.NodeProto, target: str) -> None:
        """Caches in both what `node` and all after it follow from, and the target."""
        every = max(r.thinning(node, r.every) for r in (self.exact, self.quantized))
        for replay in (self.exact, self.quantized):
            replay.advance(node, every)
            replay.keep(target)

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


def integer_replay(
    graph: Graph, placement: Placement, table: CalibrationTable, images: Array
) -> Replay:
    """Returns TensorRT's network on the images, on integer kernels.

    Args:
        graph: the FP32 graph; weights of convolutions that read rounded activations lie on grids
            of `rounding.grid_scales`.
        placement: which activations are quantized.
        table: their thresholds.
        images: (N, 3, H, W), preprocessed.
    """
    read = {edge.node for edge in placement.edges}
    # Another weight is on no grid, or, where pixels are exact, on one of its own.
    integers = replace(placement, weighted=placement.weighted & read)
    return Replay(graph, lower_for_tensorrt(graph, integers, table), images, integer=True)

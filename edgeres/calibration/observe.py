"""Observes the range and distribution of activations in one streaming pass on the CPU.

ONNX Runtime keeps FP32 activations in blocks of channels (NCHWc); reading one out costs a
reorder of the whole tensor. So the observers are operators that its blocked kernels have:

- amax: GlobalMaxPool of x behind a ReLU, of x * x where x has a sign. The root of the rounded
  square of a float is the float's absolute value exactly, unless it over- or underflows, so
  extremes are exact.
- a sample: MaxPool with a 1x1 window and an odd stride takes a fixed grid of positions, in
  every channel of every image, and only those leave the blocked layout. The grid is the
  coarsest that holds about `SAMPLE_SIZE` values a tensor and image (all of them in a small
  tensor). A share of q of the values of n images then has the standard error
  sqrt(q (1 - q) / (n * SAMPLE_SIZE)) where values are independent: for 99.99 % and 512 images
  5e-6, so the share that percentile clips is known within about 10 % of itself at two sigma.

Memory holds one batch and one histogram a tensor, however many images come.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeres.core.batches import ImageBatch
from edgeres.errors import CalibrationError, RunnerError
from edgeres.quantization.graph import Graph
from edgeres.quantization.thresholds import Distribution
from edgeres.session import open_session, run_session
from edgeres.targets.onnxruntime.placement import integer_tensors

SAMPLE_SIZE = 4096
"""Values of one image that a tensor's histogram takes at least, where the tensor has them."""

_BINS = 8192
"""After any number of doublings at least half of the bins lie below the maximum, so that
`methods.SEARCH_BINS` are always resolved."""

_PEAK_SHARE = 0.99
"""Share of the images whose largest value in a channel is within the range of that channel."""

_LEAST_LIMIT = 2.0**-100
"""Below it the bins per unit would overflow float32; `Grid.scale_from_amax` takes such a tensor
for dead."""

_SPATIAL = "edgeres_spatial_shape"
"""Initializer that makes (N, features), as between two classifier layers, (N, features, 1, 1)."""


@dataclass(frozen=True, slots=True)
class _Observer:
    """The two extra outputs that measure one tensor."""

    tensor: str
    squared: bool
    """Whether `peak` is of x * x."""

    @property
    def peak(self) -> str:
        return self.tensor + "/edgeres_peak"

    @property
    def sample(self) -> str:
        return self.tensor + "/edgeres_sample"

    def nodes(self, graph: Graph) -> list[onnx.NodeProto]:
        """Returns the operators that compute both outputs.

        Raises:
            CalibrationError: the size of the tensor is not known.
        """
        shape = graph.shapes.get(self.tensor)
        if not shape:
            raise CalibrationError(
                f"The size of activation '{self.tensor}' does not follow from the model's input. "
                "Export the model with a fixed image size."
            )
        nodes, source, stride = [], self.tensor, 1
        if len(shape) == 3:
            # The largest odd stride that leaves `SAMPLE_SIZE` values. Odd, to meet both parities:
            # strided convolutions later read even positions alone, so an even grid is not neutral.
            channels, height, width = shape
            while stride < max(height, width):
                wider = stride + 2
                if channels * -(-height // wider) * -(-width // wider) < SAMPLE_SIZE:
                    break
                stride = wider
        else:
            source = self.tensor + "/edgeres_spatial"
            nodes.append(helper.make_node("Reshape", [self.tensor, _SPATIAL], [source]))
        measured = source
        if self.squared:
            # Abs has no kernel for blocked channels, a product of two tensors has.
            measured = self.tensor + "/edgeres_square"
            nodes.append(helper.make_node("Mul", [source] * 2, [measured]))
        # Both pools read the blocked layout, so no whole activation is reordered.
        return [
            *nodes,
            helper.make_node("GlobalMaxPool", [measured], [self.peak]),
            helper.make_node(
                "MaxPool",
                [source],
                [self.sample],
                kernel_shape=[1, 1],
                strides=[stride, stride],
            ),
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """A session that measures some tensors beside what its network computes."""

    session: Any
    input: str
    output: str
    observers: tuple[_Observer, ...]

    @property
    def outputs(self) -> list[str]:
        """Outputs of the session to fetch: of each tensor the peak, then the sample."""
        return [name for o in self.observers for name in (o.peak, o.sample)]


def calibrated_tensors(graph: Graph) -> tuple[str, ...]:
    """Returns every tensor that a target needs a range of, in topological order.

    That of a global mean is for TensorRT's calibration cache alone.
    """
    # TensorRT quantizes the inputs of convolutions and Adds, which the CPU keeps as integers too.
    roots = {graph.root(tensor) for tensor in integer_tensors(graph)}
    roots |= {n.output[0] for n in graph.nodes if n.op_type == "GlobalAveragePool"} - {graph.output}
    produced = [out for node in graph.nodes for out in node.output]
    return tuple(name for name in (graph.input, *produced) if name in roots)


def observed_tensors(graph: Graph) -> tuple[str, ...]:
    """Returns the calibrated tensors and those that are only bounded, in topological order.

    The latter are the logits, or probabilities, and what classifier layers compute: they stay
    float, and FP16 has to hold them.
    """
    tensors = set(calibrated_tensors(graph))
    classifiers = {n.output[0] for n in graph.nodes if n.op_type in {"Gemm", "MatMul"}}
    # Of a tensor whose size is not known nothing can be observed, and INT8 does not need it.
    roots = {graph.root(name) for name in (*classifiers, graph.output)}
    tensors |= {name for name in roots if name in graph.shapes}
    produced = [out for node in graph.nodes for out in node.output]
    return tuple(name for name in (graph.input, *produced) if name in tensors)


def open_observation(model: onnx.ModelProto, graph: Graph, tensors: Sequence[str]) -> Observation:
    """Returns a session on the model that measures these tensors.

    Args:
        model: the FP32 network; it is emptied, so that its weights are not in memory twice.
        graph: its structure; the values of weights are not read.
        tensors: to observe, in topological order.

    Raises:
        CalibrationError: the size of a tensor is not known.
        RunnerError: ONNX Runtime refused the model.
    """
    observers = tuple(_Observer(name, not graph.is_non_negative(name)) for name in tensors)
    added = onnx.ModelProto(ir_version=graph.model.ir_version)
    added.graph.initializer.append(numpy_helper.from_array(np.array([0, -1, 1, 1]), _SPATIAL))
    for observer in observers:
        added.graph.node.extend(observer.nodes(graph))
        added.graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            for name in (observer.peak, observer.sample)
        )
    model.MergeFrom(added)
    serialized = model.SerializeToString()
    # Before the session takes its own copy of the weights: two at a time, not three.
    model.Clear()
    # Planned as one block, the activations that all of the observers read would stay at once.
    session = open_session(serialized, memory_pattern=False)
    return Observation(session, graph.input, graph.output, observers)


def observe(
    observation: Observation,
    batches: Iterable[ImageBatch],
    logits: list[NDArray[np.float32]] | None = None,
) -> dict[str, Distribution]:
    """Returns the distribution of each tensor over all batches.

    Args:
        observation: of the tensors.
        batches: images.
        logits: receives the network's own outputs, by batch.

    Raises:
        CalibrationError: no images, or an activation that is NaN or infinite.
        RunnerError: ONNX Runtime refused the images.
    """
    histograms = {o.tensor: _Histogram() for o in observation.observers}
    outputs = [*observation.outputs, *([] if logits is None else [observation.output])]
    for batch in batches:
        _check_finite(observation.input, np.abs(batch.images).max())
        try:
            values = run_session(observation.session, outputs, {observation.input: batch.images})
            if logits is not None:
                # A copy: the array's memory is the session's, which would stay with it.
                logits.append(values.pop().copy())
        except RunnerError as error:
            raise RunnerError(
                "The model does not run on calibration images of the shape "
                f"{batch.images.shape}. Export it for this image size, with a dynamic batch. ONNX "
                f"Runtime: {' '.join(str(error).split())}"
            ) from error
        measured = zip(observation.observers, values[::2], values[1::2], strict=True)
        for observer, peak, sample in measured:
            magnitudes = np.abs(sample, out=sample)
            # The sample counts too: small squares underflow, and ONNX Runtime's pooling passes
            # over most NaN, which numpy's maximum keeps.
            largest = np.sqrt(peak.max()) if observer.squared else peak.max()
            amax = np.maximum(largest, magnitudes.max())
            _check_finite(observer.tensor, amax)
            histograms[observer.tensor].add(float(amax), magnitudes)
    if not histograms or all(h.empty for h in histograms.values()):
        raise CalibrationError("No image came through calibration. Pass --data with images.")
    return {name: histogram.distribution() for name, histogram in histograms.items()}


def channel_peaks(
    observation: Observation, batches: Iterable[NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """Returns what the largest magnitude in each channel reaches in 99 % of images, (C,), by tensor.

    Args:
        observation: of the tensors.
        batches: images, each (N, 3, H, W).

    Raises:
        RunnerError: ONNX Runtime refused the images.
    """
    peaks: dict[str, list[NDArray[np.float32]]] = {o.tensor: [] for o in observation.observers}
    for images in batches:
        values = run_session(
            observation.session, observation.outputs[::2], {observation.input: images}
        )
        for observer, peak in zip(observation.observers, values, strict=True):
            largest = peak.reshape(*peak.shape[:2])
            peaks[observer.tensor].append(np.sqrt(largest) if observer.squared else largest.copy())
    return {
        tensor: np.quantile(np.concatenate(each), _PEAK_SHARE, axis=0).astype(np.float32)
        for tensor, each in peaks.items()
    }


class _Histogram:
    """Counts of |x| whose range doubles, merging bins in pairs, when a larger value comes."""

    def __init__(self) -> None:
        """Starts with nothing counted."""
        self._counts = np.zeros(_BINS, np.int64)
        self._limit = 0.0
        self._zeros = 0
        self._amax = 0.0

    @property
    def empty(self) -> bool:
        """Whether no value was added."""
        return not self._zeros and not self._counts.any()

    def add(self, amax: float, sample: NDArray[np.float32]) -> None:
        """Adds one batch: its exact largest absolute value, and a sample of them (overwritten)."""
        self._amax = max(self._amax, amax)
        if self._amax > 0:
            # A power of two above the extreme: doubling it merges bins exactly in pairs.
            needed = max(_LEAST_LIMIT, float(2.0 ** (np.floor(np.log2(self._amax)) + 1)))
            self._limit = self._limit or needed
            while self._limit < needed:
                half = self._counts.reshape(-1, 2).sum(axis=1)
                self._counts = np.concatenate([half, np.zeros_like(half)])
                self._limit *= 2
        flat = sample.ravel()
        # Zeros are counted apart: behind a ReLU they are half of the values and no error at all.
        zeros = flat.size - int(np.count_nonzero(flat))
        self._zeros += zeros
        if zeros == flat.size:
            return
        flat *= np.float32(_BINS / self._limit)
        counts = np.bincount(flat.astype(np.int32), minlength=_BINS)
        counts[0] -= zeros
        self._counts += counts

    def distribution(self) -> Distribution:
        """Returns what was counted."""
        return Distribution(self._counts, self._limit / _BINS, self._zeros, self._amax)


def _check_finite(tensor: str, amax: np.float32) -> None:
    if not np.isfinite(amax):
        raise CalibrationError(
            f"Activation '{tensor}' is NaN or infinite on a calibration image. "
            "The FP32 model is broken there: check its weights and the preprocessing contract."
        )

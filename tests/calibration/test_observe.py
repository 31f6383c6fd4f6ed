"""What calibration sees is what the activations hold: exact extremes, a stated sample."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import images, network, network_from_body, with_weight
from numpy.typing import NDArray
from onnx import TensorProto, helper, parser
from tables import Batch, observed

from edgeres.calibration.observe import calibrated_tensors, observed_tensors
from edgeres.errors import CalibrationError, RunnerError
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.thresholds import Distribution

Array = NDArray[np.float32]


def activations(model: onnx.ModelProto, tensors: tuple[str, ...], batch: Array) -> list[Array]:
    """Returns whole activations, from a session that hands every one of them out."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    graph_input = model.graph.input[0].name
    made = [name for name in tensors if name != graph_input]
    del exposed.graph.output[:]
    exposed.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in made
    )
    session = onnxruntime.InferenceSession(
        exposed.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found = dict(zip(made, session.run(made, {graph_input: batch}), strict=True))
    return [batch if name == graph_input else found[name] for name in tensors]


def seen_by(graph: Graph, *batches: Array) -> dict[str, Distribution]:
    """Returns what calibration keeps of every tensor that it needs."""
    return observed(graph, calibrated_tensors(graph), map(Batch, batches))


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("logits = Gemm<transB = 1>(flat, fc_w, fc_b)", {"logits"}),
        ("scores = Gemm<transB = 1>(flat, fc_w, fc_b) logits = Softmax(scores)", {"scores", "logits"}),
        ("scores = Gemm<transB = 1>(flat, fc_w, fc_b) logits = Relu(scores)", {"scores", "logits"}),
    ],
)  # fmt: skip
def test_what_stays_float_is_bounded_too(end: str, expected: set[str]) -> None:
    """Logits, probabilities, and what classifier layers compute, beside what INT8 needs."""
    body = f"""
      last = Conv<pads = [1, 1, 1, 1]>(image, stem_w, stem_b)
      pooled = GlobalAveragePool(last) flat = Flatten(pooled) {end}
    """
    graph = view(network_from_body(body))
    assert set(observed_tensors(graph)) - set(calibrated_tensors(graph)) == expected


def one_convolution(size: int) -> onnx.ModelProto:
    """Returns a network of one convolution that subtracts 1 from an image of that size."""
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> '
        f"one (float[N,3,{size},{size}] image) => (float[N,3,{size},{size}] out) "
        "{ out = Conv(image, weight, bias) }"
    )
    values = {"weight": np.eye(3)[:, :, None, None], "bias": np.full(3, -1.0)}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(v.astype(np.float32), k) for k, v in values.items()
    )
    return model


def assert_counts(seen: Distribution, sample: Array) -> None:
    """Compares a distribution with numpy's histogram of the sampled magnitudes."""
    magnitudes = np.abs(sample.astype(np.float64)).ravel()
    limit = seen.bin_width * len(seen.counts)
    expected, _ = np.histogram(magnitudes[magnitudes > 0], len(seen.counts), (0, limit))
    np.testing.assert_array_equal(seen.counts, expected)
    assert seen.zeros == (magnitudes == 0).sum()


@pytest.mark.parametrize("name", ["bottleneck", "max-pooled stem", "two-layer head"])
def test_extremes_are_exact_on_every_activation(name: str) -> None:
    """Over three batches amax is numpy's of the whole activation, whichever sign it has."""
    model = network(name)
    graph = view(model)
    tensors = calibrated_tensors(graph)
    batches = [images(4, seed) * (1 + seed) for seed in range(3)]
    seen = observed(graph, tensors, map(Batch, batches))
    whole = [activations(model, tensors, batch) for batch in batches]
    expected = {
        tensor: max(float(np.abs(values[i]).max()) for values in whole)
        for i, tensor in enumerate(tensors)
    }
    assert {tensor: d.amax for tensor, d in seen.items()} == expected


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_magnitude_counts_with_either_sign(sign: int) -> None:
    """One pixel between the sampled positions decides amax, be it positive or negative."""
    batch = np.zeros((2, 3, 224, 224), np.float32)
    batch[1, 2, 3, 4] = sign * np.float32(7.3)
    seen = observed(view(one_convolution(224)), ["image"], [Batch(batch)])
    assert seen["image"].amax == float(np.float32(7.3))


@pytest.mark.parametrize("name", ["identity", "pre-activation", "two-layer head"])
def test_a_small_activation_is_counted_whole(name: str) -> None:
    """The histogram is numpy's of every value, before and after its range has doubled."""
    model = network(name)
    graph = view(model)
    tensors = calibrated_tensors(graph)
    batches = [images(3, 0), images(5, 1) * 9, images(1, 2) * np.float32(0.01)]
    seen = observed(graph, tensors, map(Batch, batches))
    for i, tensor in enumerate(tensors):
        parts = [activations(model, tensors, batch)[i].ravel() for batch in batches]
        assert_counts(seen[tensor], np.concatenate(parts))


@pytest.mark.parametrize(("size", "stride"), [(36, 1), (112, 3), (224, 5)])
def test_a_large_activation_is_sampled_on_an_odd_grid(size: int, stride: int) -> None:
    """About 4096 values an image: the widest odd stride that leaves as many, in every channel."""
    generator = np.random.default_rng(size)
    batches = [generator.standard_normal((2, 3, size, size)).astype(np.float32) for _ in range(2)]
    batches[1] *= 5
    seen = observed(view(one_convolution(size)), ["image", "out"], map(Batch, batches))
    sampled = np.concatenate([batch[:, :, ::stride, ::stride] for batch in batches])
    assert_counts(seen["image"], sampled)
    assert_counts(seen["out"], sampled - np.float32(1))


def test_order_and_batch_size_do_not_matter() -> None:
    """The same images one by one, in eights or backwards give the same distributions."""
    graph = view(network("down-sampling"))
    batch = images(16)
    whole = seen_by(graph, batch)
    for parts in (np.split(batch, 16), np.split(batch[::-1], 2)):
        again = seen_by(graph, *map(np.ascontiguousarray, parts))
        for tensor, seen in whole.items():
            assert again[tensor].amax == seen.amax
            np.testing.assert_array_equal(again[tensor].counts, seen.counts)


def test_memory_does_not_grow_with_the_images() -> None:
    """No batch but the last is kept, and the histogram has as many bins as after the first."""
    kept: list[weakref.ref[Array]] = []

    def stream() -> Iterator[Batch]:
        for seed in range(12):
            assert all(batch() is None for batch in kept[:-1])
            batch = images(2, seed) * (1 + seed)
            kept.append(weakref.ref(batch))
            yield Batch(batch)
            del batch

    graph = view(network("identity"))
    seen = observed(graph, calibrated_tensors(graph), stream())
    first = seen_by(graph, images(2, 0))
    assert {t: len(d.counts) for t, d in seen.items()} == {
        t: len(d.counts) for t, d in first.items()
    }


def test_a_tensor_that_is_always_zero_has_zeros_only() -> None:
    """A dead ReLU is counted as zeros, with no bin filled and no maximum."""
    model = with_weight(network("identity"), "main1_w", np.zeros_like)
    model = with_weight(model, "main1_b", lambda bias: np.full_like(bias, -1))
    seen = seen_by(view(model), images(4))["hidden_relu"]
    assert (seen.amax, seen.counts.sum(), seen.zeros) == (0, 0, 4 * 8 * 16 * 16)


@pytest.mark.parametrize("magnitude", [1e-22, 1e-30, 1e-44])
def test_magnitudes_whose_square_underflows_are_observed(magnitude: float) -> None:
    """An almost dead tensor is neither lost nor a crash."""
    batch = images(4) * np.float32(magnitude)
    seen = observed(view(network("identity")), ["image"], [Batch(batch)])["image"]
    assert seen.amax == pytest.approx(float(np.abs(batch).max()), rel=0.01)
    assert seen.counts.sum() + seen.zeros == batch.size


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [(0, 0, 0, 0), (1, 2, 100, 101), (1, 0, 223, 223)])
def test_a_broken_image_is_refused(value: float, position: tuple[int, ...]) -> None:
    """One value that is no number, wherever it stands, ends calibration with the tensor's name."""
    batch = np.zeros((2, 3, 224, 224), np.float32)
    batch[position] = value
    with pytest.raises(CalibrationError, match="'image' is NaN or infinite"):
        observed(view(one_convolution(224)), ["out"], [Batch(batch)])


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize("index", [0, 8])
def test_a_broken_activation_is_refused_by_name(value: float, index: int) -> None:
    """A weight that is no number, or overflows, names the first activation that it breaks."""

    def broken(weight: Array) -> Array:
        weight.flat[index] = value
        return weight

    graph = view(with_weight(network("identity"), "main2_w", broken))
    with pytest.raises(CalibrationError, match=r"'main' is NaN or infinite .* check its weights"):
        seen_by(graph, images(4))


def test_no_image_is_no_calibration() -> None:
    """Without a batch there is no range, and the message says what to pass."""
    with pytest.raises(CalibrationError, match=r"No image came through .* Pass --data"):
        seen_by(view(network("identity")))


def test_images_that_the_model_does_not_take_are_refused() -> None:
    """A model of fixed batch 1 says so, in a sentence with the shape."""
    model = network("identity")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(RunnerError, match=r"\(4, 3, 16, 16\).* with a dynamic batch"):
        seen_by(view(model), images(4))


def test_a_model_without_an_image_size_is_refused() -> None:
    """A dynamic height leaves the sampled grid open; the message says how to export."""
    model = network("identity")
    model.graph.input[0].type.tensor_type.shape.dim[2].Clear()
    with pytest.raises(CalibrationError, match=r"activation 'image' .* fixed image size"):
        seen_by(view(model), images(1))


def test_a_tensor_without_spatial_axes_is_observed() -> None:
    """An Add behind ReduceMean reads (N, features), which has extremes like any tensor."""
    model = network_from_body(
        """
  last_conv = Conv(image, stem_w, stem_b)
  last = Relu(last_conv)
  flat = ReduceMean<axes = [2, 3], keepdims = 0>(last)
  doubled = Add(flat, flat)
  logits = Gemm<transB = 1>(doubled, fc_w, fc_b)
"""
    )
    graph = view(model)
    seen = seen_by(graph, images(4))["flat"]
    (expected,) = activations(model, ("flat",), images(4))
    assert seen.amax == pytest.approx(float(expected.max()), rel=1e-6)
    assert seen.counts.sum() == 4 * 8


def test_a_range_is_calibrated_once_for_all_that_share_it() -> None:
    """Pools, slices and pads have the range of their source; logits need none."""
    assert calibrated_tensors(view(network("option A"))) == (
        "image",
        "entry",
        "hidden_relu",
        "main",
        "last",
        "pooled",
    )
    assert "stem_relu" in calibrated_tensors(view(network("max-pooled stem")))
    assert "entry" not in calibrated_tensors(view(network("max-pooled stem")))

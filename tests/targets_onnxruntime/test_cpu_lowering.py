"""The CPU's lowering: on the grid it claims, integer throughout, and robust to dead channels."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from networks import (
    FOLDED,
    NAMES,
    images,
    initializers,
    logits_of,
    network,
    network_from_body,
    with_weight,
)
from numpy.typing import NDArray
from tables import table_by_every_method, table_from_amax, table_from_images, table_of

from edgeres.core.methods import Method
from edgeres.core.table import CalibrationTable, TensorRange, Threshold
from edgeres.errors import ArtifactError
from edgeres.quantization.graph import view
from edgeres.quantization.weights import weight_scales
from edgeres.session import open_session
from edgeres.targets.onnxruntime.lowering import lower_for_cpu

torch = pytest.importorskip("torch", reason="torch, the reference here, is not installed")

Array = NDArray[np.float32]
Exact = NDArray[np.float64]

INT8_ERROR = 0.02
"""Largest accepted |INT8 - FP32| as a share of the largest |logit|: 0.0165 was measured."""


class Grid(NamedTuple):
    """A u8 grid, written down anew: value = scale * (stored - zero)."""

    scale: float
    zero: int


def grid(threshold: Threshold) -> Grid:
    """Returns the grid of a threshold: 127 steps each side of zero, or 255 above it."""
    if threshold.u8 is None:
        return Grid(float(np.float32(threshold.s8 / 127)), 128)
    return Grid(float(np.float32(threshold.u8 / 255)), 0)


def stored(values: Exact, to: Grid) -> Exact:
    """Returns the integers, minus the zero point, that the grid keeps of real values."""
    return np.asarray(np.clip(np.rint(values / to.scale) + to.zero, 0, 255) - to.zero)


def integer_layer(x: Exact, source: Grid, weight: Array, bias: Array) -> Exact:
    """Returns a 3x3 convolution in exact integer arithmetic, as real values."""
    scales = np.abs(weight).reshape(len(weight), -1).max(axis=1).astype(np.float64) / 127
    w = torch.from_numpy(np.rint(weight / scales.reshape(-1, 1, 1, 1)))
    units = source.scale * scales
    b = torch.from_numpy(np.rint(bias / units))
    summed = torch.nn.functional.conv2d(torch.from_numpy(x), w, b, padding=1)
    return np.asarray(summed.numpy() * units.reshape(-1, 1, 1))


def simulated_identity(model: onnx.ModelProto, thresholds: dict[str, Threshold], x: Array) -> Exact:
    """Returns the identity network's logits from the FP32 weights and thresholds alone."""
    w = initializers(model)
    g = {name: grid(threshold) for name, threshold in thresholds.items()}

    def layer(value: Exact, source: str, name: str) -> Exact:
        return integer_layer(value, g[source], w[name + "_w"], w[name + "_b"])

    image = stored(x.astype(np.float64), g["image"])
    entry = stored(layer(image, "image", "stem"), g["entry"])
    hidden = stored(layer(entry, "entry", "main1"), g["hidden_relu"])
    main = stored(layer(hidden, "hidden_relu", "main2"), g["main"])
    last = stored(main * g["main"].scale + entry * g["entry"].scale, g["last"])
    features = last.mean(axis=(2, 3)) * g["last"].scale
    return np.asarray(features @ w["fc_w"].T.astype(np.float64) + w["fc_b"])


def thresholds_of(table: CalibrationTable) -> dict[str, Threshold]:
    """Returns the table's thresholds by its own method."""
    return {name: table.threshold(name) for name in table.tensors}


def lowered(model: onnx.ModelProto, x: Array) -> onnx.ModelProto:
    """Returns the model lowered with the ranges that `x` gives."""
    graph = view(model)
    return lower_for_cpu(graph, table_from_images(graph, x))


def error_of(model: onnx.ModelProto, x: Array) -> float:
    """Returns the largest |INT8 - FP32| as a share of the largest |logit|."""
    expected = logits_of(model, x)
    return float(np.abs(logits_of(lowered(model, x), x) - expected).max() / np.abs(expected).max())


def one_step_of_every_feature(model: onnx.ModelProto) -> float:
    """Returns what a logit changes by when all that the mean is taken of moves by one step."""
    found = initializers(model)
    heads = [found[n.input[1]] for n in model.graph.node if n.op_type == "Gemm"]
    weight = np.linalg.multi_dot([np.abs(w) for w in [*heads[::-1], np.eye(len(heads[0].T))]])
    return float(weight.sum(axis=1).max() * found["last/scale"])


@pytest.mark.parametrize("name", NAMES)
def test_logits_stay_close_to_fp32(name: str) -> None:
    """Every kind of block computes what it did, up to INT8's error."""
    assert error_of(network(name), images(16, 3)) < INT8_ERROR


@pytest.mark.parametrize("tensor", ["image", "entry", "hidden_relu", "main", "last"])
def test_half_a_scale_shows_against_exact_arithmetic(tensor: str) -> None:
    """Seeded fault: one threshold too low by half is far beyond what the simulation allows."""
    model, x = network("identity"), images(16, 3)
    graph = view(model)
    table = table_from_images(graph, x)
    right = table.threshold(tensor)
    halved = Threshold(s8=right.s8 / 2, u8=None if right.u8 is None else right.u8 / 2)
    seen = replace(table.tensors[tensor], thresholds={Method.MAX: halved})
    wrong = lower_for_cpu(graph, table_of({**table.tensors, tensor: seen}))
    expected = simulated_identity(model, thresholds_of(table), x)
    assert np.abs(logits_of(wrong, x) - expected).max() > one_step_of_every_feature(wrong) / 20


@pytest.mark.parametrize("optimized", [True, False])
def test_logits_are_those_of_exact_integer_arithmetic(optimized: bool) -> None:
    """An integer simulation from weights and thresholds gives the logits to a small part of a step."""
    model, x = network("identity"), images(16, 3)
    graph = view(model)
    table = table_from_images(graph, x)
    lowering = lower_for_cpu(graph, table)
    expected = simulated_identity(model, thresholds_of(table), x)
    actual = logits_of(lowering, x, optimized=optimized)
    assert np.abs(actual - expected).max() < one_step_of_every_feature(lowering) / 20


@pytest.mark.parametrize("name", NAMES)
def test_fusions_change_no_more_than_roundings(name: str) -> None:
    """ONNX Runtime's integer kernels and its unfused Q/DQ differ by less than one step."""
    x = images(16, 3)
    model = lowered(network(name), x)
    difference = np.abs(logits_of(model, x) - logits_of(model, x, optimized=False)).max()
    assert difference < one_step_of_every_feature(model)


@pytest.mark.parametrize("name", FOLDED)
def test_only_the_classifier_is_left_in_float(name: str, tmp_path: Path) -> None:
    """After ONNX Runtime's fusions the image alone is quantized, and nothing has to be read back."""
    x = images(4, 3)
    path = tmp_path / "optimized.onnx"
    open_session(lowered(network(name), x).SerializeToString(), optimized=path)
    found = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (1, 0)
    assert not found.keys() & {"Conv", "FusedConv", "Add", "Relu", "GlobalAveragePool"}
    assert {"QLinearConv", "MatMulInteger"} <= found.keys()
    assert found["QLinearAdd"] == (name != "bottleneck")  # there it is part of a convolution


def test_a_signed_grid_behind_a_relu_is_refused() -> None:
    """Seeded fault: the dropped ReLU would let negative values through."""
    graph = view(network("identity"))
    table = table_from_amax(graph, {})
    signed = TensorRange(amax=1.0, signed=True, thresholds={Method.MAX: Threshold(s8=1.0)})
    wrong = table_of({**table.tensors, "entry": signed})
    with pytest.raises(ArtifactError, match=r"'entry' for signed, .* run calibrate again"):
        lower_for_cpu(graph, wrong)


def test_an_unsigned_grid_on_a_signed_tensor_is_refused() -> None:
    """Seeded fault: negative values would silently become zero."""
    graph = view(network("identity"))
    table = table_from_amax(graph, {})
    wrong = table_of({**table.tensors, "main": table.tensors["entry"]})
    with pytest.raises(ArtifactError, match=r"'main' for unsigned, .*"):
        lower_for_cpu(graph, wrong)


def test_a_table_without_a_tensor_is_refused() -> None:
    """A missing range is no default range."""
    graph = view(network("identity"))
    table = table_from_amax(graph, {})
    kept = {name: seen for name, seen in table.tensors.items() if name != "main"}
    with pytest.raises(ArtifactError, match="no tensor 'main' among its 5"):
        lower_for_cpu(graph, table_of(kept))


def test_the_method_chooses_the_threshold() -> None:
    """The table's own method counts unless another is named."""
    graph = view(network("identity"))
    table = table_by_every_method(graph, images(8))
    for method in table.tensors["main"].thresholds:
        scale = initializers(lower_for_cpu(graph, table, method))["main/scale"]
        assert scale == np.float32(table.threshold("main", method).s8 / 127)
    own = lower_for_cpu(graph, replace(table, method=Method.ENTROPY))
    entropy = table.threshold("entry", Method.ENTROPY).u8
    assert entropy is not None
    assert initializers(own)["entry/scale"] == np.float32(entropy / 255)


def test_zero_points_follow_the_sign() -> None:
    """Zero point 128 where a tensor has a sign, 0 behind a ReLU, u8 everywhere."""
    found = initializers(lowered(network("option A"), images(4)))
    points = {name.split("/")[0]: v for name, v in found.items() if name.endswith("/zero_point")}
    assert {v.dtype for v in points.values()} == {np.dtype(np.uint8)}
    assert {name: int(v) for name, v in points.items()} == {
        "image": 128,
        "entry": 0,
        "hidden_relu": 0,
        "main": 128,
        "last": 0,
    }


def test_padding_is_the_zero_point() -> None:
    """Option A's new channels hold what stands for zero, also where the tensor has a sign."""
    model = network_from_body(
        """
  entry = Conv<pads = [1, 1, 1, 1]>(image, stem_w, stem_b)
  sliced = Slice(entry, starts, ends, axes, steps)
  shortcut = Pad(sliced, padding)
  main = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(entry, down1_w, down1_b)
  sum = Add(main, shortcut)
  last = Relu(sum)
  pooled = GlobalAveragePool(last)
  flat = Flatten(pooled)
  logits = Gemm<transB = 1>(flat, fc16_w, fc16_b)
"""
    )
    found = lowered(model, images(8))
    pad = next(node for node in found.graph.node if node.op_type == "Pad")
    assert initializers(found)[pad.input[2]] == 128
    assert error_of(model, images(8)) < INT8_ERROR


@pytest.mark.parametrize("amax", [0.0, 1e-30])
def test_a_dead_activation_changes_nothing(amax: float) -> None:
    """A ReLU that is always zero keeps a usable scale, and the logits stay right."""
    model = with_weight(network("identity"), "main1_w", np.zeros_like)
    model = with_weight(model, "main1_b", lambda bias: np.full_like(bias, amax or -1))
    assert error_of(model, images(16, 3)) < INT8_ERROR


def test_a_constant_activation_is_kept() -> None:
    """A channel that is the same everywhere comes back within its step."""
    model = with_weight(network("identity"), "main1_w", np.zeros_like)
    model = with_weight(model, "main1_b", np.ones_like)
    assert error_of(model, images(16, 3)) < INT8_ERROR


def test_a_channel_of_zeros_has_a_positive_scale() -> None:
    """A pruned channel is all zeros in INT8 too, with a scale that nothing divides by zero."""

    def pruned(weight: Array) -> Array:
        weight[2] = 0
        return weight

    model = with_weight(network("identity"), "main2_w", pruned)
    found = initializers(lowered(model, images(4)))
    name = next(name for name in found if name.endswith("/weight_s8") and not found[name][2].any())
    assert found[name.replace("_s8", "_scale")][2] > 0
    assert error_of(model, images(16, 3)) < INT8_ERROR


@pytest.mark.parametrize("magnitude", [1e-7, 1e-12, 1e-30])
@pytest.mark.parametrize("bias", [3.0, -3.0])
def test_the_bias_of_a_nearly_dead_channel_does_not_wrap(magnitude: float, bias: float) -> None:
    """In units of its tiny weight scale the bias is beyond int32; a coarser scale holds it."""

    def fading(weight: Array) -> Array:
        weight[1] *= magnitude
        return weight

    def large(value: Array) -> Array:
        value[1] = bias
        return value

    model = with_weight(with_weight(network("identity"), "main2_w", fading), "main2_b", large)
    table = table_from_images(view(model), images(4))
    threshold = table.threshold("hidden_relu").u8
    assert threshold is not None
    unit = threshold / 255 * float(weight_scales(initializers(model)["main2_w"], 0)[1])
    assert abs(bias) / unit > 2**31

    found = initializers(lower_for_cpu(view(model), table))
    name = next(n for n, v in found.items() if n.endswith("bias_s32") and abs(v[1]) > 2**29)
    restored = found[name][1] * found[name.replace("_s32", "_scale")][1]
    assert abs(found[name][1]) <= 2**30
    assert restored == pytest.approx(bias, rel=1e-6)
    assert error_of(model, images(16, 3)) < INT8_ERROR


def test_layers_may_lack_a_bias() -> None:
    """A convolution without bias is integer all the same."""
    model = network("two-layer head")
    for node in model.graph.node:
        if node.op_type in {"Conv", "Gemm"}:
            del node.input[2:]
    assert not [n for n in initializers(lowered(model, images(4))) if n.endswith("bias_s32")]
    assert error_of(model, images(16, 3)) < INT8_ERROR


def test_input_output_and_metadata_stay() -> None:
    """Only what stands between the image and the logits is written anew."""
    model = network("bottleneck")
    model.metadata_props.add(key="edgeres.contract", value="{}")
    result = lowered(model, images(4))
    assert list(result.graph.input) == list(model.graph.input)
    assert list(result.graph.output) == list(model.graph.output)
    assert list(result.metadata_props) == list(model.metadata_props)
    kept = {name for name in initializers(result) if name.endswith(("_w", "_b"))}
    assert kept == {"fc16_w", "fc16_b"}


def stem_shape(model: onnx.ModelProto) -> tuple[int, ...]:
    """Returns (channels, height, width) of the first convolution's window."""
    found = initializers(model)
    return next(v.shape[1:] for name, v in found.items() if name.endswith("/weight_s8"))


def test_a_strided_stem_is_folded_without_changing_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The logits are those of the lowering that leaves the first convolution alone."""
    body = """
  stem = Conv<pads = [3, 3, 3, 3], strides = [2, 2]>(image, stem7_w, stem7_b)
  entry = Relu(stem)
  pooled = GlobalAveragePool(entry)
  flat = Flatten(pooled)
  logits = Gemm<transB = 1>(flat, fc_w, fc_b)
"""
    model, x = network_from_body(body), images(16, 3)
    folded = lowered(model, x)
    monkeypatch.setattr("edgeres.targets.onnxruntime.lowering.folded_stem", lambda *_: None)
    plain = lowered(model, x)
    assert [stem_shape(m) for m in (folded, plain)] == [(12, 4, 4), (3, 7, 7)]
    np.testing.assert_array_equal(logits_of(folded, x), logits_of(plain, x))
    assert error_of(model, x) < INT8_ERROR


def test_an_image_that_two_operators_read_is_not_folded() -> None:
    """The other one needs the pixels where they are."""
    body = """
  stem = Conv<pads = [3, 3, 3, 3], strides = [2, 2]>(image, stem7_w, stem7_b)
  side = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(image, stem_w, stem_b)
  entry = Add(stem, side)
  pooled = GlobalAveragePool(entry)
  flat = Flatten(pooled)
  logits = Gemm<transB = 1>(flat, fc_w, fc_b)
"""
    model, x = network_from_body(body), images(16, 3)
    assert stem_shape(lowered(model, x)) == (3, 7, 7)
    assert error_of(model, x) < 2 * INT8_ERROR

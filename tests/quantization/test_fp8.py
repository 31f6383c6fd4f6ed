"""FP8 (E4M3): its numbers are ml_dtypes' own, and its networks are computed as ONNX computes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import FOLDED, images, network
from numpy.typing import NDArray
from onnx import numpy_helper
from tables import saved_network

from edgeres.core.artifacts import Fp16Layer
from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.core.table import CalibrationTable, Threshold
from edgeres.errors import ArtifactError, ConfigError, QuantizationError
from edgeres.onnx_file import LoadedModel, LoweredNetwork
from edgeres.quantization.fp16 import fit
from edgeres.quantization.grids import E4M3, INT8, e4m3_codes, positive_e4m3
from edgeres.quantization.lowering import ALL_INTEGER
from edgeres.quantization.qdq.network import quantize_for_tensorrt, requested_network
from edgeres.quantization.thresholds import Distribution, entropy_amax, mse_amax
from edgeres.quantization.weights import mse_weight_scales
from edgeres.session import open_session, run_session
from edgeres.targets.session_runner import network_runner

Array = NDArray[np.float32]


def by_ml_dtypes(values: Array) -> Array:
    """Returns values rounded to E4M3 by ml_dtypes, saturated first: beyond 464 it gives NaN."""
    rounded: Array = values.clip(-448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    return rounded


def fp8_network(
    model: LoadedModel, table: CalibrationTable, *, float_stream: bool
) -> LoweredNetwork:
    """Returns the network of a request for FP8."""
    request = BuildRequest(target="onnx", precision=Precision.FP8, float_stream=float_stream)
    return requested_network(model, request, table, None, ALL_INTEGER)


@settings(deadline=None, max_examples=400)
@given(st.floats(-600, 600, width=32))
def test_a_value_is_rounded_as_ml_dtypes_rounds_it(value: float) -> None:
    """Normal, subnormal, ties, beyond 448 and zero."""
    values = np.array([value, value * 2**-12, value * 2**-16], np.float32)
    assert E4M3.nearest(values).tolist() == by_ml_dtypes(values).tolist()


def test_every_number_and_every_tie_is_exact() -> None:
    """All 127 numbers from zero on are their own, and each middle goes to the even one."""
    positive = positive_e4m3().astype(np.float32)
    codes = np.arange(127, dtype=np.uint8)
    assert (positive == codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32)).all()
    middles: Array = (positive[1:] + positive[:-1]) / np.float32(2)
    assert (E4M3.nearest(middles) == by_ml_dtypes(middles)).all()
    signed = np.concatenate([positive, -positive[1:]])
    assert (e4m3_codes(signed).view(ml_dtypes.float8_e4m3fn).astype(np.float32) == signed).all()


def test_every_half_of_float32s_is_rounded_alike() -> None:
    """A million values over all exponents, in either width of float."""
    random = np.random.default_rng(0)
    spread = 2.0 ** random.uniform(-14, 9, 1_000_000)
    values: Array = (random.standard_normal(1_000_000) * spread).astype(np.float32)
    assert (E4M3.nearest(values) == by_ml_dtypes(values)).all()
    assert (E4M3.nearest(values.astype(np.float64)) == by_ml_dtypes(values)).all()


def best_in_octave(channel: Array) -> Array:
    """Returns one filter rounded by the best of eight scales from the largest magnitude's on."""
    candidates = []
    for eighth in range(8):
        scale = np.float32(np.abs(channel).max() / 448 * 2 ** (eighth / 8))
        candidates.append(by_ml_dtypes(channel / scale) * scale)
    return min(candidates, key=lambda rounded: float(np.square(rounded - channel).sum()))


def test_a_weight_s_scale_is_the_best_of_an_octave() -> None:
    """By channel, as trying each with ml_dtypes finds it; nothing is clipped, and a dead one has a scale."""
    weight = np.random.default_rng(0).standard_normal((16, 8, 3, 3)).astype(np.float32)
    weight *= 10.0 ** np.arange(-8, 8)[:, None, None, None]
    weight[5] = 0
    scales = mse_weight_scales(weight, 0, E4M3)
    for channel, scale in zip(weight, scales, strict=True):
        assert scale > 0
        assert np.abs(channel).max() <= 448 * scale * (1 + 1e-6)
        found = np.square(by_ml_dtypes(channel / scale) * scale - channel).sum()
        best = np.square(best_in_octave(channel) - channel).sum() if channel.any() else 0
        assert found <= best * (1 + 1e-5)


def distribution(values: Array) -> Distribution:
    """Returns the histogram of magnitudes as calibration makes it."""
    limit = 2.0 ** np.ceil(np.log2(np.abs(values).max() * 1.001))
    counts, _ = np.histogram(np.abs(values), bins=8192, range=(0, limit))
    return Distribution(counts, limit / 8192, 0, float(np.abs(values).max()))


@pytest.mark.parametrize("seed", range(3))
def test_mse_finds_the_best_of_its_candidates(seed: int) -> None:
    """Against ml_dtypes' rounding of the values themselves, within the histogram's resolution."""
    random = np.random.default_rng(seed)
    values = random.laplace(size=20_000).astype(np.float32)
    found = mse_amax(distribution(values), E4M3)

    def error(amax: float) -> float:
        scale = np.float32(amax / 448)
        return float(np.square(by_ml_dtypes(values / scale) * scale - values).mean())

    largest = float(np.abs(values).max())
    best = min(error(largest * k / 24) for k in range(1, 25))
    assert error(found) <= 1.02 * best


def test_entropy_keeps_what_int8_would_clip() -> None:
    """E4M3 resolves small values however wide the range is, so little is gained by clipping."""
    values = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    values[0] = 12
    shape = distribution(values)
    assert entropy_amax(shape, INT8) < 6
    assert entropy_amax(shape, E4M3) > entropy_amax(shape, INT8)


@pytest.mark.parametrize("name", [name for name in FOLDED if name != "grouped"])
def test_every_kind_of_block_is_valid_and_close(name: str, tmp_path: Path) -> None:
    """By ONNX's full check, and by logits that are the FP32 network's up to FP8's steps."""
    model, table = saved_network(name, tmp_path)
    lowered = quantize_for_tensorrt(model, table, grid=E4M3, floats=Precision.FP16)
    onnx.checker.check_model(lowered.model, full_check=True)
    x = images(8, 4)
    with network_runner(lowered, "fp8") as runner:
        found = runner.infer(x)
    exact = run_session(open_session(model.content), ["logits"], {"image": x})[0]
    signal = np.abs(exact - exact.mean(axis=0)).max()
    assert np.abs(found - exact).max() < 0.5 * signal


def test_logits_by_an_independent_rounding(tmp_path: Path) -> None:
    """The whole network by hand: ml_dtypes rounds each operand, ONNX Runtime convolves in FP32."""
    model, table = saved_network("identity", tmp_path)
    lowered = fp8_network(model, table, float_stream=False)
    x = images(8, 4)
    with network_runner(lowered, "fp8") as runner:
        found = runner.infer(x)
    by_hand = onnx.shape_inference.infer_shapes(network("identity"))
    weights = {t.name: t for t in by_hand.graph.initializer}
    for name in ("main1_w", "main2_w"):
        weight = numpy_helper.to_array(weights[name])
        rounded = np.stack([best_in_octave(channel) for channel in weight])
        weights[name].CopyFrom(numpy_helper.from_array(rounded, name))
    parts = onnx.utils.Extractor(by_hand)

    def part(feed: dict[str, Array], output: str) -> Array:
        extracted = parts.extract_model(list(feed), [output])
        return run_session(open_session(extracted.SerializeToString()), [output], feed)[0]

    def rounded_activation(value: Array, name: str) -> Array:
        amax = table.threshold(name).e4m3
        assert amax is not None
        return by_ml_dtypes(value / np.float32(amax / 448)) * np.float32(amax / 448)

    entry = rounded_activation(part({"image": x}, "entry"), "entry")
    hidden = rounded_activation(part({"entry": entry}, "hidden_relu"), "hidden_relu")
    main = part({"hidden_relu": hidden}, "main")
    expected = part({"main": main, "entry": entry}, "logits")
    exact = run_session(open_session(model.content), ["logits"], {"image": x})[0]
    # FP16 between the layers moves a few values across FP8's next step.
    assert np.abs(found - expected).mean() < 0.25 * np.abs(exact - expected).mean()


def test_first_convolution_pool_and_classifier_stay_float(tmp_path: Path) -> None:
    """Each with its reason; the others are FP8."""
    model, table = saved_network("max-pooled stem", tmp_path)
    lowered = quantize_for_tensorrt(model, table, grid=E4M3, floats=Precision.FP16)
    by_kind: dict[str, set[Precision]] = {}
    for layer in lowered.layers:
        by_kind.setdefault(layer.op_type, set()).add(layer.precision)
    assert by_kind["Conv"] == {Precision.FP8, Precision.FP16}
    assert by_kind["Add"] == {Precision.FP8}
    assert by_kind["MaxPool"] == by_kind["Gemm"] == {Precision.FP16}
    (first,) = (n for n in lowered.layers if n.op_type == "Conv" and n.precision is Precision.FP16)
    assert "reads the image" in first.reason
    assert sum(layer.precision is Precision.FP8 for layer in lowered.layers) == 3


@pytest.mark.parametrize("name", ["identity", "max-pooled stem"])
def test_a_float_stream_leaves_additions_alone(name: str, tmp_path: Path) -> None:
    """No Q/DQ in front of an Add, and all convolutions as without it."""
    model, table = saved_network(name, tmp_path)
    quantized = []
    for float_stream in (False, True):
        lowered = fp8_network(model, table, float_stream=float_stream)
        made = {output: node for node in lowered.model.graph.node for output in node.output}
        adds = [node for node in lowered.model.graph.node if node.op_type == "Add"]
        before = [made[i].op_type for add in adds for i in add.input if i in made]
        assert ("DequantizeLinear" in before) is not float_stream
        quantized.append({n.name for n in lowered.layers if n.precision is Precision.FP8})
    assert quantized[0] - quantized[1] == {add.name for add in adds}
    assert quantized[1]


def test_levels_of_e4m3_are_counted_by_hand() -> None:
    """FP16's least scale of 2^-24 takes no level of a float grid until its smallest steps are gone."""
    step = 2.0**-24
    weight = np.zeros((2, 1, 1, 2), np.float32)
    for fraction, levels in ((0.3, 127), (1e-3, 127), (1e-4, round(448 * 2**9 * 1e-4))):
        weight[:, 0, 0, 0] = np.array([4.0, fraction]) * step * 448
        layer, _ = fit._scale_loss(
            Fp16Layer(name="c"), onnx.helper.make_node("Conv", ["x", "w"], ["y"]), weight, E4M3
        )
        assert (layer.subnormal, layer.levels, layer.clipped) == (2, levels, 0)


def test_what_fp16_cannot_hold_beside_fp8_is_told_with_a_way_out(tmp_path: Path) -> None:
    """FP8 has no FP32 beside it, so FP32 goes with INT8."""
    model, table = saved_network("identity", tmp_path)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    bias = next(t for t in proto.graph.initializer if t.name == "fc_b")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(1e6), "fc_b"))
    with pytest.raises(QuantizationError, match=r"with --precision int8 --float-layers fp32"):
        quantize_for_tensorrt(replace(model, proto=proto), table, grid=E4M3, floats=Precision.FP16)


def test_a_grouped_network_is_refused(tmp_path: Path) -> None:
    """By the convolution's name, with what serves instead."""
    model, table = saved_network("grouped", tmp_path)
    with pytest.raises(QuantizationError, match=r"1 of 3 convolutions are grouped .*Conv_2.* int8"):
        quantize_for_tensorrt(model, table, grid=E4M3)


def test_a_table_without_fp8_is_refused(tmp_path: Path) -> None:
    """An earlier edgeres wrote it; INT8 is built from it as before."""
    model, table = saved_network("identity", tmp_path)
    old = {
        name: replace(seen, thresholds={Method.MAX: Threshold(s8=1.0, u8=1.0)})
        for name, seen in table.tensors.items()
    }
    table = replace(table, method=Method.MAX, tensors=old)
    with pytest.raises(ArtifactError, match=r"no fp8 threshold of 'entry'.* Run calibrate again"):
        quantize_for_tensorrt(model, table, grid=E4M3)
    quantize_for_tensorrt(model, table)


def test_its_float_layers_are_fp16() -> None:
    """Nothing else can be evaluated here, so nothing else is built."""
    with pytest.raises(ConfigError, match="keeps its other layers in FP16"):
        BuildRequest(precision=Precision.FP8, float_layers=Precision.FP32)

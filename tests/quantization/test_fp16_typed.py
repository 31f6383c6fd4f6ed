"""The FP16-typed form: the same network, typed throughout, or a refusal that names the value."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NAMES, images, network, with_weight
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, version_converter
from onnx.reference import ReferenceEvaluator
from tables import table_from_images

from edgeres.errors import QuantizationError
from edgeres.onnx_file import opset_of
from edgeres.quantization.fp16.typed import QDQ_OPSET, half_scale, to_fp16
from edgeres.quantization.graph import view
from edgeres.quantization.qdq.lowering import lower_for_tensorrt
from edgeres.quantization.qdq.placement import place_for_tensorrt

Array = NDArray[np.float32]


def quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with Q/DQ whose scales FP16 holds."""
    graph = view(model)
    table = table_from_images(graph, images(4))
    return lower_for_tensorrt(graph, place_for_tensorrt(graph), table, fp16_scales=True)


def reference_logits(model: onnx.ModelProto, x: Array) -> Array:
    """Returns the logits by ONNX's own reference implementation, which computes FP16 in FP16."""
    evaluated: Any = ReferenceEvaluator(model).run(None, {"image": x})
    logits: Array = evaluated[0]
    assert logits.dtype == np.float32
    return logits


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    """Returns the element type of every inferred tensor."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    return {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}


@pytest.mark.parametrize("name", NAMES)
def test_all_between_the_casts_is_fp16(name: str) -> None:
    """Input and output stay FP32; every float tensor and constant between them is FP16."""
    for model in (network(name), quantized(network(name))):
        typed = to_fp16(model)
        boundary = [*typed.graph.input, *typed.graph.output]
        assert [v.type.tensor_type.elem_type for v in boundary] == [TensorProto.FLOAT] * 2
        assert TensorProto.FLOAT not in {t.data_type for t in typed.graph.initializer}
        assert set(kinds(typed).values()) <= {TensorProto.FLOAT16, TensorProto.INT8}


@pytest.mark.parametrize("name", ["identity", "option A"])
def test_logits_agree_within_fp16(name: str) -> None:
    """By ONNX's reference implementation FP16 changes less than a hundredth of the logits."""
    x = images(1, 4)
    for model in (network(name), quantized(network(name))):
        expected = reference_logits(version_converter.convert_version(model, QDQ_OPSET), x)
        actual = reference_logits(to_fp16(model), x)
        assert np.abs(actual - expected).max() < 0.01 * np.abs(expected).max()


def test_only_a_quantized_model_needs_a_newer_opset() -> None:
    """FP16 Q/DQ came with opset 19; without Q/DQ the opset that TensorRT 8.6 reads stays."""
    model = network("identity")
    assert opset_of(to_fp16(model)) == 17
    typed = to_fp16(quantized(model))
    assert (opset_of(typed), typed.ir_version) == (QDQ_OPSET, 9)


def test_metadata_survives_the_newer_opset() -> None:
    """The contract travels on."""
    model = quantized(network("identity"))
    model.metadata_props.add(key="edgeres.contract", value='{"size": 16}')
    assert list(to_fp16(model).metadata_props) == list(model.metadata_props)


def test_the_given_model_is_left_alone() -> None:
    """The FP32 model still is one afterwards."""
    model = network("identity")
    before = model.SerializeToString()
    to_fp16(model)
    assert model.SerializeToString() == before


def test_constant_nodes_are_typed_too() -> None:
    """A weight that is a Constant node, as other exporters write it, becomes FP16 as well."""
    model = network("identity")
    weight = model.graph.initializer.pop(0)
    constant = helper.make_node("Constant", [], [weight.name], value=weight)
    model.graph.node.insert(0, constant)
    assert set(kinds(to_fp16(model)).values()) == {TensorProto.FLOAT16}


@pytest.mark.parametrize("value", [65520.0, -1e6, np.inf, np.nan])
def test_a_weight_beyond_fp16_is_refused_by_name(value: float) -> None:
    """A value that FP16 does not hold is named with the way out, not turned into infinity."""

    def broken(bias: Array) -> Array:
        bias[0] = value
        return bias

    model = with_weight(network("identity"), "main2_b", broken)
    with pytest.raises(
        QuantizationError, match=r"'main2_b' holds .* beyond FP16's .*--precision fp32"
    ):
        to_fp16(model)


def test_the_largest_fp16_is_taken() -> None:
    """65504 fits, and comes back."""
    model = with_weight(network("identity"), "main2_b", lambda bias: np.full_like(bias, 65504))
    typed = {t.name: numpy_helper.to_array(t) for t in to_fp16(model).graph.initializer}
    assert (typed["main2_b"] == 65504).all()


@settings(deadline=None)
@given(st.floats(2.0**-14, 65504, width=32))
def test_a_scale_is_rounded_to_fp16(scale: float) -> None:
    """Within half a unit of FP16's 11 bits, and exactly representable."""
    rounded = half_scale(np.float32(scale))
    assert np.float16(rounded) == rounded
    assert rounded == pytest.approx(scale, rel=2.0**-11)


def test_a_scale_never_rounds_to_zero() -> None:
    """What underflows becomes the least FP16 above zero, in an array of scales too."""
    scales = half_scale(np.array([1e-30, 1e-3], np.float32))
    assert scales.tolist() == [2.0**-24, float(np.float16(1e-3))]


def test_a_subnormal_scale_clips_less_than_half_a_level() -> None:
    """Steps are 2^-24 apart: 3.4 becomes 4, since 3 would clip 15 of 127 levels; 300.2 stays 300."""
    steps = np.array([3.4, 3.6, 1.2, 300.2, 300.9], np.float32) * 2.0**-24
    rounded = np.asarray(half_scale(steps)) / 2.0**-24
    assert rounded.tolist() == [4, 4, 2, 300, 301]


def test_an_overflowing_scale_is_refused_with_its_value() -> None:
    """A scale beyond FP16 is an error with the option that avoids it."""
    with pytest.raises(QuantizationError, match=r"scale of 70000 overflows .* --float-layers fp32"):
        half_scale(np.array([1.0, 70000.0], np.float32))

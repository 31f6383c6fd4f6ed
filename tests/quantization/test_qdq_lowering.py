"""TensorRT's lowering: symmetric, on the grid it claims, and accepted by NVIDIA's own parser."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from networks import NAMES, images, initializers, logits_of, network, swapped, with_weight
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from tables import table_from_amax, table_from_images, table_of

from edgeres.core.table import CalibrationTable
from edgeres.errors import ArtifactError, QuantizationError
from edgeres.quantization.fp16.typed import to_fp16
from edgeres.quantization.graph import view
from edgeres.quantization.qdq.lowering import lower_for_tensorrt
from edgeres.quantization.qdq.placement import place_for_tensorrt

Array = NDArray[np.float32]

FP32, INT8, INT8_FP16, FP16 = "fp32", "int8", "int8 with fp16", "fp16"


def lowered(
    model: onnx.ModelProto, table: CalibrationTable | None = None, *, half: bool = False
) -> onnx.ModelProto:
    """Returns the model with Q/DQ; the table is its own on eight images unless one is given."""
    graph = view(model)
    chosen = table or table_from_images(graph, images(8, 3))
    return lower_for_tensorrt(graph, place_for_tensorrt(graph), chosen, fp16_scales=half)


def in_form(model: onnx.ModelProto, form: str) -> onnx.ModelProto:
    """Returns the model in one of the four forms that are built."""
    if form == FP32:
        return model
    if form == FP16:
        return to_fp16(model)
    half = form == INT8_FP16
    return to_fp16(lowered(model, half=True)) if half else lowered(model)


def producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Returns who makes each tensor."""
    return {out: node for node in model.graph.node for out in node.output}


def refusals(model: onnx.ModelProto) -> list[str]:
    """Returns what NVIDIA's parser has against a strongly typed network; nothing if it takes it."""
    trt: Any = pytest.importorskip("tensorrt_rtx")
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    definition = builder.create_network(typed)
    parser = trt.OnnxParser(definition, logger)
    accepted = parser.parse(model.SerializeToString())
    reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
    assert accepted == (not reasons)
    return reasons


def quantized(values: torch.Tensor, amax: float) -> torch.Tensor:
    """Returns values on the symmetric grid: PyTorch's own fake quantization."""
    scale = float(np.float32(amax / 127))
    return torch.fake_quantize_per_tensor_affine(values, scale, 0, -128, 127)


def simulated_identity(model: onnx.ModelProto, amax: dict[str, float], x: Array) -> Array:
    """Returns the identity network's logits with PyTorch's fake quantization at TensorRT's places."""
    w = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in model.graph.initializer}

    def conv(value: torch.Tensor, source: str, name: str) -> torch.Tensor:
        weight = w[name + "_w"]
        scales = weight.abs().amax(dim=(1, 2, 3)) / 127
        zeros = torch.zeros(len(scales), dtype=torch.int32)
        on_grid = torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -127, 127)
        value = quantized(value, amax[source])
        return torch.nn.functional.conv2d(value, on_grid, w[name + "_b"], padding=1)

    entry = conv(torch.from_numpy(x), "image", "stem").relu()
    main = conv(conv(entry, "entry", "main1").relu(), "hidden_relu", "main2")
    pooled = (main + quantized(entry, amax["entry"])).relu().mean(dim=(2, 3))
    return np.asarray((pooled @ w["fc_w"].T + w["fc_b"]).numpy())


def test_logits_are_those_of_pytorchs_fake_quantization() -> None:
    """Grid and places are PyTorch's own quantization on conv inputs, weights and shortcut."""
    model, x = network("identity"), images(8, 3)
    table = table_from_images(view(model), x)
    amax = {name: table.threshold(name).s8 for name in table.tensors}
    expected = simulated_identity(model, amax, x)
    actual = logits_of(lowered(model, table), x)
    np.testing.assert_allclose(actual, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
def test_logits_stay_close_to_fp32(name: str) -> None:
    """Every kind of block computes what it did, up to INT8's error; 0.009 was measured."""
    model, x = network(name), images(8, 3)
    expected = logits_of(model, x)
    assert np.abs(logits_of(lowered(model), x) - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_every_pair_is_symmetric(name: str, half: bool) -> None:
    """Zero points are INT8 zeros, scales positive, weights per channel within [-127, 127]."""
    constants = initializers(lowered(network(name), half=half))
    points = [v for n, v in constants.items() if n.endswith(("/zero_point", "/weight_zero"))]
    scales = [v for n, v in constants.items() if n.endswith(("/scale", "/weight_scale"))]
    weights = [v for n, v in constants.items() if n.endswith("/weight_s8")]
    assert {v.dtype for v in points} == {np.dtype(np.int8)}
    assert not any(v.any() for v in points)
    assert all((v > 0).all() for v in scales)
    assert all(np.abs(v.astype(int)).max() <= 127 for v in weights)
    if half:
        assert all((v.astype(np.float16) == v).all() for v in scales)


@pytest.mark.parametrize("order", [False, True], ids=["as is", "swapped"])
@pytest.mark.parametrize("name", NAMES)
def test_each_add_has_one_quantized_input(name: str, order: bool) -> None:
    """The shortcut comes from DequantizeLinear; the main branch straight from its convolution."""
    model = lowered(swapped(network(name)) if order else network(name))
    producer_of = producers(model)
    for add in (node for node in model.graph.node if node.op_type == "Add"):
        kinds = [producer_of[source].op_type for source in add.input]
        assert sorted(kinds) == ["Conv", "DequantizeLinear"]


@pytest.mark.parametrize("name", NAMES)
def test_bias_relu_and_logits_have_no_pair(name: str) -> None:
    """Biases stay float constants, a ReLU follows its layer directly, logits come as they are."""
    model = lowered(network(name))
    producer_of, constants = producers(model), initializers(model)
    for node in model.graph.node:
        if node.op_type == "Conv":
            kinds = [producer_of[source].op_type for source in node.input[:2]]
            assert kinds == ["DequantizeLinear", "DequantizeLinear"]
            assert constants[node.input[2]].dtype == np.float32
        if node.op_type == "Relu":
            assert producer_of[node.input[0]].op_type in {
                "Conv",
                "Add",
                "Gemm",
                "BatchNormalization",
            }
    assert producer_of[model.graph.output[0].name].op_type == "Gemm"


def test_branches_of_one_tensor_share_one_pair() -> None:
    """A block's input feeds convolution, projection and shortcut through a single scale."""
    for name, readers in {"identity": 2, "down-sampling": 2, "bottleneck": 2}.items():
        model = lowered(network(name))
        pairs = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
        assert [n.input[0] for n in pairs].count("entry") == 1
        assert sum("entry/dq" in node.input for node in model.graph.node) == readers


def test_option_a_is_quantized_behind_its_padding() -> None:
    """Slice and Pad move floats; the pair stands right before the Add, with the source's scale."""
    model = lowered(network("option A"))
    add = next(node for node in model.graph.node if node.op_type == "Add")
    assert add.input[1] == "shortcut/dq"
    constants = initializers(model)
    assert constants["shortcut/scale"] == constants["entry/scale"]


def test_float_weights_leave_the_file() -> None:
    """The INT8 weight is stored, its FP32 original is not."""
    constants = initializers(lowered(network("identity")))
    assert {"stem_w", "main1_w", "main2_w"}.isdisjoint(constants)
    assert {"stem_b", "main1_b", "main2_b", "fc_w", "fc_b"} <= constants.keys()


def test_a_table_without_a_tensor_is_refused() -> None:
    """A missing range is no default range."""
    graph = view(network("identity"))
    table = table_from_amax(graph, {})
    kept = table_of({name: seen for name, seen in table.tensors.items() if name != "entry"})
    with pytest.raises(ArtifactError, match=r"no tensor 'entry' among its 5.* run calibrate again"):
        lowered(network("identity"), kept)


def test_a_scale_beyond_fp16_is_refused() -> None:
    """A range of ten million has no FP16 scale; FP32 scales hold it."""
    model = network("identity")
    table = table_from_amax(view(model), {"entry": 1e7})
    with pytest.raises(QuantizationError, match=r"78740.2 overflows FP16 .* --float-layers fp32"):
        lowered(model, table, half=True)
    assert initializers(lowered(model, table))["entry/scale"] == np.float32(1e7 / 127)


@pytest.mark.rtx
@pytest.mark.parametrize("form", [FP32, INT8, INT8_FP16, FP16])
@pytest.mark.parametrize("name", NAMES)
def test_nvidias_parser_takes_every_form(name: str, form: str) -> None:
    """The real parser and type rules have nothing against any block in any precision."""
    assert refusals(in_form(network(name), form)) == []


@pytest.mark.rtx
@pytest.mark.parametrize("form", [INT8, INT8_FP16])
def test_nvidias_parser_takes_dead_channels_and_tensors(form: str) -> None:
    """Weights of zero and activations that are always zero still have scales that it accepts."""
    model = with_weight(network("identity"), "main1_w", np.zeros_like)
    model = with_weight(model, "main1_b", lambda bias: np.full_like(bias, -1))
    assert refusals(in_form(model, form)) == []


def with_initializer(model: onnx.ModelProto, name: str, value: Any) -> onnx.ModelProto:
    """Returns a copy of the model with one initializer replaced."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    tensor = next(t for t in changed.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(value), name))
    return changed


@pytest.mark.rtx
def test_nvidias_parser_refuses_a_zero_point() -> None:
    """Seeded fault: a zero point of 1 shows that the parser does check."""
    model = with_initializer(lowered(network("identity")), "entry/zero_point", np.int8(1))
    assert "zero point" in " ".join(refusals(model)).lower()


@pytest.mark.rtx
def test_nvidias_parser_refuses_a_scale_of_zero() -> None:
    """Seeded fault: what a dead tensor would have without a floor is refused."""
    model = with_initializer(lowered(network("identity")), "entry/scale", np.float32(0))
    assert "must all be positive" in " ".join(refusals(model))


@pytest.mark.rtx
def test_nvidias_parser_refuses_mixed_types() -> None:
    """Seeded fault: one FP32 bias among FP16 weights breaks strong typing."""
    model = to_fp16(network("identity"))
    bias = next(t for t in model.graph.initializer if t.name == "main1_b")
    assert bias.data_type == TensorProto.FLOAT16
    mixed = with_initializer(model, "main1_b", numpy_helper.to_array(bias).astype(np.float32))
    assert refusals(mixed) != []

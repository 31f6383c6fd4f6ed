"""Activations get one scale where they may have any, and the network computes what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import pytest
from digits import Digits
from networks import images, network, with_weight
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from tables import table_from_images

from edgeres.core.precision import Precision
from edgeres.core.table import load_table
from edgeres.onnx_file import load_onnx
from edgeres.quantization.fp16.computed import computed_in_fp32
from edgeres.quantization.fp16.typed import to_fp16
from edgeres.quantization.graph import view
from edgeres.quantization.grids import E4M3, INT8, Grid
from edgeres.quantization.qdq.equal_scales import with_equal_scales
from edgeres.quantization.qdq.lowering import lower_for_tensorrt
from edgeres.quantization.qdq.network import quantize_for_tensorrt
from edgeres.quantization.qdq.placement import place_for_tensorrt
from edgeres.session import open_session, run_session

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """A network with its activations' own scales, and with equal ones."""

    before: onnx.ModelProto
    after: onnx.ModelProto


def lowered(model: onnx.ModelProto) -> Lowered:
    """Returns both of a model's INT8 networks with FP16 between the layers."""
    graph = view(model)
    table = table_from_images(graph, images(8))
    moved = with_equal_scales(graph, table, None, place_for_tensorrt(graph), INT8)
    before, after = (
        to_fp16(lower_for_tensorrt(each, place_for_tensorrt(each), ranges, fp16_scales=True))
        for each, ranges in ((graph, table), (moved.graph, moved.table))
    )
    return Lowered(before=before, after=after)


def scales(model: onnx.ModelProto) -> dict[str, float]:
    """Returns the scale of each activation that is quantized."""
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    return {
        node.input[0]: float(numpy_helper.to_array(values[node.input[1]]))
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    }


def logits(model: onnx.ModelProto, x: Array) -> Array:
    """Returns what a network computes, rounded where FP16 rounds."""
    session = open_session(computed_in_fp32(model).SerializeToString(), integer=False)
    return run_session(session, ["logits"], {"image": x})[0]


def chain(
    gains: Mapping[str, float], *, layers: int = 6, channels: int = 8, skips: bool = False
) -> onnx.ModelProto:
    """Returns convolutions of one shape in a row, some with weights so many times as large.

    With `skips`, each second one is added to what the one before it reads.
    """
    random = np.random.default_rng(0)
    nodes, stored, read, stream = [], [], "image", ""
    for i in range(layers):
        width = 3 if i == 0 else channels
        weight = random.standard_normal((channels, width, 3, 3)) * gains.get(f"conv{i}", 1) / 6
        stored.append(numpy_helper.from_array(weight.astype(np.float32), f"conv{i}_w"))
        stored.append(numpy_helper.from_array(np.ones(channels, np.float32) / 9, f"conv{i}_b"))
        name = f"conv{i}"
        nodes += [
            helper.make_node("Conv", [read, f"{name}_w", f"{name}_b"], [name], name, pads=[1] * 4),
            helper.make_node("Relu", [name], [f"relu{i}"], f"relu{i}"),
        ]
        read = f"relu{i}"
        if skips and i and i % 2 == 0:
            nodes.append(helper.make_node("Add", [read, stream], [f"add{i}"], f"add{i}"))
            read = f"add{i}"
        if i % 2 == 0:
            stream = read
    stored.append(
        numpy_helper.from_array(random.standard_normal((5, channels)).astype("f"), "fc_w")
    )
    nodes += [
        helper.make_node("GlobalAveragePool", [read], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "fc_w"], ["logits"], "fc", transB=1),
    ]
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["N", 3, 16, 16])
    result = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 5])
    graph = helper.make_graph(nodes, "chain", [image], [result], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("gains", [{}, {"conv2": 30}, {"conv1": 0.05, "conv4": 7}])
def test_layers_in_a_row_have_one_scale(gains: dict[str, float]) -> None:
    """All but the image's, whose values are given; the logits stay within FP16's rounding."""
    both = lowered(chain(gains))
    found = scales(both.after)
    before = scales(both.before)
    assert found.pop("image/fp16") == before.pop("image/fp16")
    assert len(set(before.values())) == len(found) == 5
    assert len(set(found.values())) == 1
    x = images(8)
    expected = logits(both.before, x)
    np.testing.assert_allclose(
        logits(both.after, x), expected, atol=0.03 * float(np.abs(expected).max())
    )


def test_the_network_in_float_is_the_same() -> None:
    """Nothing but FP32's rounding; the ranges are those that the moved network has."""
    graph, x = view(network("bottleneck")), images(8)
    table = table_from_images(graph, x)
    moved = with_equal_scales(graph, table, None, place_for_tensorrt(graph), INT8)
    before, after = (
        run_session(open_session(each.model.SerializeToString()), ["logits"], {"image": x})[0]
        for each in (graph, moved.graph)
    )
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    observed = {n: t.amax for n, t in table_from_images(moved.graph, x).tensors.items()}
    assert observed == pytest.approx({n: t.amax for n, t in moved.table.tensors.items()}, rel=1e-4)
    assert observed != pytest.approx({n: t.amax for n, t in table.tensors.items()}, rel=1e-2)


def test_a_residual_stream_keeps_its_scales() -> None:
    """Its additions tie it: one factor cannot make two scales equal."""
    model = chain({}, skips=True)
    both = lowered(model)
    before, after = scales(both.before), scales(both.after)
    moved = {name for name, scale in after.items() if scale != before[name]}
    # The stream begins with the first layer; inside of the blocks are the layers before an Add.
    assert moved == {"relu1", "relu3"}
    assert len({after[name] for name in moved}) == 1
    x = images(8)
    expected = logits(both.before, x)
    limit = 0.03 * float(np.abs(expected).max())
    np.testing.assert_allclose(logits(both.after, x), expected, atol=limit)


@pytest.mark.parametrize("smallest", [2.0**-21, 2.0**-23])
def test_a_channel_that_fp16_would_lose_stays(smallest: float) -> None:
    """Weights whose scale is among FP16's last steps are not made smaller."""

    def with_small_channel(weight: Array) -> Array:
        weight[0] *= smallest * 127 / np.abs(weight[0]).max()
        return weight

    model = with_weight(chain({"conv3": 40, "conv4": 1 / 40}), "conv3_w", with_small_channel)
    both = lowered(model)
    weights = [
        {t.name: numpy_helper.to_array(t) for t in m.graph.initializer}
        for m in (both.before, both.after)
    ]
    before, after = (float(w["conv3/weight_scale"][0]) for w in weights)
    assert after >= before
    # What is beside it is not moved; the others are.
    assert len(set(scales(both.after).values())) < len(scales(both.after)) - 1


def test_a_network_with_fp16_between_its_layers_has_equal_scales(digits: Digits) -> None:
    """Whatever builds it; in FP32 each tensor keeps its own."""
    model, table = load_onnx(digits.model), load_table(digits.table)
    own, equal = (
        set(scales(quantize_for_tensorrt(model, table, floats=floats).model).values())
        for floats in (Precision.FP32, Precision.FP16)
    )
    assert len(equal) <= len(own) - 5


@pytest.mark.parametrize("grid", [INT8, E4M3], ids=["int8", "fp8"])
@pytest.mark.parametrize("exponent", [-12, -14, -15])
def test_no_weight_gets_a_scale_that_fp16_rounds_off(grid: Grid, exponent: int) -> None:
    """Scales of FP8's weights are smaller than INT8's, and reach FP16's last steps earlier."""

    def with_small_channel(weight: Array) -> Array:
        weight[0] *= 2.0**exponent * 127 / np.abs(weight[0]).max()
        return weight

    gains = {"conv3": 40, "conv4": 1 / 40}
    graph = view(with_weight(chain(gains), "conv3_w", with_small_channel))
    table = table_from_images(graph, images(8))
    tensors = {
        name: replace(
            seen, thresholds={m: replace(t, e4m3=t.s8) for m, t in seen.thresholds.items()}
        )
        for name, seen in table.tensors.items()
    }
    placement = place_for_tensorrt(graph)
    moved = with_equal_scales(graph, replace(table, tensors=tensors), None, placement, grid)
    weight = moved.graph.constant("conv3_w")
    assert weight is not None
    # FP16 has steps of 2^-24 down there: 16 of them are good to a thirtieth.
    assert np.abs(weight[0]).max() / grid.qmax >= 16 * 2.0**-24


@pytest.mark.rtx
def test_a_plan_for_rtx_has_one_kernel_for_layers_of_one_shape() -> None:
    """The source of each is in the plan: five fewer make it much smaller than its weights."""
    trt = pytest.importorskip("tensorrt_rtx")
    both = lowered(chain({}, layers=8))
    large, small = (len(plan(trt, model)) for model in (both.before, both.after))
    assert large - small > 5 * 100_000


def plan(trt: Any, model: onnx.ModelProto) -> bytes:
    """Returns what NVIDIA's builder makes of a network, for compute capability 8.6."""
    from edgeres.targets.tensorrt.logger import captured_log

    with captured_log(trt) as log:
        builder = trt.Builder(log.logger)
        definition = builder.create_network(
            1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        )
        parser = trt.OnnxParser(definition, log.logger)
        assert parser.parse(model.SerializeToString())
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)
        profile = builder.create_optimization_profile()
        profile.set_shape("image", *[(n, 3, 16, 16) for n in (1, 1, 4)])
        config.add_optimization_profile(profile)
        return bytes(builder.build_serialized_network(definition, config))

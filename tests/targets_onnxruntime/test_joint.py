"""A projection and the main branch in one accumulator, against exact integer arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from networks import images, initializers, logits_of, network
from numpy.typing import NDArray
from tables import table_from_images, table_of

from edgeres.core.artifacts import LayerPrecision
from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.core.table import CalibrationTable, Threshold
from edgeres.quantization.graph import view
from edgeres.targets.onnxruntime.build import audit_of_graph, optimized_model
from edgeres.targets.onnxruntime.joint import Affine, joint_affine
from edgeres.targets.onnxruntime.lowering import lower_for_cpu
from edgeres.targets.onnxruntime.placement import place_for_cpu

torch = pytest.importorskip("torch", reason="torch, the reference here, is not installed")

Exact = NDArray[np.float64]
INT8 = BuildRequest(precision=Precision.INT8)


def test_the_joint_weight_reads_stored_integers() -> None:
    """Real sums of two branches, from integers whose scales differ a hundredfold."""
    rng = np.random.default_rng(0)
    stored = [rng.integers(0, 256, (4, c)).astype(np.float64) for c in (3, 5)]
    weights = [rng.standard_normal((6, c, 1, 1)).astype(np.float32) for c in (3, 5)]
    scales = [np.float32(0.5), np.float32(0.005)]
    bias = rng.standard_normal(6).astype(np.float32)
    found = joint_affine([Affine(weights[0], bias), Affine(weights[1], None)], scales)
    expected = bias + sum(
        float(scale) * x @ w[:, :, 0, 0].T.astype(np.float64)
        for x, w, scale in zip(stored, weights, scales, strict=True)
    )
    assert found.weight.shape == (6, 8, 1, 1)
    assert found.bias is not None
    actual = np.hstack(stored) @ found.weight[:, :, 0, 0].T.astype(np.float64) + found.bias
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_two_branches_without_bias_have_none() -> None:
    """No zeros are stored for them."""
    part = Affine(np.ones((2, 1, 1, 1), np.float32), None)
    assert joint_affine([part, part], [np.float32(1), np.float32(2)]).bias is None


def exact_logits(model: onnx.ModelProto, table: CalibrationTable, x: Exact) -> Exact:
    """Returns the bottleneck network's logits, from FP32 weights and thresholds, in integers."""
    w = {name: value.astype(np.float64) for name, value in initializers(model).items()}

    def scale(tensor: str) -> float:
        threshold = table.threshold(tensor)
        return float(np.float32((threshold.u8 or 0) / 255 or threshold.s8 / 127))

    def convolved(value: Exact, unit: float, weight: Exact, bias: Exact, **how: int) -> Exact:
        steps = np.abs(weight).reshape(len(weight), -1).max(axis=1) / 127
        integers = torch.from_numpy(np.rint(weight / steps.reshape(-1, 1, 1, 1)))
        offset = torch.from_numpy(np.rint(bias / (unit * steps)))
        made = torch.nn.functional.conv2d(torch.from_numpy(value), integers, offset, **how)
        return np.asarray(made.numpy() * (unit * steps).reshape(-1, 1, 1))

    def stored(value: Exact, tensor: str, low: int = 0, high: int = 255) -> Exact:
        return np.asarray(np.rint(value / scale(tensor)).clip(low, high))

    image = stored(x, "image", -128, 127)
    entry = stored(convolved(image, scale("image"), w["stem_w"], w["stem_b"], padding=1), "entry")
    first = convolved(entry, scale("entry"), w["squeeze_w"], w["squeeze_b"])
    reduced = stored(first, "reduced_relu")
    second = convolved(
        reduced, scale("reduced_relu"), w["middle_w"], w["middle_b"], padding=1, stride=2
    )
    hidden = stored(second, "hidden_relu")
    both = np.concatenate([hidden, entry[:, :, ::2, ::2]], axis=1)
    weight = np.concatenate(
        [w["expand_w"] * scale("hidden_relu"), w["project_w"] * scale("entry")], axis=1
    )
    last = stored(convolved(both, 1.0, weight, w["expand_b"] + w["project_b"]), "last")
    features = last.mean(axis=(2, 3)) * scale("last")
    return np.asarray(features @ w["fc16_w"].T + w["fc16_b"])


def test_the_sum_is_made_in_the_accumulator() -> None:
    """Logits of the whole bottleneck are those of one convolution of both sources."""
    model, x = network("bottleneck"), images(8, 3)
    table = table_from_images(view(model), x)
    expected = exact_logits(model, table, x.astype(np.float64))
    actual = logits_of(lower_for_cpu(view(model), table), x)
    step = (
        np.abs(initializers(model)["fc16_w"]).sum(axis=1).max() * table.tensors["last"].amax / 255
    )
    assert np.abs(actual - expected).max() < step / 20


@pytest.mark.parametrize(("name", "counts"), [("bottleneck", False), ("down-sampling", True)])
def test_branches_are_rounded_only_where_they_are_stored(name: str, counts: bool) -> None:
    """A threshold of the projection far too low: nothing of it is stored in a bottleneck."""
    model, x = network(name), images(8, 3)
    graph = view(model)
    table = table_from_images(graph, x)
    low = replace(table.tensors["shortcut"], thresholds={Method.MAX: Threshold(s8=0.01)})
    wrong = table_of({**table.tensors, "shortcut": low})
    logits = [logits_of(lower_for_cpu(graph, t), x) for t in (table, wrong)]
    assert np.array_equal(logits[0], logits[1]) is not counts


def test_an_addition_that_is_kept_in_float_leaves_its_branches_apart() -> None:
    """The convolutions are integer, each on its own, as --precision mixed wants them."""
    model, x = network("bottleneck"), images(8, 3)
    graph = view(model)
    add = next(node.name for node in graph.nodes if node.op_type == "Add")
    mixed = lower_for_cpu(graph.keeping({add: "seeded"}), table_from_images(graph, x))
    kinds = [node.op_type for node in mixed.graph.node]
    assert (kinds.count("Conv"), kinds.count("Add"), kinds.count("Concat")) == (5, 1, 0)
    expected = logits_of(model, x)
    assert np.abs(logits_of(mixed, x) - expected).max() < 0.02 * np.abs(expected).max()


@pytest.fixture(scope="module")
def joint() -> tuple[onnx.ModelProto, tuple[LayerPrecision, ...]]:
    """A bottleneck as ONNX Runtime runs it, its projection, main branch and Add as one, and its layers."""
    graph = view(network("bottleneck"))
    lowered = lower_for_cpu(graph, table_from_images(graph, images(8)))
    return optimized_model(lowered.SerializeToString()), place_for_cpu(graph).layers


def test_layers_that_are_one_convolution_are_found_in_it(
    joint: tuple[onnx.ModelProto, tuple[LayerPrecision, ...]],
) -> None:
    """Both convolutions and the addition, by the name of the convolution that computes them."""
    optimized, layers = joint
    audit = audit_of_graph(optimized, layers, Precision.INT8)
    assert (audit.coverage, len(audit.nodes), audit.fused) == (100.0, 6, 1)
    (shared,) = (layer for layer in audit.layers if len(layer.nodes) == 3)
    assert shared.kind == "QLinearConv"
    assert {layer.joined for layer in layers if layer.name in shared.nodes} == {
        "",
        shared.nodes[-1],
    }
    assert {n.layer for n in audit.nodes if n.name in shared.nodes} == {shared.name}


def test_a_joint_convolution_in_float_is_three_layers_missed(
    joint: tuple[onnx.ModelProto, tuple[LayerPrecision, ...]],
) -> None:
    """Seeded fault: the addition is not taken for integer because no other one is float."""
    optimized, layers = joint
    add = next(layer.name for layer in layers if layer.op_type == "Add")
    broken = onnx.ModelProto()
    broken.CopyFrom(optimized)
    for node in broken.graph.node:
        if node.op_type == "QLinearConv" and node.name.startswith(add):
            node.op_type = "Conv"
    missed = audit_of_graph(broken, layers, Precision.INT8).missed
    assert sorted(node.op_type for node in missed) == ["Add", "Conv", "Conv"]
    assert {node.ran for node in missed} == {Precision.FP32}

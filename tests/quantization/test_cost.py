"""What an ONNX graph costs: by hand, against the specification's own count, and the live peak."""

from __future__ import annotations

import io
import warnings

import onnx
import pytest
import torch
from networks import network_from_body

from edgeres.core.cost import OperatorCost
from edgeres.core.precision import Precision
from edgeres.networks.explain import explain_architecture
from edgeres.networks.resnet import build_model
from edgeres.quantization.cost import operator_cost
from edgeres.quantization.graph import view

RIDGE = 100.0


def exported(architecture: str) -> onnx.ModelProto:
    """Returns a registered network as ONNX, its batch normalisations not folded."""
    spec = explain_architecture(architecture).spec
    model, stream = build_model(spec).eval(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = torch.zeros(1, 3, spec.input_size, spec.input_size)
        torch.onnx.export(
            model,
            (image,),
            stream,  # type: ignore[arg-type]  # tracing writes to a stream too
            input_names=["image"],
            opset_version=17,
            dynamo=False,
        )
    return onnx.load_model_from_string(stream.getvalue())


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "resnext50_32x4d"])
def test_the_graph_s_count_is_the_specification_s(name: str) -> None:
    """MACs, weights, channels and written activations, grouped convolutions included."""
    graph, cost = view(exported(name)), explain_architecture(name).cost
    weighted = [operator_cost(graph, n) for n in graph.nodes if n.op_type in {"Conv", "Gemm"}]
    found = [
        sum(getattr(each, field) for each in weighted)
        for field in ("macs", "weights", "channels", "outputs")
    ]
    assert found == [cost.macs, cost.weights, cost.channels, cost.activations]


def test_a_convolution_and_an_addition_by_hand() -> None:
    """8 filters of 3x3x3 on 16 x 16 pixels; the Add reads two maps and does no multiplication."""
    body = """
  left = Conv<pads = [1, 1, 1, 1]>(image, stem_w, stem_b)
  right = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(image, stem_w, stem_b)
  feature = Add(left, left)
  pooled = GlobalAveragePool(feature)
  flat = Flatten(pooled)
  logits = Gemm<transB = 1>(flat, fc_w, fc_b)
"""
    graph = view(network_from_body(body))
    costs = {node.output[0]: operator_cost(graph, node) for node in graph.nodes}
    image, feature = 3 * 16 * 16, 8 * 16 * 16
    assert costs["left"] == OperatorCost(
        macs=216 * 256, weights=216, channels=8, inputs=image, outputs=feature
    )
    assert (costs["right"].macs, costs["right"].outputs) == (216 * 64, feature // 4)
    assert costs["feature"] == OperatorCost(inputs=2 * feature, outputs=feature)
    assert costs["logits"] == OperatorCost(macs=40, weights=40, channels=5, inputs=8, outputs=5)


@pytest.mark.parametrize("macs", [1000, 100_000])
def test_the_intensity_is_arithmetic_over_traffic(macs: int) -> None:
    """10 weights, 5 channels of 8 bytes and 20 + 30 activations of one byte each."""
    cost = OperatorCost(macs=macs, weights=10, channels=5, inputs=20, outputs=30)
    assert cost.intensity(Precision.INT8) == macs / (10 + 5 * 8 + 50)

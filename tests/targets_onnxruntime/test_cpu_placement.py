"""What the CPU keeps as integers on each kind of block, and why not the rest."""

from __future__ import annotations

import pytest
from networks import network, network_from_body
from placements import CASES, Case, edges_of, reasons_of

from edgeres.quantization.graph import view
from edgeres.quantization.placement import CLASSIFIER_REASON
from edgeres.quantization.qdq.placement import place_for_tensorrt
from edgeres.targets.onnxruntime.placement import joined_convolutions, place_for_cpu


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_cpu_quantizes_both_inputs_of_every_add(case: Case) -> None:
    """Every input of every operator that has an integer kernel, and no other.

    At a bottleneck's projection the sum is made before anything is rounded.
    """
    graph = view(network(case.name))
    found = edges_of(graph, place_for_cpu(graph))
    adds = {node.output[0]: set(node.input) for node in graph.nodes if node.op_type == "Add"}
    if case.name == "bottleneck":
        del adds["sum"]
    assert found == {**case.convolutions, **adds, "pooled": {"last"}}


def test_the_cpu_leaves_normalisation_alone() -> None:
    """Only what has no integer kernel stays in float: here the three batch normalisations."""
    graph = view(network("pre-activation"))
    reason = "BatchNormalization has no integer kernel"
    expected = dict.fromkeys(["normed1", "normed2", "normed3"], reason)
    assert reasons_of(graph, place_for_cpu(graph)) == {**expected, "logits": CLASSIFIER_REASON}


def test_the_cpu_pools_integers_between_integers() -> None:
    """A max pool behind an integer layer moves integers; its layer is INT8."""
    graph = view(network("max-pooled stem"))
    assert reasons_of(graph, place_for_cpu(graph)) == {"logits": CLASSIFIER_REASON}


def test_a_projection_and_the_main_branch_are_one_convolution() -> None:
    """Both 1x1 convolutions name the Add that they are computed with; only they do."""
    graph = view(network("bottleneck"))
    outputs = {node.name: node.output[0] for node in graph.nodes}
    joined = {
        outputs[layer.name]: outputs[layer.joined]
        for layer in place_for_cpu(graph).layers
        if layer.joined
    }
    assert joined == {"main": "sum", "shortcut": "sum"}
    assert {layer.joined for layer in place_for_tensorrt(graph).layers} == {""}


JOINING = """
  stem = Conv<pads = [1, 1, 1, 1]>(image, stem_w, stem_b)
  entry = Relu(stem)
  left = Conv(entry, project_w, project_b)
  right = Conv(entry, project_w, project_b)
  last = Add(left, right)
  pooled = GlobalAveragePool(last)
  flat = Flatten(pooled)
  logits = Gemm<transB = 1>(flat, fc16_w, fc16_b)
"""


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("", ""),
        ("right = Conv(", "right = Conv<pads = [0, 0, 0, 0]>("),
        ("right = Conv(entry", "right = Conv(stem"),
        ("right = Conv(entry, project_w, project_b)", "right = Relu(left)"),
        ("last = Add(left, right)", "sum = Add(left, right)\n last = Add(sum, right)"),
        (
            "left = Conv(entry, project_w, project_b)",
            "left = Conv<pads = [1, 1, 1, 1]>(entry, down1_w, down1_b)",
        ),
        ("left = Conv(entry", "mean = GlobalAveragePool(entry)\n left = Conv(mean"),
        ("left = Conv(entry, project_w", "kernel = Relu(project_w)\n left = Conv(entry, kernel"),
    ],
)
def test_only_lone_pointwise_convolutions_of_equal_sign_are_joined(was: str, becomes: str) -> None:
    """Not another sign, reader or shape, a larger window, a computed weight, or no convolution."""
    body = JOINING.replace(was, becomes)
    joined = joined_convolutions(view(network_from_body(body)))
    assert len(joined) == (was in {"", "right = Conv("})

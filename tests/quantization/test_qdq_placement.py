"""Where TensorRT's Q/DQ stands on each kind of block, and why not elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
from networks import NAMES, network, network_from_body, swapped
from placements import CASES, REST, Case, edges_of, reasons_of

from edgeres.quantization.graph import view
from edgeres.quantization.placement import CLASSIFIER_REASON
from edgeres.quantization.qdq.placement import place_for_tensorrt, shortcut_index


@pytest.mark.parametrize("order", [lambda model: model, swapped], ids=["as is", "swapped"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tensorrt_quantizes_convolution_inputs_and_shortcuts_only(
    case: Case, order: Callable[[onnx.ModelProto], onnx.ModelProto]
) -> None:
    """Of each Add exactly the shortcut, in either order of operands; no main branch, no logits."""
    graph = view(order(network(case.name)))
    placement = place_for_tensorrt(graph)
    assert edges_of(graph, placement) == {**case.convolutions, **case.shortcuts}


@pytest.mark.parametrize("name", NAMES)
def test_tensorrt_leaves_nothing_between_a_convolution_and_its_relu(name: str) -> None:
    """No quantized tensor is a convolution's result on its way into a ReLU."""
    graph = view(network(name))
    rectified = {node.input[0] for node in graph.nodes if node.op_type == "Relu"}
    assert not rectified & {edge.tensor for edge in place_for_tensorrt(graph).edges}


def test_a_pre_activation_shortcut_may_feed_a_normalisation_too() -> None:
    """The second reader of an Add is quantized on the edge to the next Add alone."""
    graph = view(network("pre-activation"))
    edges = [edge for edge in place_for_tensorrt(graph).edges if edge.tensor == "sum"]
    outputs = {node.name: node.output[0] for node in graph.nodes}
    assert [outputs[edge.node] for edge in edges] == ["sum2"]


def test_tensorrt_says_why_pool_mean_and_classifier_stay() -> None:
    """The three layers that are float by choice name the choice."""
    graph = view(network("max-pooled stem"))
    assert reasons_of(graph, place_for_tensorrt(graph)) == {
        "entry": "commutes with the quantization behind it: TensorRT moves it before the pool",
        "pooled": "rounding its few inputs' mean costs accuracy and buys no time",
        "logits": CLASSIFIER_REASON,
    }


@pytest.mark.parametrize(("operands", "index"), [("main, shortcut", 1), ("shortcut, main", 0)])
def test_a_shortcut_is_recognised_by_its_convolutions_not_its_length(
    operands: str, index: int
) -> None:
    """A subsampled, padded shortcut has more operators than a main branch of one convolution."""
    body = f"""
  main = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(image, wide_w, wide_b)
  sliced = Slice(image, starts, ends, axes, steps)
  same = Identity(sliced)
  shortcut = Pad(same, padding)
  feature = Add({operands})
  pooled = GlobalAveragePool(feature)
  flat = Flatten(pooled)
  logits = Gemm<transB = 1>(flat, fc11_w, fc11_b)
"""
    graph = view(network_from_body(body))
    (add,) = (node for node in graph.nodes if node.op_type == "Add")
    assert shortcut_index(graph, add) == index


def test_branches_of_equal_depth_and_doubled_inputs_take_the_second() -> None:
    """A tie is decided, not left open: the second operand is the shortcut."""
    body = """
  left = Conv(image, stem_w, stem_b)
  right = Conv(image, stem_w, stem_b)
  tied = Add(left, right)
  feature = Add(tied, tied)
"""
    graph = view(network_from_body(body + REST))
    adds = [node for node in graph.nodes if node.op_type == "Add"]
    assert [shortcut_index(graph, add) for add in adds] == [1, 1]

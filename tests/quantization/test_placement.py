"""Where Q/DQ stands on each kind of block, for both targets, and why not elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx
import pytest
from networks import NAMES, network, network_from_body, swapped

from edgeres.core.precision import Precision
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.placement import (
    CLASSIFIER_REASON,
    Placement,
    calibrated_tensors,
    float_layers,
    joined_convolutions,
    place_for_cpu,
    place_for_tensorrt,
    shortcut_index,
)

Edges = dict[str, set[str]]


@dataclass(frozen=True)
class Case:
    """A network, its Adds with their shortcuts, and the tensors that feed convolutions."""

    name: str
    shortcuts: Edges
    convolutions: Edges


_MAIN: Edges = {"stem": {"image"}, "hidden": {"entry"}, "main": {"hidden_relu"}}

CASES = [
    Case("identity", {"sum": {"entry"}}, _MAIN),
    Case("grouped", {"sum": {"entry"}}, _MAIN),
    Case("two-layer head", {"sum": {"entry"}}, _MAIN),
    Case("max-pooled stem", {"sum": {"entry"}}, _MAIN),
    Case("down-sampling", {"sum": {"shortcut"}}, {**_MAIN, "shortcut": {"entry"}}),
    Case("option A", {"sum": {"shortcut"}}, _MAIN),
    Case(
        "bottleneck",
        {"sum": {"shortcut"}},
        {**_MAIN, "reduced": {"entry"}, "hidden": {"reduced_relu"}, "shortcut": {"entry"}},
    ),
    Case(
        "pre-activation",
        {"sum": {"entry"}, "sum2": {"sum"}},
        {
            "entry": {"image"},
            "hidden1": {"active1"},
            "main": {"hidden1_relu"},
            "hidden2": {"active2"},
            "deep": {"hidden2_relu"},
        },
    ),
]


def edges_of(graph: Graph, placement: Placement) -> Edges:
    """Returns the quantized tensors of each operator, which is named by its output."""
    outputs = {node.name: node.output[0] for node in graph.nodes}
    found: Edges = {}
    for edge in placement.edges:
        found.setdefault(outputs[edge.node], set()).add(edge.tensor)
    return found


def reasons_of(graph: Graph, placement: Placement) -> dict[str, str]:
    """Returns why each layer stays in float, by the layer's output."""
    outputs = {node.name: node.output[0] for node in graph.nodes}
    return {
        outputs[layer.name]: layer.reason
        for layer in placement.layers
        if layer.precision is not Precision.INT8
    }


def test_every_network_has_a_case() -> None:
    """No kind of block goes unchecked."""
    assert {case.name for case in CASES} == set(NAMES)


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


@pytest.mark.parametrize("name", NAMES)
def test_every_float_layer_has_its_reason(name: str) -> None:
    """Both placements explain each layer that they leave, and no layer that they take."""
    graph = view(network(name))
    for placement in (place_for_tensorrt(graph), place_for_cpu(graph)):
        for layer in placement.layers:
            assert bool(layer.reason) == (layer.precision is not Precision.INT8)


def test_tensorrt_says_why_pool_mean_and_classifier_stay() -> None:
    """The three layers that are float by choice name the choice."""
    graph = view(network("max-pooled stem"))
    assert reasons_of(graph, place_for_tensorrt(graph)) == {
        "entry": "commutes with the quantization behind it: TensorRT moves it before the pool",
        "pooled": "rounding its few inputs' mean costs accuracy and buys no time",
        "logits": CLASSIFIER_REASON,
    }


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


REFUSED = {
    "conv with a computed weight": (
        "kernel = Relu(stem_w)\n feature = Conv(image, kernel)",
        "feature",
        "its weight or bias is not constant",
    ),
    "conv with a computed bias": (
        "offset = Relu(stem_b)\n feature = Conv(image, stem_w, offset)",
        "feature",
        "its weight or bias is not constant",
    ),
    "add of a constant": (
        "conv = Conv(image, stem_w, stem_b)\n feature = Add(conv, offset_w)",
        "feature",
        "it adds a constant, not a branch",
    ),
    "average pool": (
        "conv = Conv(image, stem_w, stem_b)\n feature = AveragePool<kernel_shape = [2, 2]>(conv)",
        "feature",
        "AveragePool has no integer kernel",
    ),
}

_REST = """
  pooled = GlobalAveragePool(feature)
  flat = Flatten(pooled)
  logits = Gemm<transB = 1>(flat, fc_w, fc_b)
"""


@pytest.mark.parametrize("place", [place_for_cpu, place_for_tensorrt])
@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_integer_is_refused_with_its_reason(
    case: tuple[str, str, str], place: Callable[[Graph], Placement]
) -> None:
    """A computed weight, a constant branch and an operator without kernel stay in float."""
    body, layer, reason = case
    graph = view(network_from_body(body + _REST))
    placement = place(graph)
    assert reasons_of(graph, placement)[layer] == reason
    assert layer not in edges_of(graph, placement)


@pytest.mark.parametrize(("operands", "index"), [("main, shortcut", 1), ("shortcut, main", 0)])
def test_a_shortcut_is_told_by_its_convolutions_not_its_length(operands: str, index: int) -> None:
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
    graph = view(network_from_body(body + _REST))
    adds = [node for node in graph.nodes if node.op_type == "Add"]
    assert [shortcut_index(graph, add) for add in adds] == [1, 1]


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


@pytest.mark.parametrize("name", NAMES)
def test_both_placements_find_their_ranges_in_one_table(name: str) -> None:
    """The root of every quantized tensor is calibrated."""
    graph = view(network(name))
    edges = (*place_for_tensorrt(graph).edges, *place_for_cpu(graph).edges)
    assert {graph.root(edge.tensor) for edge in edges} <= set(calibrated_tensors(graph))


def test_float_layers_take_the_precision_asked_for() -> None:
    """FP16 around INT8 renames what is float and nothing else."""
    graph = view(network("identity"))
    placement = place_for_tensorrt(graph).with_floats(Precision.FP16)
    found = {layer.op_type: layer.precision for layer in placement.layers}
    assert found == {
        "Conv": Precision.INT8,
        "Add": Precision.INT8,
        "GlobalAveragePool": Precision.FP16,
        "Gemm": Precision.FP16,
    }


def test_a_float_network_lists_its_layers_without_reasons() -> None:
    """What nobody asked to quantize needs no excuse."""
    layers = float_layers(view(network("identity")), Precision.FP16)
    assert [layer.op_type for layer in layers] == ["Conv"] * 3 + [
        "Add",
        "GlobalAveragePool",
        "Gemm",
    ]
    assert {(layer.precision, layer.reason) for layer in layers} == {(Precision.FP16, "")}

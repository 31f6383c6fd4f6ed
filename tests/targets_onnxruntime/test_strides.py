"""Strides move towards the image as far as no value that is read changes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import images, logits_of, network_from_body
from numpy.typing import NDArray
from tables import Batch, observed, table_from_images

from edgeres.graph_structure import skeleton
from edgeres.quantization.graph import Graph, view
from edgeres.session import open_session, run_session
from edgeres.targets.onnxruntime.lowering import lower_for_cpu
from edgeres.targets.onnxruntime.strides import Pair, Strides, moved_strides, thinned_out

STAGE = """
  stem = Conv<pads = [1, 1, 1, 1]>(image, stem_w, stem_b)
  entry = Relu(stem)
  hidden = Conv<pads = [1, 1, 1, 1]>(entry, main1_w, main1_b)
  hidden_relu = Relu(hidden)
  main = Conv<pads = [1, 1, 1, 1]>(hidden_relu, main2_w, main2_b)
  sum = Add(main, entry)
  middle = Relu(sum)
"""
"""A block that hands on what its input is added to."""

NEXT = """
  reduced = Conv<strides = [2, 2]>(middle, squeeze_w, squeeze_b)
  reduced_relu = Relu(reduced)
  inner = Conv<pads = [1, 1, 1, 1]>(reduced_relu, middle_w, middle_b)
  inner_relu = Relu(inner)
  wide = Conv(inner_relu, expand_w, expand_b)
  shortcut = Conv<strides = [2, 2]>(middle, project_w, project_b)
  sum2 = Add(wide, shortcut)
  last = Relu(sum2)
  pooled = GlobalAveragePool(last)
  flat = Flatten(pooled)
  logits = Gemm<transB = 1>(flat, fc16_w, fc16_b)
"""
"""The original ResNet's first block of a stage: stride 2 in both 1x1 convolutions."""


def moved(graph: Graph) -> tuple[dict[str, Pair], dict[tuple[str, int], Pair]]:
    """Returns the strides that changed, by what each operator computes."""
    outputs = {node.name: str(node.output[0]) for node in graph.nodes}
    found = moved_strides(graph)
    convolutions = {outputs[name]: strides for name, strides in found.convolutions.items()}
    additions = {(outputs[name], i): strides for (name, i), strides in found.additions.items()}
    return convolutions, additions


def test_a_stage_is_thinned_out_where_the_next_one_reads_it() -> None:
    """The 3x3 convolution and the Add take the stride; the shortcut is read with it."""
    assert moved(view(network_from_body(STAGE + NEXT))) == (
        {"main": (2, 2), "reduced": (1, 1), "shortcut": (1, 1)},
        {("sum", 1): (2, 2)},
    )


READERS = """
  left = Conv<strides = [2, 2]>(middle, project_w, project_b)
  right = Conv<strides = [2, 2]>(middle, project_w, project_b)
  left_mean = GlobalAveragePool(left)
  right_mean = GlobalAveragePool(right)
  pooled = Add(left_mean, right_mean)
  flat = Flatten(pooled)
  logits = Gemm<transB = 1>(flat, fc16_w, fc16_b)
"""
"""Two readers that do not have to agree."""


def test_strides_multiply_on_the_way() -> None:
    """A convolution that has a stride of its own takes its readers' too."""
    body = """
  stem = Conv<pads = [1, 1, 1, 1]>(image, stem_w, stem_b)
  entry = Relu(stem)
  main = Conv<pads = [1, 1, 1, 1], strides = [2, 1]>(entry, main1_w, main1_b)
  middle = Relu(main)
"""
    convolutions, _ = moved(view(network_from_body(body + READERS)))
    assert convolutions == {"main": (4, 2), "left": (1, 1), "right": (1, 1)}


UNMOVED = {
    "a window reads the next row too": (
        "Conv<strides = [2, 2]>(middle, project",
        "Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(middle, down1",
    ),
    "another reader wants more": (
        "right = Conv<strides = [2, 2]>",
        "right = Conv<strides = [2, 1]>",
    ),
    "a reader pads its border": (
        "right = Conv<strides = [2, 2]>",
        "right = Conv<strides = [2, 2], pads = [1, 1, 0, 0]>",
    ),
    "a reader is no convolution": (
        "right = Conv<strides = [2, 2]>(middle, project_w, project_b)",
        "right = Concat<axis = 1>(middle, middle)",
    ),
    "a pool makes it": (
        "middle = Relu(sum)",
        "full = Relu(sum)\n  middle = MaxPool<kernel_shape = [2, 2]>(full)",
    ),
}


@pytest.mark.parametrize(("was", "becomes"), UNMOVED.values(), ids=UNMOVED)
def test_what_another_reader_needs_is_computed(was: str, becomes: str) -> None:
    """All readers have to skip the same rows and columns, and an Add or a convolution to make them."""
    body = STAGE + READERS
    assert was in body
    assert moved(view(network_from_body(body)))[0].keys() == {"main", "left", "right"}
    assert moved(view(network_from_body(body.replace(was, becomes)))) == ({}, {})


def test_a_layer_that_is_kept_in_float_keeps_its_stride() -> None:
    """With it what it reads, which it may not thin out."""
    graph = view(network_from_body(STAGE + NEXT))
    name = next(node.name for node in graph.nodes if node.output[0] == "reduced")
    assert moved(graph.keeping({name: "seeded"})) == ({}, {})


def test_padding_that_depends_on_the_stride_stays() -> None:
    """SAME_UPPER pads an even width by another amount at stride 2 than at stride 1."""
    body = STAGE.replace("main = Conv<pads = [1, 1, 1, 1]>", 'main = Conv<auto_pad = "SAME_UPPER">')
    convolutions, additions = moved(view(network_from_body(body + NEXT)))
    assert "main" not in convolutions
    assert additions == {("sum", 0): (2, 2), ("sum", 1): (2, 2)}


def test_a_sum_that_is_broadcast_is_left_alone() -> None:
    """One value a channel on top of a map, as a gate adds it."""
    body = STAGE.replace(
        "sum = Add(main, entry)", "mean = GlobalAveragePool(main)\n  sum = Add(entry, mean)"
    )
    assert moved(view(network_from_body(body + NEXT))) == ({}, {})


def test_the_first_convolution_is_left_to_be_folded() -> None:
    """Its stride on the image is another file's concern."""
    body = STAGE[: STAGE.index("  hidden =")].replace("entry", "middle") + NEXT
    assert moved(view(network_from_body(body))) == ({}, {})


@pytest.mark.parametrize("size", [16, 15])
def test_no_bit_of_the_logits_changes(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Against the lowering that computes every row and column, at even and odd sizes."""
    model, x = network_from_body(STAGE + NEXT), images(16, 3)[:, :, :size, :size]
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
    del model.graph.value_info[:]
    thin = lowered(model, x)
    monkeypatch.setattr("edgeres.targets.onnxruntime.lowering.moved_strides", lambda _: Strides())
    whole = lowered(model, x)
    assert count(thin, "MaxPool") == 1
    assert count(whole, "MaxPool") == 1  # the projection's source, at the stride that it had
    np.testing.assert_array_equal(logits_of(thin, x), logits_of(whole, x))


def lowered(model: onnx.ModelProto, x: NDArray[np.float32]) -> onnx.ModelProto:
    """Returns the model lowered with the ranges that `x` gives."""
    graph = view(model)
    return lower_for_cpu(graph, table_from_images(graph, x))


def count(model: onnx.ModelProto, kind: str) -> int:
    """Returns how many operators of a kind a model has."""
    return sum(node.op_type == kind for node in model.graph.node)


@pytest.mark.parametrize("size", [16, 15])
def test_a_thinned_model_has_the_same_logits(size: int) -> None:
    """In FP32, with every tensor under its own name and no stale shape."""
    model, x = network_from_body(STAGE + NEXT), images(8, 4)[:, :, :size, :size]
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
    whole = onnx.shape_inference.infer_shapes(model)
    thin = thinned_out(whole)
    shapes = view(skeleton(thin)).shapes
    assert shapes["sum"] == shapes["middle"] == (8, -(-size // 2), -(-size // 2))
    assert view(model).shapes["middle"] == (8, size, size)
    made = {name for node in model.graph.node for name in node.output}
    assert made <= {name for node in thin.graph.node for name in node.output}
    np.testing.assert_allclose(logits_of(thin, x), logits_of(model, x), rtol=1e-5, atol=1e-5)


def test_a_range_is_of_what_is_read() -> None:
    """An extreme in a row that nothing reads is not calibrated for; one in a row that is, is."""
    model = network_from_body(STAGE + NEXT)
    thin = thinned_out(model)
    graph = view(skeleton(thin))
    x = images(2, 7)
    (seen,) = observed(view(thin), ["middle"], [Batch(x)]).values()
    whole = model_with_output(model, "middle")
    session = open_session(whole.SerializeToString())
    (values,) = run_session(session, ["middle"], {"image": x})
    assert seen.amax == pytest.approx(float(values[:, :, ::2, ::2].max()), rel=1e-6)
    assert graph.shapes["middle"] == values[:, :, ::2, ::2].shape[1:]
    assert values.max() > seen.amax


def model_with_output(model: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    """Returns a copy that has one more output."""
    told = onnx.ModelProto()
    told.CopyFrom(model)
    told.graph.output.append(onnx.helper.make_tensor_value_info(tensor, 1, None))
    return told

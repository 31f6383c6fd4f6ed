"""The view of a graph: names, constants, roots and signs, whatever wrote the file."""

from __future__ import annotations

import onnx
import pytest
from networks import images, network, network_from_body
from onnx import TensorProto, helper
from tables import table_from_images

from edgeres.errors import QuantizationError
from edgeres.quantization.graph import attribute, view
from edgeres.session import open_session
from edgeres.targets.onnxruntime.lowering import lower_for_cpu


def with_old_style_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model as exporters of old wrote it: every initializer is an input too."""
    for tensor in model.graph.initializer:
        declared = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(declared)
    return model


def with_constant_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with a Constant node in the place of every initializer."""
    for tensor in model.graph.initializer:
        node = helper.make_node("Constant", [], [tensor.name], value=tensor)
        model.graph.node.insert(0, node)
    del model.graph.initializer[:]
    return model


def logits_of_int8(model: onnx.ModelProto) -> list[list[float]]:
    """Returns what the CPU's lowering computes on four images."""
    graph = view(model)
    lowered = lower_for_cpu(graph, table_from_images(graph, images(4)))
    session = open_session(lowered.SerializeToString())
    assert [entry.name for entry in session.get_inputs()] == ["image"]
    assert "Constant" not in {node.op_type for node in lowered.graph.node}
    logits: list[list[float]] = session.run(None, {"image": images(4)})[0].tolist()
    return logits


@pytest.mark.parametrize("name", ["identity", "option A"])
@pytest.mark.parametrize("written", [with_old_style_inputs, with_constant_nodes])
def test_how_constants_are_written_does_not_matter(name: str, written: type) -> None:
    """Initializers, initializers that are inputs too, and Constant nodes give the same engine."""
    assert logits_of_int8(written(network(name))) == logits_of_int8(network(name))


def test_every_operator_gets_a_name_of_its_own() -> None:
    """Empty and equal names are distinguished, also from a name that looks like a generated one."""
    model = network("identity")
    for node, name in zip(model.graph.node, ["Conv_2", "same", "", "same"], strict=False):
        node.name = name
    names = [node.name for node in view(model).nodes]
    assert names[:5] == ["Conv_2", "same", "Conv_2_", "same_", "Conv_4"]
    assert len(set(names)) == len(names)


def test_the_given_model_is_left_alone() -> None:
    """Naming and lifting happen on a copy."""
    model = with_constant_nodes(network("identity"))
    before = model.SerializeToString()
    view(model)
    assert model.SerializeToString() == before


def test_an_old_opset_is_refused() -> None:
    """Per-channel scales came with opset 13; the message names the way to it."""
    model = network("identity")
    model.opset_import[0].version = 12
    with pytest.raises(QuantizationError, match=r"opset 12; .* needs 13 or newer.*--opset 17"):
        view(model)


def test_roots_lie_before_what_only_moves_values() -> None:
    """Pooling, slicing, zero padding and flattening keep the range of their source."""
    assert view(network("option A")).root("shortcut") == "entry"
    assert view(network("max-pooled stem")).root("entry") == "stem_relu"
    assert view(network("identity")).root("flat") == "pooled"
    assert view(network("identity")).root("main") == "main"


PADS = {
    "zeros": ("shortcut = Pad(entry, padding)", "entry"),
    "edges": ('shortcut = Pad<mode = "edge">(entry, padding)', "shortcut"),
    "a value": ("shortcut = Pad(entry, padding, one)", "shortcut"),
    "zero by name": ("shortcut = Pad(entry, padding, zero)", "entry"),
}


@pytest.mark.parametrize(("pad", "root"), PADS.values(), ids=PADS.keys())
def test_only_zero_padding_shares_a_range(pad: str, root: str) -> None:
    """Other padding brings values of its own, so its output has a range of its own."""
    model = network_from_body(
        f"""
  conv = Conv(image, stem_w, stem_b)
  entry = Relu(conv)
  zero = Constant<value = float {{0}}>()
  one = Constant<value = float {{1}}>()
  {pad}
  pooled = GlobalAveragePool(shortcut)
  flat = Flatten(pooled)
  logits = Gemm<transB = 1>(flat, fc16_w, fc16_b)
"""
    )
    assert view(model).root("shortcut") == root


def test_signs_follow_from_the_operators() -> None:
    """Behind a ReLU, a clip at zero or a mean of such nothing is negative; all else may be."""
    model = network_from_body(
        """
  conv = Conv(image, stem_w, stem_b)
  low = Constant<value = float {0}>()
  high = Constant<value = float {6}>()
  below = Constant<value = float {-1}>()
  relu6 = Clip(conv, low, high)
  symmetric = Clip(conv, below, high)
  sum = Add(relu6, symmetric)
  last = Relu(sum)
  pooled = GlobalAveragePool(last)
  flat = Flatten(pooled)
  logits = Gemm<transB = 1>(flat, fc_w, fc_b)
"""
    )
    graph = view(model)
    signs = {name: graph.is_non_negative(name) for name in graph.producers}
    assert {name for name, positive in signs.items() if positive} == {
        "relu6",
        "last",
        "pooled",
        "flat",
    }
    assert not graph.is_non_negative("image")


def test_the_only_reader_is_one_that_nothing_shares() -> None:
    """A tensor with two readers, none, or that is the network's output has no only reader."""
    graph = view(network("identity"))
    only = graph.only_consumer("stem")
    assert only is not None
    assert only.op_type == "Relu"
    assert graph.only_consumer("entry") is None
    assert graph.only_consumer("logits") is None


def test_attributes_that_are_not_set_are_none() -> None:
    """An operator's default is the reader's to know."""
    conv = view(network("down-sampling")).producers["hidden"]
    assert attribute(conv, "strides") == [2, 2]
    assert attribute(conv, "auto_pad") is None


def test_shapes_leave_the_batch_out() -> None:
    """A dynamic batch is no part of a shape; a tensor of unknown size has none."""
    model = network("bottleneck")
    assert view(model).shapes["sum"] == (16, 8, 8)
    model.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])
    )
    assert "sum" not in view(model).shapes

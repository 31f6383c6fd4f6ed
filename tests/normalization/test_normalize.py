"""A network in the forms of other exporters is read as the network that `export` writes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import SIZE, images, initializers, logits_of, network
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tables import table_from_images

from edgeres.core.contract import Contract
from edgeres.errors import ArtifactError, ConfigError
from edgeres.normalization import Weights, normalize
from edgeres.onnx_file import LoadedModel, load_fp32, load_onnx
from edgeres.quantization.graph import view
from edgeres.targets.base import lowerings

CONTRACT = Contract(height=SIZE, width=SIZE)

Change = Callable[[onnx.ModelProto], None]


def store(model: onnx.ModelProto, name: str, value: Any) -> str:
    """Adds an initializer and returns its name."""
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def weights_behind(op_type: str, stored: Callable[[Any], Any], **attributes: Any) -> Change:
    """Reads each convolution's weight through an operator; `stored` is what the file keeps."""

    def change(model: onnx.ModelProto) -> None:
        values = initializers(model)
        for node in [n for n in model.graph.node if n.op_type == "Conv"]:
            source = store(model, f"{node.input[1]}_kept", stored(values[node.input[1]]))
            read = helper.make_node(op_type, [source], [f"{source}_read"], **attributes)
            model.graph.node.insert(0, read)
            node.input[1] = read.output[0]

    return change


def with_norms(model: onnx.ModelProto) -> None:
    """Puts a BatchNormalization behind every convolution, whose parameters give the same again."""
    for index, node in enumerate([n for n in model.graph.node if n.op_type == "Conv"]):
        weight = next(t for t in model.graph.initializer if t.name == node.input[1])
        values = numpy_helper.to_array(weight)
        gain = np.random.default_rng(index).uniform(0.5, 2, len(values))
        variance = 1 / gain**2 - 1e-5
        parts = [np.ones(len(values)), np.full(len(values), 0.25), gain * 0 + 0.25 / gain, variance]
        names = [
            store(model, f"norm{index}_{kind}", part.astype(np.float32))
            for kind, part in zip("gbmv", parts, strict=True)
        ]
        # gain * (conv / gain + b / gain - 0.25 / gain) + 0.25 = conv + b
        divided = (values / gain[:, None, None, None]).astype(np.float32)
        store(model, f"thin{index}", divided)
        bias = initializers(model)[node.input[2]] / gain
        store(model, f"thin{index}_bias", bias.astype(np.float32))
        output, node.output[0] = node.output[0], f"conv{index}"
        node.input[1:] = [f"thin{index}", f"thin{index}_bias"]
        norm = helper.make_node("BatchNormalization", [node.output[0], *names], [output])
        model.graph.node.insert(list(model.graph.node).index(node) + 1, norm)


def frozen_norms(model: onnx.ModelProto) -> None:
    """As detection's FrozenBatchNorm is exported: a Mul and an Add behind every convolution."""
    for index, node in enumerate([n for n in model.graph.node if n.op_type == "Conv"]):
        scale = np.random.default_rng(index).uniform(0.5, 2, 1).astype(np.float32)
        values = initializers(model)
        store(model, f"thin{index}", values[node.input[1]] / scale)
        shape = (1, -1, 1, 1)
        names = [
            store(model, f"frozen{index}_scale", np.full((1, 8, 1, 1), scale)),
            store(model, f"frozen{index}_shift", values[node.input[2]].reshape(shape)),
        ]
        output, node.output[0] = node.output[0], f"conv{index}"
        node.input[1:] = [f"thin{index}"]
        position = list(model.graph.node).index(node) + 1
        scaled = f"scaled{index}"
        model.graph.node.insert(
            position, helper.make_node("Mul", [node.output[0], names[0]], [scaled])
        )
        model.graph.node.insert(position + 1, helper.make_node("Add", [scaled, names[1]], [output]))


def renamed_input(model: onnx.ModelProto, name: str) -> None:
    """Lets the network read another tensor in the place of its image."""
    for node in model.graph.node:
        node.input[:] = [name if n == "image" else n for n in node.input]


def set_shape(value: onnx.ValueInfoProto, *dims: int | str | None) -> None:
    """Declares a shape."""
    value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, dims))


def channels_last(*dims: int | str | None) -> Change:
    """Takes (N, H, W, C) and turns it at the start, as tf2onnx writes it."""

    def change(model: onnx.ModelProto) -> None:
        renamed_input(model, "turned")
        turn = helper.make_node("Transpose", ["image"], ["turned"], perm=[0, 3, 1, 2])
        model.graph.node.insert(0, turn)
        set_shape(model.graph.input[0], *dims)

    return change


def prepared_channels_last(model: onnx.ModelProto) -> None:
    """Subtracts a mean from (N, H, W, C) before it is turned."""
    channels_last("N", SIZE, SIZE, 3)(model)
    store(model, "mean_rgb", np.zeros(3, np.float32))
    model.graph.node[0].input[0] = "centred"
    model.graph.node.insert(0, helper.make_node("Sub", ["image", "mean_rgb"], ["centred"]))


def batch_of(size: int, head: str = "Flatten") -> Change:
    """Takes one batch size, which a Reshape before the classifier has too."""

    def change(model: onnx.ModelProto) -> None:
        set_shape(model.graph.input[0], size, 3, SIZE, SIZE)
        set_shape(model.graph.output[0], size, 5)
        if head == "Flatten":
            return
        flatten = next(n for n in model.graph.node if n.op_type == "Flatten")
        shape = store(model, "features", np.array([size, -1 if head == "-1" else 8], np.int64))
        # torch.export writes `allowzero`, which changes what a zero in the shape means.
        extra: dict[str, Any] = {"allowzero": 1} if head == "allowzero" else {}
        reshape = helper.make_node("Reshape", [flatten.input[0], shape], flatten.output, **extra)
        flatten.CopyFrom(reshape)

    return change


def viewed_by_size(model: onnx.ModelProto) -> None:
    """Flattens as x.view(x.size(0), -1) is traced: through Shape, Gather and Concat."""
    flatten = next(n for n in model.graph.node if n.op_type == "Flatten")
    position = list(model.graph.node).index(flatten)
    store(model, "zero", np.array(0, np.int64))
    store(model, "front", np.array([0], np.int64))
    store(model, "rest", np.array([-1], np.int64))
    source, target = flatten.input[0], flatten.output[0]
    model.graph.node.remove(flatten)
    for node in reversed(
        [
            helper.make_node("Shape", [source], ["sizes"]),
            helper.make_node("Gather", ["sizes", "zero"], ["first"], axis=0),
            helper.make_node("Unsqueeze", ["first", "front"], ["first_list"]),
            helper.make_node("Concat", ["first_list", "rest"], ["flat_shape"], axis=0),
            helper.make_node("Reshape", [source, "flat_shape"], [target]),
        ]
    ):
        model.graph.node.insert(position, node)


def pooled_by(*nodes: onnx.NodeProto, keeps_axes: bool = True) -> Change:
    """Takes the global mean by other operators, from `last` to `pooled`, or to `flat`."""

    def change(model: onnx.ModelProto) -> None:
        pool = next(n for n in model.graph.node if n.op_type == "GlobalAveragePool")
        position = list(model.graph.node).index(pool)
        model.graph.node.remove(pool)
        if not keeps_axes:
            model.graph.node.remove(model.graph.node[position])
        for node in reversed(nodes):
            model.graph.node.insert(position, node)

    return change


def split_head(model: onnx.ModelProto) -> None:
    """Classifies by MatMul and Add, as TensorFlow does, behind Dropout and Identity."""
    gemm = model.graph.node.pop()
    values = initializers(model)
    store(model, "kernel", np.ascontiguousarray(values[gemm.input[1]].T))
    store(model, "ratio", np.array(0.5, np.float32))
    model.graph.node.extend(
        [
            helper.make_node("Dropout", ["flat", "ratio"], ["kept"]),
            helper.make_node("MatMul", ["kept", "kernel"], ["product"]),
            helper.make_node("Add", ["product", gemm.input[2]], ["scores"]),
            helper.make_node("Identity", ["scores"], ["logits"]),
        ]
    )


def padded_apart(model: onnx.ModelProto) -> None:
    """Pads before the stem, as Keras' ZeroPadding2D does."""
    stem = model.graph.node[0]
    stem.attribute.remove(next(a for a in stem.attribute if a.name == "pads"))
    store(model, "margins", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    stem.input[0] = "bordered"
    model.graph.node.insert(0, helper.make_node("Pad", ["image", "margins"], ["bordered"]))


def opset(version: int, *before: Change) -> Change:
    """Declares an older or newer version of ONNX's operators."""

    def change(model: onnx.ModelProto) -> None:
        for each in before:
            each(model)
        model.opset_import[0].version = version

    return change


def as_function(model: onnx.ModelProto) -> None:
    """Keeps the ReLUs in a function of the model, as torch.export does with modules."""
    body = [helper.make_node("Relu", ["x"], ["y"])]
    function = helper.make_function("own", "Act", ["x"], ["y"], body, [helper.make_opsetid("", 17)])
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type, node.domain = "Act", "own"


def weights_among_inputs(model: onnx.ModelProto) -> None:
    """As before ONNX IR 4, and behind operators too."""
    weights_behind("Identity", lambda w: w)(model)
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )


def mean(source: str, target: str, **attributes: Any) -> onnx.NodeProto:
    """Returns a ReduceMean of opset 17."""
    return helper.make_node("ReduceMean", [source], [target], **attributes)


def new_mean(model: onnx.ModelProto) -> None:
    """Takes the mean over axes that are an input, as from opset 18 on."""
    store(model, "sides", np.array([-1, -2], np.int64))
    node = helper.make_node("ReduceMean", ["last", "sides"], ["pooled"], keepdims=1)
    pooled_by(node)(model)


FORMS: dict[str, Change] = {
    "weights behind Identity": weights_behind("Identity", lambda w: w),
    "weights behind Transpose": weights_behind(
        "Transpose", lambda w: np.ascontiguousarray(w.transpose(2, 3, 1, 0)), perm=[3, 2, 0, 1]
    ),
    "weights behind Cast": weights_behind("Cast", lambda w: w.astype(np.float64), to=1),
    "weights behind Squeeze": weights_behind("Squeeze", lambda w: w[None, ..., None]),
    "weights among the inputs": weights_among_inputs,
    "batch normalisation": with_norms,
    "frozen batch normalisation": frozen_norms,
    "channels last": channels_last("N", SIZE, SIZE, 3),
    "channels last, all open": channels_last(None, None, None, None),
    "channels last, prepared": prepared_channels_last,
    "batch of 1": batch_of(1),
    "batch of 4": batch_of(4),
    "batch of 4 in a Reshape": batch_of(4, "8"),
    "batch of 1 in a Reshape": batch_of(1, "-1"),
    "batch of 2 from torch.export": batch_of(2, "allowzero"),
    "open sizes": lambda m: set_shape(m.graph.input[0], "N", 3, "H", "W"),
    "all open": lambda m: set_shape(m.graph.input[0], None, None, None, None),
    "view by size": viewed_by_size,
    "mean of both sides": pooled_by(mean("last", "pooled", axes=[2, 3])),
    "mean counted from the end": pooled_by(mean("last", "pooled", axes=[-1, -2])),
    "mean without its axes": pooled_by(
        mean("last", "flat", axes=[2, 3], keepdims=0), keeps_axes=False
    ),
    "mean of one side and the other": pooled_by(
        mean("last", "rows", axes=[3], keepdims=0),
        mean("rows", "flat", axes=[2], keepdims=0),
        keeps_axes=False,
    ),
    "mean of opset 18": opset(18, new_mean),
    "pool of the whole image": pooled_by(
        helper.make_node("AveragePool", ["last"], ["pooled"], kernel_shape=[SIZE, SIZE])
    ),
    "MatMul and Add": split_head,
    "padding apart": padded_apart,
    "opset 11": opset(11),
    "opset 9": opset(9, with_norms),
    "function": as_function,
}


def write(folder: Path, change: Change | None = None) -> Path:
    """Writes the network with identity shortcuts in another form."""
    model = network("identity")
    if change is not None:
        change(model)
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def read(path: Path) -> LoadedModel:
    """Returns a model as every stage gets it."""
    return normalize(load_fp32(path), CONTRACT)


def quantized(model: onnx.ModelProto) -> list[tuple[Counter[str], NDArray[np.float32]]]:
    """Returns, for each way of lowering, the operators of the INT8 network and what it computes."""
    graph = view(model)
    table = table_from_images(graph, images(8, seed=3))
    networks = [one.lower(graph, table, table.method) for one in lowerings()]
    return [
        (
            # A Reshape moves the same values as a Flatten.
            Counter(n.op_type.replace("Flatten", "Reshape") for n in lowered.graph.node),
            logits_of(lowered, images(4)),
        )
        for lowered in networks
    ]


@pytest.mark.parametrize("change", FORMS.values(), ids=FORMS)
def test_every_form_becomes_the_network_that_export_writes(change: Change, tmp_path: Path) -> None:
    """The same INT8 graph for every target, with the same logits up to a rounding step."""
    usual = network("identity")
    path = write(tmp_path, change)
    content = path.read_bytes()
    found = read(path)
    assert path.read_bytes() == content
    assert found.artifact.input.shape == (None, 3, SIZE, SIZE)
    assert found.artifact.output.shape == (None, 5)
    for batch in (images(3), images(1)):
        expected = logits_of(usual, batch)
        np.testing.assert_allclose(logits_of(found.proto, batch), expected, rtol=1e-4, atol=1e-5)
        run = onnx.load_model_from_string(found.content)
        np.testing.assert_allclose(logits_of(run, batch), expected, rtol=1e-4, atol=1e-5)
    for (kinds, logits), (own_kinds, own) in zip(
        quantized(found.proto), quantized(usual), strict=True
    ):
        # Preprocessing in the file stays in it, before what is quantized.
        kinds.pop("Sub", None)
        assert kinds == own_kinds
        assert np.abs(logits - own).max() < 0.02 * np.ptp(own)


def test_a_model_in_that_form_is_passed_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Bytes and graph are the very objects that were read, and nothing is run or reported."""
    model = load_fp32(write(tmp_path))
    found = normalize(model, CONTRACT)
    assert (found.content, found.proto) == (model.content, model.proto)
    assert found.content is model.content
    assert found.proto is model.proto
    assert normalize(found, CONTRACT) is found
    assert not caplog.records


def test_what_was_changed_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line, with the counts; a second stage finds the form and is silent."""
    path = write(tmp_path, opset(11, batch_of(4), weights_behind("Identity", lambda w: w)))
    with caplog.at_level(logging.INFO, logger="edgeres"):
        found = read(path)
        normalize(found, CONTRACT)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} is normalized: raised opset 11 to 17, evaluated 3 operators on constants, opened "
        "the batch of 4. Its logits are the same within rounding."
    ]
    assert found.artifact.batch == 4


def expanded(model: onnx.ModelProto) -> None:
    """Fixes the batch in the graph: logits are added to zeros of that shape."""
    batch_of(4)(model)
    model.graph.node[-1].output[0] = "scores"
    store(model, "rows", np.array([4, 5], np.int64))
    store(model, "nothing", np.zeros((1, 1), np.float32))
    model.graph.node.extend(
        [
            helper.make_node("Expand", ["nothing", "rows"], ["zeros"]),
            helper.make_node("Add", ["scores", "zeros"], ["logits"]),
        ]
    )


def test_a_batch_that_the_graph_fixes_is_refused(tmp_path: Path) -> None:
    """Nothing that was opened in vain reaches a stage."""
    path = write(tmp_path, expanded)
    with pytest.raises(ArtifactError, match=r"model\.onnx is not in the form .* a dynamic batch"):
        read(path)


def test_a_change_of_the_logits_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever step is wrong: the file's own logits are what counts."""

    def lose_a_bias(_: onnx.ModelProto, weights: Weights) -> int:
        weights["fc_b"] = numpy_helper.from_array(np.full(5, 0.5, np.float32), "fc_b")
        return 1

    monkeypatch.setattr("edgeres.normalization.steps.fold_batch_norms", lose_a_bias)
    path = write(tmp_path, weights_behind("Identity", lambda w: w))
    with pytest.raises(ArtifactError, match=r"something else in it: with 3 images, logits differ"):
        read(path)


def test_another_image_size_is_refused_before_anything_runs(tmp_path: Path) -> None:
    """The message has both sizes and the option."""
    with pytest.raises(ConfigError, match=r"takes images of 16x16 .* 32x32. Pass --input-size 16"):
        normalize(load_fp32(write(tmp_path)), Contract(height=32, width=32))


def test_several_image_sizes_stay_open_for_a_plan(tmp_path: Path) -> None:
    """Its optimization profile has the sizes."""
    path = write(tmp_path, lambda m: set_shape(m.graph.input[0], 2, 3, "H", "W"))
    found = normalize(load_fp32(path), CONTRACT, fix_sizes=False)
    assert found.artifact.input.shape == (None, 3, None, None)
    assert normalize(found, CONTRACT).artifact.input.shape == (None, 3, SIZE, SIZE)


def test_a_quantized_model_keeps_its_operators(tmp_path: Path) -> None:
    """As a reference it is taken as it is, with an open batch."""
    usual = network("identity")
    graph = view(usual)
    lowering = lowerings()[0]
    table = table_from_images(graph, images(8))
    lowered = lowering.lower(graph, table, table.method)
    batch_of(2)(lowered)
    path = tmp_path / "quantized.onnx"
    onnx.save(lowered, path)
    found = normalize(load_onnx(path), CONTRACT)
    assert [n.op_type for n in found.proto.graph.node] == [n.op_type for n in lowered.graph.node]
    assert logits_of(found.proto, images(3)).shape == (3, 5)

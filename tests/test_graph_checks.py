"""Graphs that compute no function of one image, or nothing in FP32, are refused by their operators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from commands import refusal
from networks import NAMES, logits_of, network
from onnx import TensorProto, helper, numpy_helper

from edgeres.errors import ArtifactError
from edgeres.graph_checks import check_one_image, final_activation, low_precision
from edgeres.onnx_file import load_fp32, load_onnx

Change = Callable[[onnx.ModelProto], None]


def constant(model: onnx.ModelProto, name: str, value: Any) -> str:
    """Adds an initializer and returns its name."""
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def behind(op_type: str, *inputs: str, tensor: str = "flat", **attributes: Any) -> Change:
    """Puts an operator behind a tensor that every network has; `inputs` are its others."""

    def change(model: onnx.ModelProto) -> None:
        graph = model.graph
        position = next(i for i, n in enumerate(graph.node) if tensor in n.output)
        for node in graph.node[position + 1 :]:
            node.input[:] = [f"{tensor}_changed" if n == tensor else n for n in node.input]
        added = helper.make_node(
            op_type, [tensor, *inputs], [f"{tensor}_changed"], name="added", **attributes
        )
        graph.node.insert(position + 1, added)

    return change


def chained(*changes: Change) -> Change:
    """Returns a change that makes all of these."""

    def change(model: onnx.ModelProto) -> None:
        for each in changes:
            each(model)

    return change


def holding(name: str, value: Any) -> Change:
    """Returns a change that adds an initializer."""
    return lambda model: void(constant(model, name, value))


def void(_: object) -> None:
    """Forgets a value."""


def in_training_mode(model: onnx.ModelProto) -> None:
    """Puts a BatchNormalization in training mode behind the stem."""
    for name in ("g", "b", "m", "v"):
        constant(model, f"bn_{name}", np.ones(8, np.float32))
    names = ["bn_g", "bn_b", "bn_m", "bn_v"]
    behind("BatchNormalization", *names, tensor="stem", training_mode=1)(model)
    model.graph.node[1].output.extend(["mean_out", "var_out"])


def centred(axes: list[int] | None) -> Change:
    """Subtracts a mean over some axes from the features."""

    def change(model: onnx.ModelProto) -> None:
        extra: dict[str, Any] = {} if axes is None else {"axes": axes}
        graph = model.graph
        behind("Sub", "average")(model)
        mean = helper.make_node("ReduceMean", ["flat"], ["average"], name="mean", **extra)
        position = next(i for i, n in enumerate(graph.node) if n.name == "added")
        graph.node.insert(position, mean)

    return change


def in_a_branch(model: onnx.ModelProto) -> None:
    """Puts a random operator into the body of an If."""
    body = helper.make_graph(
        [helper.make_node("RandomNormalLike", ["flat"], ["noise"], name="inner")],
        "body",
        [],
        [helper.make_tensor_value_info("noise", TensorProto.FLOAT, ["N", 8])],
    )
    constant(model, "condition", True)
    position = next(i for i, n in enumerate(model.graph.node) if "flat" in n.output)
    behind("Add", "noisy")(model)
    branch = helper.make_node(
        "If", ["condition"], ["noisy"], name="if", then_branch=body, else_branch=body
    )
    model.graph.node.insert(position + 1, branch)


TRAIN, HALF = holding("train", np.array(True)), holding("ratio", np.float32(0.5))

REFUSED: dict[str, tuple[Change, str]] = {
    "batch normalization": (in_training_mode, r"1 BatchNormalization with training_mode=1"),
    "dropout": (chained(TRAIN, HALF, behind("Dropout", "ratio", "train")), "training_mode=true"),
    "dropout, default ratio": (chained(TRAIN, behind("Dropout", "", "train")), "1 Dropout with"),
    "random": (behind("RandomUniformLike"), r"1 RandomUniformLike, which is random"),
    "Bernoulli": (behind("Bernoulli"), r"1 Bernoulli, which is random \(first: 'added'\)"),
    "random in a branch": (in_a_branch, r"RandomNormalLike, which is random \(first: 'inner'\)"),
    "mean over the batch": (centred([0]), r"1 ReduceMean over the batch axis \(first: 'mean'\)"),
    "mean over everything": (centred(None), r"1 ReduceMean over the batch axis"),
    "softmax over the batch": (behind("Softmax", axis=0), r"1 Softmax over the batch axis"),
    "normalization": (
        behind("MeanVarianceNormalization", tensor="stem"),
        "MeanVarianceNormalization over the batch axis",
    ),
    "cumulative sum": (
        chained(holding("first", np.int64(0)), behind("CumSum", "first")),
        "1 CumSum over the batch axis",
    ),
}

ACCEPTED: dict[str, Change] = {
    "dropout in inference mode": behind("Dropout"),
    "dropout with training_mode false": chained(
        HALF, holding("no", np.array(False)), behind("Dropout", "ratio", "no")
    ),
    "dropout of nothing": chained(
        TRAIN, holding("zero", np.float32(0)), behind("Dropout", "zero", "train")
    ),
    "mean over features": centred([1]),
    "softmax over classes": behind("Softmax", axis=1),
    "normalization of each image": behind(
        "MeanVarianceNormalization", tensor="stem", axes=[1, 2, 3]
    ),
    "channels first for a while": chained(
        behind("Transpose", perm=[1, 0]),
        behind("Softmax", tensor="flat_changed", axis=0),
        behind("Transpose", tensor="flat_changed_changed", perm=[1, 0]),
    ),
    "random, but of no influence": lambda model: model.graph.node.append(
        helper.make_node("RandomNormalLike", ["flat"], ["unused"])
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_depends_on_the_batch_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    """The operator, how often, where first, and model.eval()."""
    change, sentence = REFUSED[kind]
    model = network("identity")
    change(model)
    onnx.checker.check_model(model)
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    with pytest.raises(ArtifactError, match=rf"{sentence}.*model\.eval\(\)"):
        load_onnx(path)


@pytest.mark.parametrize("kind", ACCEPTED)
def test_what_does_not_is_accepted(kind: str, tmp_path: Path) -> None:
    """Operators in inference mode, along other axes, or without influence on the logits."""
    model = network("identity")
    ACCEPTED[kind](model)
    onnx.checker.check_model(model)
    check_one_image(tmp_path, model)


def test_the_batch_of_one_image_has_no_other() -> None:
    """A network of a static batch of 1 may reduce over it."""
    model = network("identity")
    centred([0])(model)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    check_one_image(Path("m.onnx"), model)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    with pytest.raises(ArtifactError, match="over the batch axis"):
        check_one_image(Path("m.onnx"), model)


def test_a_cycle_ends() -> None:
    """A damaged graph is walked once."""
    model = network("identity")
    model.graph.node.append(helper.make_node("Identity", ["b"], ["a"]))
    model.graph.node.append(helper.make_node("Identity", ["a"], ["b"]))
    model.graph.node.append(helper.make_node("Dropout", ["a", "a", "a"], ["c"]))
    model.graph.output[0].name = "c"
    assert final_activation(model) == ""
    with pytest.raises(ArtifactError, match="Dropout"):
        check_one_image(Path("m.onnx"), model)


@pytest.mark.parametrize("name", NAMES)
def test_networks_in_fp32_hold_nothing_less(name: str) -> None:
    """Pre-activation with its BatchNormalization included."""
    model = network(name)
    check_one_image(Path("m.onnx"), model)
    assert low_precision(model) == ""
    assert final_activation(model) == ""


def quantize_dequantize(model: onnx.ModelProto) -> None:
    """Puts Q/DQ behind the pooled features."""
    constant(model, "s", np.float32(0.1))
    constant(model, "z", np.int8(0))
    behind("QuantizeLinear", "s", "z")(model)
    behind("DequantizeLinear", "s", "z", tensor="flat_changed")(model)


def weight_as(kind: int) -> Change:
    """Stores the classifier's weight in another type, behind a Cast."""

    def change(model: onnx.ModelProto) -> None:
        weight = next(t for t in model.graph.initializer if t.name == "fc_w")
        values = numpy_helper.to_array(weight)
        stored = helper.make_tensor("fc_low", kind, values.shape, np.rint(values).flatten())
        model.graph.initializer.append(stored)
        model.graph.initializer.remove(weight)
        cast = helper.make_node("Cast", ["fc_low"], ["fc_w"], to=TensorProto.FLOAT)
        model.graph.node.insert(0, cast)

    return change


def dynamic(model: onnx.ModelProto) -> None:
    """Multiplies integers with the classifier's."""
    constant(model, "w8", np.ones((8, 8), np.uint8))
    behind("Cast", to=TensorProto.UINT8)(model)
    behind("MatMulInteger", "w8", tensor="flat_changed")(model)
    behind("Cast", tensor="flat_changed_changed", to=TensorProto.FLOAT)(model)


def steps_written_out(model: onnx.ModelProto) -> None:
    """Leaves the pooled features a few levels, as quantization does in other words."""
    constant(model, "levels", np.float32(4))
    behind("Mul", "levels")(model)
    behind("Floor", tensor="flat_changed")(model)
    behind("Div", "levels", tensor="flat_changed_changed")(model)


def integers_between(model: onnx.ModelProto) -> None:
    """Takes the pooled features to int32 and back."""
    behind("Cast", to=TensorProto.INT32)(model)
    behind("Cast", tensor="flat_changed", to=TensorProto.FLOAT)(model)


def test_rounded_sizes_and_pixels_are_fp32() -> None:
    """What is rounded before the first layer, or of a shape, is no quantization."""
    model = network("identity")
    pixels = helper.make_node("Round", ["image"], ["pixels"])
    size = helper.make_node("Shape", ["flat"], ["size"])
    number = helper.make_node("Cast", ["size"], ["number"], to=TensorProto.FLOAT)
    whole = helper.make_node("Floor", ["number"], ["whole"])
    back = helper.make_node("Cast", ["whole"], ["shape"], to=TensorProto.INT64)
    moved = helper.make_node("Reshape", ["flat", "shape"], ["flat_moved"])
    for node in model.graph.node:
        node.input[:] = [{"flat": "flat_moved", "image": "pixels"}.get(n, n) for n in node.input]
    model.graph.node.insert(0, pixels)
    position = next(i for i, n in enumerate(model.graph.node) if "flat_moved" in n.input)
    for node in reversed((size, number, whole, back, moved)):
        model.graph.node.insert(position, node)
    assert low_precision(model) == ""


LOWERED: dict[str, tuple[Change, str]] = {
    "Q/DQ": (quantize_dequantize, "1 DequantizeLinear, 1 QuantizeLinear"),
    "FP16 weights": (weight_as(TensorProto.FLOAT16), "1 FLOAT16 weights"),
    "BF16 weights": (weight_as(TensorProto.BFLOAT16), "1 BFLOAT16 weights"),
    "INT8 weights": (weight_as(TensorProto.INT8), "1 INT8 weights"),
    "integer products": (
        dynamic,
        "1 MatMulInteger, 1 UINT8 weights, 1 Cast of what a layer computed",
    ),
    "a rounding": (behind("Round"), "1 Round of what a layer computed"),
    "steps written out": (steps_written_out, "1 Floor of what a layer computed"),
    "integers between": (
        integers_between,
        "1 Cast of what a layer computed",
    ),
    "FP16 between": (behind("Cast", to=TensorProto.FLOAT16), "1 Cast to FLOAT16"),
}


@pytest.mark.parametrize("kind", LOWERED)
def test_what_is_less_than_fp32_is_refused_as_a_source(kind: str, tmp_path: Path) -> None:
    """With operators and counts; calibrate and build-engine end alike."""
    change, sentence = LOWERED[kind]
    model, path = network("identity"), tmp_path / "m.onnx"
    change(model)
    onnx.save(model, path)
    with pytest.raises(ArtifactError, match=rf"no FP32 model: it has {sentence}\..*FP32 ONNX"):
        load_fp32(path)
    assert load_onnx(path).artifact.path == path
    table, engine, options = tmp_path / "t.json", tmp_path / "e.onnx", ("--preset", "cifar")
    assert sentence in refusal("calibrate", path, "--data", tmp_path, "-o", table, *options)
    assert sentence in refusal("build-engine", path, "--precision", "fp32", "-o", engine, *options)


def choice(limit: float, above: str, below: str, *, tensor: str, name: str) -> Change:
    """Adds `name`, which is `above` where a tensor is above a limit, else `below`."""

    def change(model: onnx.ModelProto) -> None:
        constant(model, f"{name}_limit", np.float32(limit))
        nodes = [
            helper.make_node("Greater", [tensor, f"{name}_limit"], [f"{name}_is_above"]),
            helper.make_node("Where", [f"{name}_is_above", above, below], [name]),
        ]
        graph = model.graph
        position = 1 + max(
            i for i, n in enumerate(graph.node) if {tensor, above, below} & {*n.output}
        )
        for node in reversed(nodes):
            graph.node.insert(position, node)

    return change


def read_instead(name: str, tensor: str = "flat", reader: str = "Gemm") -> Change:
    """Lets the classifier read another tensor."""

    def change(model: onnx.ModelProto) -> None:
        node = next(n for n in model.graph.node if n.op_type == reader and tensor in n.input)
        node.input[:] = [name if each == tensor else each for each in node.input]

    return change


NUMBERS = chained(
    holding("zero", np.float32(0)),
    holding("half", np.float32(0.5)),
    holding("one", np.float32(1)),
    holding("six", np.float32(6)),
)


def flat_choice(limit: float, above: str, below: str, name: str) -> Change:
    """Adds a choice by the pooled features."""
    return choice(limit, above, below, tensor="flat", name=name)


def counted_thresholds(model: onnx.ModelProto) -> None:
    """Writes a rounding as a sum of steps: how many thresholds a value is above."""
    terms = []
    position = next(i for i, n in enumerate(model.graph.node) if n.op_type == "Gemm")
    for index in range(3):
        limit, above, term = f"limit{index}", f"above{index}", f"term{index}"
        constant(model, limit, np.float32(index / 4))
        terms.append(term)
        for node in (
            helper.make_node("Cast", [above], [term], to=TensorProto.FLOAT),
            helper.make_node("GreaterOrEqual", ["flat", limit], [above]),
        ):
            model.graph.node.insert(position, node)
    position = next(i for i, n in enumerate(model.graph.node) if n.op_type == "Gemm")
    model.graph.node.insert(position, helper.make_node("Sum", terms, ["steps"]))
    read_instead("steps")(model)


def in_a_function(model: onnx.ModelProto) -> None:
    """Hides a rounding in a function of the model's own."""
    domain = "elsewhere"
    model.functions.append(
        helper.make_function(
            domain, "Near", ["x"], ["y"], [helper.make_node("Round", ["x"], ["y"])],
            [helper.make_opsetid("", 17)],
        )
    )  # fmt: skip
    model.opset_import.append(helper.make_opsetid(domain, 1))
    behind("Near", domain=domain)(model)


def in_both_branches(model: onnx.ModelProto) -> None:
    """Puts a rounding into the body of an If."""
    body = helper.make_graph(
        [helper.make_node("Round", ["flat"], ["near"])],
        "body",
        [],
        [helper.make_tensor_value_info("near", TensorProto.FLOAT, ["N", 8])],
    )
    constant(model, "condition", True)
    position = next(i for i, n in enumerate(model.graph.node) if n.op_type == "Gemm")
    branch = helper.make_node("If", ["condition"], ["steps"], then_branch=body, else_branch=body)
    model.graph.node.insert(position, branch)
    read_instead("steps")(model)


def signs_of_the_logits(model: onnx.ModelProto) -> None:
    """Gives the signs of the logits."""
    model.graph.node[-1].output[0] = "scores"
    model.graph.node.append(helper.make_node("Sign", ["scores"], ["logits"]))


THRESHOLDS: dict[str, tuple[Change, str]] = {
    "levels chosen": (
        chained(
            NUMBERS,
            flat_choice(0.25, "half", "zero", "low"),
            flat_choice(0.75, "one", "low", "steps"),
            read_instead("steps"),
        ),
        "1 Gemm of thresholds of what a layer computed",
    ),
    "levels chosen, and the value beyond them": (
        chained(
            NUMBERS,
            flat_choice(0.25, "half", "zero", "low"),
            flat_choice(1, "flat", "low", "steps"),
            read_instead("steps"),
        ),
        "1 Where of thresholds of what a layer computed",
    ),
    "the value below all levels": (
        chained(
            NUMBERS,
            flat_choice(0, "zero", "flat", "steps0"),
            flat_choice(0.5, "half", "steps0", "steps1"),
            flat_choice(1, "one", "steps1", "steps"),
            read_instead("steps"),
        ),
        "1 Where of thresholds of what a layer computed",
    ),
    "a sum of steps": (counted_thresholds, "1 Gemm of thresholds of what a layer computed"),
    "a step added to the shortcut": (
        chained(
            NUMBERS,
            choice(0.5, "half", "zero", tensor="entry", name="steps"),
            read_instead("steps", "entry", "Add"),
        ),
        "1 Add of thresholds of what a layer computed",
    ),
    "signs": (behind("Sign"), "1 Gemm of thresholds of what a layer computed"),
    "signs of the logits": (
        signs_of_the_logits,
        "1 output of thresholds of what a layer computed",
    ),
    "a remainder": (
        chained(NUMBERS, behind("Mod", "half", fmod=1)),
        "1 Mod of what a layer computed",
    ),
    "a rounding in a function": (in_a_function, "1 Round of what a layer computed"),
    "a rounding in branches": (in_both_branches, "2 Round of what a layer computed"),
}


@pytest.mark.parametrize("kind", THRESHOLDS)
def test_a_rounding_in_other_words_is_found(kind: str) -> None:
    """The network runs, and leaves what a layer computed a few values."""
    change, sentence = THRESHOLDS[kind]
    model = network("identity")
    change(model)
    onnx.checker.check_model(model)
    logits_of(model, np.zeros((2, 3, 16, 16), np.float32))
    assert low_precision(model) == sentence


def as_a_product(model: onnx.ModelProto) -> None:
    """Writes Relu as x times whether it is above 0."""
    constant(model, "zero", np.float32(0))
    position = next(i for i, n in enumerate(model.graph.node) if n.op_type == "Gemm")
    for node in (
        helper.make_node("Mul", ["flat", "mask"], ["active"]),
        helper.make_node("Cast", ["is_above"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Greater", ["flat", "zero"], ["is_above"]),
    ):
        model.graph.node.insert(position, node)
    read_instead("active")(model)


ACTIVATIONS: dict[str, Change] = {
    "LeakyRelu": chained(
        NUMBERS,
        behind("Mul", "half"),
        choice(0, "flat", "flat_changed", tensor="flat", name="active"),
        read_instead("active", "flat_changed"),
    ),
    "Relu6": chained(
        NUMBERS,
        flat_choice(0, "flat", "zero", "positive"),
        flat_choice(6, "six", "positive", "active"),
        read_instead("active"),
    ),
    "Relu as a product": as_a_product,
    "no number is 0": chained(
        NUMBERS,
        lambda model: model.graph.node.insert(
            next(i for i, n in enumerate(model.graph.node) if n.op_type == "Gemm"),
            helper.make_node("IsNaN", ["flat"], ["is_none"]),
        ),
        lambda model: model.graph.node.insert(
            next(i for i, n in enumerate(model.graph.node) if n.op_type == "Gemm"),
            helper.make_node("Where", ["is_none", "zero", "flat"], ["active"]),
        ),
        read_instead("active"),
    ),
    "pixels chosen": chained(
        NUMBERS,
        lambda model: model.graph.node.insert(0, helper.make_node("Sign", ["image"], ["signs"])),
        read_instead("signs", "image", "Conv"),
    ),
    "HardSwish": behind("HardSwish"),
    "PRelu": chained(holding("slope", np.float32(0.25)), behind("PRelu", "slope")),
    "Celu": behind("Celu"),
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_an_activation_function_is_no_rounding(kind: str) -> None:
    """Which choose between lines, clip, or multiply with a threshold, as exporters write them."""
    model = network("identity")
    ACTIVATIONS[kind](model)
    onnx.checker.check_model(model)
    assert low_precision(model) == ""


def test_a_number_and_what_nothing_reads_are_no_weights() -> None:
    """A limit in INT8, and a leftover."""
    model = network("identity")
    constant(model, "leftover", np.ones((4, 4), np.float16))
    constant(model, "limit", np.int8(3))
    behind("Cast", to=TensorProto.FLOAT)(model)
    assert low_precision(model) == ""


@pytest.mark.parametrize(
    ("op_type", "domain"),
    [
        ("FusedGemm", "com.microsoft"),
        ("ReorderOutput", "com.microsoft.nchwc"),
        ("TRT_Plugin", "trt.plugins"),
    ],
)
def test_operators_of_one_runtime_are_named(op_type: str, domain: str, tmp_path: Path) -> None:
    """As a source; what takes any model that a runtime runs still reads it."""
    model, path = network("identity"), tmp_path / "m.onnx"
    behind(op_type, domain=domain)(model)
    model.opset_import.append(helper.make_opsetid(domain, 1))
    onnx.save(model, path)
    with pytest.raises(ArtifactError, match=rf"1 {op_type} of {domain}: .*Pass the file that"):
        load_fp32(path)
    assert load_onnx(path).artifact.path == path


def test_a_function_of_the_models_own_is_no_foreign_operator(tmp_path: Path) -> None:
    """It is made of ONNX's operators; one that rounds is refused for that."""
    model, path = network("identity"), tmp_path / "m.onnx"
    in_a_function(model)
    onnx.save(model, path)
    with pytest.raises(ArtifactError, match="1 Round of what a layer computed"):
        load_fp32(path)
    model.functions[0].node[0].op_type = "Relu"
    onnx.save(model, path)
    assert load_fp32(path).artifact.path == path


@pytest.mark.parametrize("axes", [(0,), (0, 2, 3)], ids=["batch", "batch and sides"])
def test_a_size_of_minus_one_is_an_open_one(axes: tuple[int, ...], tmp_path: Path) -> None:
    """As Paddle's exporter writes it, and as ONNX Runtime reads it."""
    model, path = network("identity"), tmp_path / "m.onnx"
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for axis in axes:
        dims[axis].Clear()
        dims[axis].dim_value = -1
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(model, path)
    artifact = load_fp32(path).artifact
    expected = tuple(None if axis in axes else (0, 3, 16, 16)[axis] for axis in range(4))
    assert (artifact.input.shape, artifact.output.shape[0]) == (expected, None)
    dims[0].dim_value = -2
    onnx.save(model, path)
    with pytest.raises(ArtifactError, match="expected sizes of at least 1"):
        load_fp32(path)


def ends_in(*operators: tuple[str, dict[str, Any]]) -> onnx.ModelProto:
    """Returns a network with these operators behind its logits."""
    model = network("identity")
    last = next(node for node in model.graph.node if "logits" in node.output)
    last.output[0] = tensor = "scores"
    for index, (op_type, attributes) in enumerate(operators):
        inputs = [tensor]
        if op_type == "Reshape":
            inputs.append(constant(model, f"shape{index}", np.array([0, 5], np.int64)))
        if op_type == "Clip":
            inputs.append(constant(model, f"low{index}", np.float32(1e-7)))
        tensor = "logits" if index == len(operators) - 1 else f"end{index}"
        model.graph.node.append(helper.make_node(op_type, inputs, [tensor], **attributes))
    onnx.checker.check_model(model)
    return model


@pytest.mark.parametrize(
    ("operators", "expected"),
    [
        ([("Softmax", {})], "Softmax"),
        ([("Softmax", {"axis": 1}), ("Identity", {}), ("Reshape", {})], "Softmax"),
        ([("Softmax", {}), ("Clip", {}), ("Flatten", {})], "Softmax"),
        ([("LogSoftmax", {}), ("Cast", {"to": TensorProto.FLOAT})], "LogSoftmax"),
        ([("Softmax", {}), ("Log", {})], "LogSoftmax"),
        ([("Sigmoid", {})], "Sigmoid"),
        ([("Softmax", {}), ("Relu", {})], ""),
        ([("Identity", {})], ""),
    ],
)
def test_the_end_of_a_network_is_known(operators: list[Any], expected: str) -> None:
    """Through what leaves probabilities what they are."""
    assert final_activation(ends_in(*operators)) == expected


def test_a_softmax_in_pieces_is_known() -> None:
    """As exp(x) / sum(exp(x)), which older exporters write."""
    model = ends_in(("Exp", {}), ("Identity", {}))
    exponential = model.graph.node[-2].output[0]
    constant(model, "classes", np.array([1], np.int64))
    model.graph.node.pop()
    model.graph.node.append(helper.make_node("ReduceSum", [exponential, "classes"], ["total"]))
    model.graph.node.append(helper.make_node("Div", [exponential, "total"], ["logits"]))
    rows = logits_of(model, np.zeros((2, 3, 16, 16), np.float32)).sum(axis=1)
    np.testing.assert_allclose(rows, 1, rtol=1e-6)
    assert final_activation(model) == "Softmax"


@pytest.mark.parametrize(
    ("shape", "sentence"), [((1,), "1 value an image"), ((5, 1, 1), "torch.flatten")]
)
def test_outputs_that_are_no_row_of_logits_are_refused(
    shape: tuple[int, ...], sentence: str, tmp_path: Path
) -> None:
    """One class, and (N, C, 1, 1), with what to do."""
    model, path = network("identity"), tmp_path / "m.onnx"
    kind = TensorProto.FLOAT
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("logits", kind, ["N", *shape]))
    onnx.save(model, path)
    with pytest.raises(ArtifactError, match=sentence):
        load_onnx(path)


@pytest.mark.parametrize("values", [[], [0.5, 0.5]])
def test_a_dropout_of_several_ratios_is_no_inference(values: list[float], tmp_path: Path) -> None:
    """ONNX has one number there; a file may have any."""
    nodes = [
        helper.make_node("Dropout", ["x", "ratio", "mode"], ["d"]),
        helper.make_node("Flatten", ["d"], ["y"]),
    ]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 2, 2])
    logits = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 12])
    constants = [
        numpy_helper.from_array(np.array(values, np.float32), "ratio"),
        numpy_helper.from_array(np.array(True), "mode"),
    ]
    graph = helper.make_graph(nodes, "g", [image], [logits], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    with pytest.raises(ArtifactError, match="Dropout with training_mode=true"):
        check_one_image(tmp_path / "m.onnx", model)

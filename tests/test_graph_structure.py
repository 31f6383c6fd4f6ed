"""Graphs that cannot be: refused when the file is read, before anything walks or runs them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.numpy_helper import from_array

from edgeres.core.contract import Contract
from edgeres.errors import ArtifactError, EdgeresError
from edgeres.graph_structure import infer_shapes, skeleton
from edgeres.normalization import normalize
from edgeres.onnx_file import load_onnx
from edgeres.quantization.graph import view

CONTRACT = Contract(height=8, width=8)

WEIGHTS = numpy_helper.from_array(np.zeros((10, 3, 3, 3), np.float32), "w")


def classifier(
    *before: NodeProto, sizes: Sequence[str | int | None] = ("N", 3, 8, 8), **conv: Any
) -> ModelProto:
    """Returns a convolution, a pool and a flattening, behind other operators that make `p`."""
    nodes = [
        *before,
        helper.make_node("Conv", ["p" if before else "x", "w"], ["c"], **conv),
        helper.make_node("GlobalAveragePool", ["c"], ["a"]),
        helper.make_node("Flatten", ["a"], ["y"]),
    ]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(sizes))
    logits = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])
    graph = helper.make_graph(nodes, "g", [image], [logits], [WEIGHTS])
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    """Returns an operator; tensors are separated by spaces."""
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def weights(change: Callable[[TensorProto], object]) -> ModelProto:
    """Returns a classifier whose weights were changed."""
    model = classifier()
    change(model.graph.initializer[0])
    return model


def external() -> TensorProto:
    """Returns a tensor that is kept in another file."""
    tensor = TensorProto(name="e", dims=[1], data_type=1, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    return tensor


def sparse() -> ModelProto:
    """Returns a classifier with a sparse initializer whose values are in another file."""
    model = classifier()
    model.graph.sparse_initializer.add().values.CopyFrom(external())
    return model


def with_branch(operator: NodeProto) -> ModelProto:
    """Returns a classifier with an operator that makes `b` in the body of an If."""
    body = helper.make_graph([operator], "b", [], [])
    body.output.add(name="b")
    return classifier(node("If", "x", "p", then_branch=body, else_branch=body))


def without_output() -> ModelProto:
    """Returns a classifier with an output of a name that nothing has."""
    model = classifier()
    model.graph.output.add(name="z")
    return model


def with_constant(name: str, values: int | list[int], *operators: NodeProto) -> ModelProto:
    """Returns a classifier behind operators that read integers from the file."""
    model = classifier(*operators)
    model.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    return model


def part(source: str, target: str) -> NodeProto:
    """Returns an operator that keeps every second row of `with_slices`' images."""
    return node("Slice", f"{source} first last rows two", target)


def with_slices(*operators: NodeProto) -> ModelProto:
    """Returns a classifier behind operators that read numbers from the file."""
    model = classifier(*operators)
    lists = {"first": [0], "last": [1 << 62], "rows": [2], "two": [2], "s30": [1 << 30]}
    numbers = {"n0": 0, "n1": 1, "n30": 1 << 30, **lists}
    constants = [from_array(np.array(value, np.int64), name) for name, value in numbers.items()]
    model.graph.initializer.extend([*constants, from_array(np.ones(1, np.float32), "one")])
    return model


CASES: dict[str, tuple[Callable[[], ModelProto], str]] = {
    "no input": (lambda: classifier(node("Relu", "", "p")), "with 0 inputs, expected 1 to 1."),
    "inputs too many": (
        lambda: classifier(node("Relu", "x x x", "p")),
        "with 3 inputs, expected 1",
    ),
    "no output": (lambda: classifier(node("Relu", "x", ""), node("Relu", "x", "p")), "no output."),
    "a cycle": (
        lambda: classifier(node("Identity", "q", "p"), node("Identity", "p", "q")),
        "whose input 'q' nothing before it makes: the graph has a cycle",
    ),
    "a cycle of one": (lambda: classifier(node("Identity", "p", "p")), "whose input 'p' nothing"),
    "a gap in a branch": (lambda: with_branch(node("Relu", "z", "b")), "whose input 'z' nothing"),
    "an output that nothing makes": (without_output, "has the output 'z', which nothing makes."),
    "made twice": (
        lambda: classifier(node("Relu", "x", "p"), node("Abs", "x", "p")),
        "with the output 'p', which is there already.",
    ),
    "over the weights": (lambda: classifier(node("Relu", "x", "p w")), "is there already."),
    "an image below 0": (lambda: classifier(sizes=("N", 3, -5, 8)), "the sizes [3, -5, 8]"),
    "an image of 0": (lambda: classifier(sizes=("N", 3, 0, 8)), "the sizes [3, 0, 8]"),
    "an image of 2^62": (
        lambda: classifier(sizes=("N", 3, 1 << 62, 1 << 62)),
        "has the input 'x' with the sizes [3, 4611686018427387904",
    ),
    "groups of 0": (lambda: classifier(group=0), "with group [0], expected 1 to"),
    "groups below 0": (lambda: classifier(group=-3), "with group [-3], expected 1 to"),
    "strides of 0": (lambda: classifier(strides=[0, 1]), "with strides [0, 1], expected 1"),
    "dilations of 0": (lambda: classifier(dilations=[0, 0]), "with dilations [0, 0], expected"),
    "strides of 2^62": (lambda: classifier(strides=[1 << 62, 1]), "with strides [4611686018427387"),
    "pads of 2^62": (lambda: classifier(pads=[1 << 62] * 4), "with pads [4611686018427387904, "),
    "pads of 10^9": (lambda: classifier(pads=[10**9] * 4), "'c' has the sizes [10, 2000000006, "),
    "a kernel of 0": (
        lambda: classifier(node("MaxPool", "x", "p", kernel_shape=[0, 0])),
        "with kernel_shape [0, 0], expected 1",
    ),
    "strides as text": (
        lambda: classifier(strides="ab"),
        "attribute strides of type 3, expected 7",
    ),
    "strides with fractions": (lambda: classifier(strides=[1.5, 2]), "of type 6, expected 7"),
    "weights below 0": (
        lambda: weights(lambda t: t.dims.__setitem__(0, -10)),
        "sizes [-10, 3, 3, 3]",
    ),
    "weights below 0 twice": (
        lambda: weights(lambda t: t.dims.__setitem__(slice(0, 2), [-10, -3])),
        "with the sizes [-10, -3, 3, 3]; expected a type of ONNX and sizes of at least 0.",
    ),
    "weights of 2^62": (
        lambda: weights(lambda t: t.dims.__setitem__(0, 1 << 62)),
        "stores 1080 byt",
    ),
    "weights too few": (
        lambda: weights(lambda t: setattr(t, "raw_data", b"12")),
        "and stores 2 byt",
    ),
    "weights of no type": (lambda: weights(lambda t: setattr(t, "data_type", 0)), "of type 0 with"),
    "weights of type 77": (lambda: weights(lambda t: setattr(t, "data_type", 77)), "of type 77 wi"),
    "weights absent": (lambda: weights(lambda t: t.ClearField("raw_data")), "and stores 0 bytes"),
    "weights elsewhere": (
        lambda: weights(
            lambda t: t.MergeFrom(
                TensorProto(
                    data_location=TensorProto.EXTERNAL, external_data=external().external_data
                )
            )
        ),
        "keeps 'w' and other",
    ),
    "sparse elsewhere": (sparse, "keeps 'e' and other weights in a file beside it"),
    "a branch elsewhere": (
        lambda: with_branch(node("Constant", "", "b", value=external())),
        "keeps 'e' and other weights in a file beside it",
    ),
    "ConstantOfShape": (
        lambda: with_constant("s", [1 << 40, 3, 8, 8], node("ConstantOfShape", "s", "p")),
        "'p' has the sizes [1099511627776, 3, 8, 8]",
    ),
    "Tile": (
        lambda: with_constant("s", [1, 1, 1 << 40, 1], node("Tile", "x s", "p")),
        "'p' has the sizes [3, 8796093022208, 8]",
    ),
    "a size below 0": (
        lambda: with_slices(node("MaxPool", "x", "q", kernel_shape=[20, 9]), part("q", "p")),
        "'q' has the sizes [3, -11, 0]; expected sizes of at least 0",
    ),
    "a size below 0 behind slices": (
        lambda: with_slices(
            part("x", "r"),
            part("r", "s"),
            node("AveragePool", "s", "q", kernel_shape=[5, 1]),
            part("q", "p"),
        ),
        "'q' has the sizes [3, -2, 8]; expected sizes of at least 0",
    ),
    "ranges of 2^30": (
        lambda: with_slices(node("Range", "n0 n30 n1", "q"), node("Relu", "x", "p")),
        "'q' has the sizes [1073741824]; expected sizes of at least 0 and at most 1048576 values",
    ),
    "constants of 2^30": (
        lambda: with_slices(node("Expand", "one s30", "q"), node("Relu", "x", "p")),
        "'q' has the sizes [1073741824]; expected sizes of at least 0 and at most 67108864 values",
    ),
}
"""Models that cannot be, and what is said of them."""


@pytest.mark.parametrize("case", CASES)
def test_a_graph_that_cannot_be_is_refused(case: str, tmp_path: Path) -> None:
    """When it is read, or when its shapes are inferred; with the place and what was expected."""
    make, said = CASES[case]
    # onnx.save would look for the file that holds the weights.
    (path := tmp_path / "x.onnx").write_bytes(make().SerializeToString())
    with pytest.raises(ArtifactError) as refused:
        view(load_onnx(path).proto)
    assert said in str(refused.value)


def test_sizes_are_held_at_both_doors(tmp_path: Path) -> None:
    """Where a file is read, and where a network's shapes are inferred that was made of one."""
    model = classifier(pads=[10**9] * 4)
    (path := tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match="fits into no memory: its tensor 'c' has the sizes"):
        load_onnx(path)
    for broken in (model, classifier(node("MaxPool", "x", "p", kernel_shape=[20, 20]))):
        with pytest.raises(ArtifactError, match=r"The model's activation '[cp]' has the sizes"):
            infer_shapes(skeleton(broken))


@pytest.mark.parametrize("old", [b"Conv", b"GlobalAveragePool"])
def test_names_that_are_no_text(old: bytes, tmp_path: Path) -> None:
    """Protobuf hands them over as bytes, which no comparison with a name expects."""
    content = classifier().SerializeToString().replace(old, b"\xff" * len(old))
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match="which is no UTF-8 text"):
        load_onnx(tmp_path / "x.onnx")


def named_twice() -> ModelProto:
    """Returns a classifier with two entries of metadata under one name."""
    model = classifier()
    for value in "ab":
        model.metadata_props.add(key="k", value=value)
    return model


def with_functions(*calls: tuple[str, ...]) -> ModelProto:
    """Returns a classifier with functions `f0`, `f1`, ... of the operators named, calling `f0`."""
    model = classifier(node("f0", "x", "p", domain="own"))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model.opset_import.append(opsets[1])
    for index, kinds in enumerate(calls):
        names = ["a", *(f"t{i}" for i in range(1, len(kinds))), "b"]
        nodes = [
            helper.make_node(kind, [before], [after], domain="own" if kind[0] == "f" else "")
            for kind, before, after in zip(kinds, names[:-1], names[1:], strict=True)
        ]
        function = helper.make_function("own", f"f{index}", ["a"], ["b"], nodes, opsets)
        model.functions.append(function)
    return model


def looping(kind: str = "Loop") -> ModelProto:
    """Returns a classifier that runs through an operator 2^62 times."""
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    kept = helper.make_tensor_value_info("kept", TensorProto.BOOL, [])
    count = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    body = helper.make_graph([node("Identity", "flag", "kept")], "b", [count, flag], [kept])
    return with_constant(
        "n", 1 << 62, helper.make_node(kind, ["n", ""], ["k"], body=body), node("Relu", "x", "p")
    )


def with_range(limit: str, *before: NodeProto) -> ModelProto:
    """Returns a classifier with a Range up to a number that operators before it make."""
    model = classifier(
        *before,
        node("Range", f"n0 {limit} n1", "r"),
        node("Cast", "r", "f", to=1),
        node("ReduceMax", "f", "m1", keepdims=0),
        node("Add", "x m1", "p"),
    )
    numbers = {"n0": 0, "n1": 1, "n30": 30_000}
    model.graph.initializer.extend(
        from_array(np.array(number, np.int64), name) for name, number in numbers.items()
    )
    return model


ENDLESS = {
    "a function that calls itself": (with_functions(("f0",)), "a function that calls itself: 'f0'"),
    "two that call each other": (with_functions(("f1",), ("f0",)), "calls itself"),
    "2^20 operators": (
        with_functions(*((f"f{i + 1}", f"f{i + 1}") for i in range(20)), ("Relu",)),
        "a function that has 1048576 operators",
    ),
    "many functions": (with_functions(*[("Relu",)] * 1001), "has 1001 functions"),
    "a loop": (looping(), "whose number of steps is known only when it runs"),
    "another loop": (looping("Scan"), "Scan '', whose number of steps is known only when it runs"),
    "a range up to a product": (
        with_range("n", node("Mul", "n30 n30", "n")),
        "Range '', whose number of steps is known only when it runs",
    ),
    "a range up to a multiple of the image's height": (
        with_range(
            "n",
            node("Shape", "x", "s", start=2, end=3),
            node("Squeeze", "s", "h"),
            node("Mul", "h n30", "n"),
        ),
        "Range '', whose number of steps is known only when it runs",
    ),
    "a range up to the image as numbers": (
        with_range("n", node("Cast", "x", "i", to=7), node("Squeeze", "i", "n")),
        "Range '', whose number of steps is known only when it runs",
    ),
    "a range up to a value of the image": (
        with_range("n", node("ReduceMax", "x", "m", keepdims=0), node("Cast", "m", "n", to=7)),
        "Range '', whose number of steps is known only when it runs",
    ),
    "a range of 24 GB": (
        with_constant(
            "n",
            6_000_000_000,
            node("Range", "n0 n n1", "r"),
            node("Cast", "r", "f", to=1),
            node("Add", "x f", "p"),
        ),
        "sizes [6000000000]; expected sizes of at least 0 and at most 1048576",
    ),
}
"""Files of a few kilobytes that would take all time or memory of what runs them."""


@pytest.mark.parametrize("case", ENDLESS)
def test_what_does_not_end_is_refused_unrun(case: str, tmp_path: Path) -> None:
    """Also where the file is only classified with."""
    model, said = ENDLESS[case]
    if case.startswith("a range"):
        for name, value in (("n0", 0), ("n1", 1)):
            model.graph.initializer.append(from_array(np.array(value, np.int64), name))
    (path := tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError) as refused:
        load_onnx(path)
    assert said in str(refused.value)


def test_functions_that_end_pass(tmp_path: Path) -> None:
    """As torch.onnx writes them: of operators and of each other."""
    model = with_functions(("f1", "Relu", "f1"), ("Relu",))
    (path := tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert load_onnx(path).artifact.output.shape == (None, 10)


def steps_in_a_table() -> ModelProto:
    """Returns a classifier with a Slice that NVIDIA's parser ends the process at."""
    model = with_slices(part("x", "p"))
    next(t for t in model.graph.initializer if t.name == "two").dims.insert(0, 1)
    return model


def test_a_range_up_to_a_size_is_taken(tmp_path: Path) -> None:
    """As exporters write indices of the batch."""
    sizes = (node("Shape", "x", "s", start=0, end=1), node("Squeeze", "s", "n"))
    path = tmp_path / "m.onnx"
    path.write_bytes(with_range("n", *sizes).SerializeToString())
    assert load_onnx(path).artifact.output.shape == (None, 10)


def more_numbers_than_axes() -> ModelProto:
    """Returns a classifier with a Slice of 16 steps, which ended the process too."""
    model = with_slices(part("x", "p"))
    two = next(t for t in model.graph.initializer if t.name == "two")
    two.CopyFrom(from_array(np.ones(16, np.int64), "two"))
    return model


def reshaped_to_many_axes() -> ModelProto:
    """Returns a classifier of an image that is given 16 axes first."""
    model = classifier(node("Reshape", "x axes", "p"))
    model.graph.initializer.append(from_array(np.ones(16, np.int64), "axes"))
    return model


BROKEN = {
    "an attribute that it has not": (classifier(node("Relu", "x", "p", axis=1)), "axis"),
    "an operator of a later version": (
        classifier(node("BitwiseNot", "x", "p")),
        "No Op registered for BitwiseNot",
    ),
    "an entry twice": (named_twice(), "duplicate keys"),
    "weights without values": (
        weights(lambda w: w.CopyFrom(from_array(np.zeros((0, 3, 3, 3), np.float32), "w"))),
        r"weights of the sizes \[0, 3, 3, 3\]; expected 4 sizes of at least 1",
    ),
    "weights in one row": (
        weights(lambda w: w.CopyFrom(from_array(np.zeros(270, np.float32), "w"))),
        r"weights of the sizes \[270\]; expected 4",
    ),
    "steps in a table": (
        steps_in_a_table(),
        r"Slice '' with numbers of the sizes \[1, 1\]; expected a list of at most 8",
    ),
    "steps for 16 axes": (
        more_numbers_than_axes(),
        r"Slice '' with numbers of the sizes \[16\]; expected a list of at most 8",
    ),
    "a shape of 16 axes in a Constant": (
        classifier(
            node("Constant", "", "axes", value_ints=[1] * 16), node("Reshape", "x axes", "p")
        ),
        r"Reshape '' with numbers of the sizes \[16\]; expected a list of at most 8",
    ),
    "a shape of 16 axes": (
        reshaped_to_many_axes(),
        r"Reshape '' with numbers of the sizes \[16\]; expected a list of at most 8",
    ),
    "a batch that takes minutes": (classifier(sizes=(65536, 3, 8, 8)), "batches of 65536 images"),
}
"""Files that are graphs, and that a runtime may take, but that nothing can be made of."""


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_to_be_quantized_follows_the_rules(case: str, tmp_path: Path) -> None:
    """Before anything is changed, where a lowering would end with a checker's or numpy's error."""
    model, said = BROKEN[case]
    (path := tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match=said):
        normalize(load_onnx(path), CONTRACT)


def test_what_is_only_run_need_not(tmp_path: Path) -> None:
    """A runtime takes more than ONNX's checker: the file stays as it is."""
    model, _ = BROKEN["an entry twice"]
    (path := tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert normalize(load_onnx(path), CONTRACT, operators=False).content == path.read_bytes()


def test_a_size_below_0_that_is_only_claimed(tmp_path: Path) -> None:
    """As some exporters write what they do not know: ONNX's inference would end the process."""
    model = with_slices(node("Relu", "x", "q"), part("q", "p"))
    claimed = helper.make_tensor_value_info("q", TensorProto.FLOAT, [-1, 3, -2, 8])
    model.graph.value_info.append(claimed)
    (path := tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert view(load_onnx(path).proto).shapes["p"][1] == 4


def test_a_plain_graph_passes(tmp_path: Path) -> None:
    """With typed fields, empty tensors, 4-bit values and operators of other domains."""
    model = classifier(node("Custom", "x", "p", domain="com.example", strides=[0], axis="a"))
    model.opset_import.add(domain="com.example", version=1)
    model.graph.initializer.extend(
        [
            helper.make_tensor("floats", TensorProto.FLOAT, [2, 2], [1.0] * 4),
            helper.make_tensor("empty", TensorProto.FLOAT, [0], []),
            helper.make_tensor("int4", TensorProto.INT4, [3], [1, 2, 3]),
            TensorProto(
                name="text", dims=[2], data_type=TensorProto.STRING, string_data=[b"a", b"b"]
            ),
            helper.make_tensor("half", TensorProto.FLOAT16, [2], [1.0, 2.0]),
            numpy_helper.from_array(np.array(3, np.int64), "scalar"),
        ]
    )
    onnx.save(model, path := tmp_path / "x.onnx")
    load_onnx(path)


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_file_is_a_model_or_a_sentence(seed: int, tmp_path: Path) -> None:
    """Bytes changed, taken out or doubled anywhere, then every walk of the graph."""
    content, random = bytearray(classifier().SerializeToString()), np.random.default_rng(seed)
    # The weights are zeros in the middle: what is around them is the graph.
    frame = [at for at, byte in enumerate(content) if byte]
    for _ in range(random.integers(1, 4)):
        at, length = int(random.choice(frame)), int(random.integers(1, 5))
        content[at : at + length] = random.bytes(int(random.integers(0, 2 * length)))
    (tmp_path / "x.onnx").write_bytes(content)
    with contextlib.suppress(EdgeresError):
        view(load_onnx(tmp_path / "x.onnx").proto)

"""Constants are evaluated and batch normalisation is folded to the values computed by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest

from edgeres.normalization import (
    Weights,
    evaluate_constants,
    fold_batch_norms,
    put_weights,
    relative_difference,
    take_weights,
)


def graph(text: str) -> onnx.ModelProto:
    """Returns a model from ONNX text."""
    return onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17]>\n' + text)


def changed(model: onnx.ModelProto, step: Callable[[onnx.ModelProto, Weights], int]) -> int:
    """Does a step to a model with its weights in it, and returns how often it applied."""
    weights = take_weights(model)
    count = step(model, weights)
    put_weights(model, weights)
    return count


FOLDED = """
net (float[N, 2, 5, 5] x) => (float[N, 2, 5, 5] y)
<float[2, 1, 1, 1] w = {3, -2}, float[2] b = {1, 2}, float[2] gamma = {2, 4},
 float[2] beta = {5, 6}, float[2] mean = {7, 8}, float[2] var = {3, 15}>
{
    c = Conv <group = 2> (x, w, b)
    n = BatchNormalization <epsilon = 1.0> (c, gamma, beta, mean, var)
    y = Relu (n)
}
"""


def test_batch_normalisation_folds_to_the_values_computed_by_hand() -> None:
    """Gains are 2/2 and 4/4: weights stay, biases become 1 - 7 + 5 and 2 - 8 + 6."""
    model = graph(FOLDED)
    changed(model, fold_batch_norms)
    assert [node.op_type for node in model.graph.node] == ["Conv", "Relu"]
    values = {t.name: onnx.numpy_helper.to_array(t).ravel() for t in model.graph.initializer}
    assert {name: value.tolist() for name, value in values.items()} == {
        "w": [3, -2],
        "b": [-1, 0],
    }
    assert model.graph.node[1].input[0] == "c"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("y = Relu (n)", "y = Add (n, c)"),
        ("c = Conv <group = 2> (x, w, b)", "c = Relu (x)"),
        ("float[2, 1, 1, 1] w = {3, -2}", "float[2, 1, 1, 1] v = {3, -2}"),
    ],
    ids=["output read twice", "no convolution", "weight not constant"],
)
def test_batch_normalisation_stays_where_folding_would_be_wrong(before: str, after: str) -> None:
    """A value that something else reads, and what is no convolution of constants."""
    text = FOLDED.replace(before, after)
    if "v =" in text:
        text = text.replace("c = Conv", "w = Relu (v)\n c = Conv")
    model = graph(text)
    expected = model.SerializeToString()
    changed(model, fold_batch_norms)
    unused = onnx.load_model_from_string(expected)
    assert [n.SerializeToString() for n in model.graph.node] == [
        n.SerializeToString() for n in unused.graph.node
    ]


def test_convolutions_that_share_weight_and_bias_each_get_their_own() -> None:
    """Exporters write equal constants once: every bias of zeros, for one."""
    later = "d = Conv <group = 2> (n, w, b)\n m = BatchNormalization (d, beta, mean, gamma, var)"
    text = FOLDED.replace(
        "y = Relu (n)", f"{later}\n e = Conv <group = 2> (m, w, b)\n y = Relu (e)"
    )
    model, original = graph(text), graph(text)
    images = np.random.default_rng(0).standard_normal((3, 2, 5, 5)).astype(np.float32)
    assert changed(model, fold_batch_norms) == 2
    assert [node.op_type for node in model.graph.node] == ["Conv", "Conv", "Conv", "Relu"]
    folded, expected = (
        onnxruntime.InferenceSession(one.SerializeToString()).run(None, {"x": images})[0]
        for one in (model, original)
    )
    np.testing.assert_allclose(folded, expected, rtol=1e-5)
    values = {t.name: onnx.numpy_helper.to_array(t).ravel() for t in model.graph.initializer}
    assert values["b"].tolist() == [1, 2]


def test_batch_normalisation_without_epsilon_has_onnxs_default() -> None:
    """The gain is gamma / sqrt(variance + 1e-5)."""
    model = graph(FOLDED.replace(" <epsilon = 1.0>", ""))
    changed(model, fold_batch_norms)
    (weight,) = (t for t in model.graph.initializer if t.name == "w")
    gains = np.array([2, 4]) / np.sqrt(np.array([3, 15]) + 1e-5)
    expected = (np.array([3, -2]) * gains).astype(np.float32)
    assert np.array_equal(onnx.numpy_helper.to_array(weight).ravel(), expected)


def test_nodes_on_constants_alone_are_evaluated() -> None:
    """2 + 3 is 5; what depends on the input stays, and unread constants go."""
    model = graph("""
    net (float[N, 2] x) => (float[N, 2] y)
    <float[1] two = {2}, float[1] unread = {9}>
    {
        three = Constant <value = float[1] {3}> ()
        five = Add (two, three)
        y = Mul (x, five)
    }
    """)
    changed(model, evaluate_constants)
    assert [node.op_type for node in model.graph.node] == ["Mul"]
    values = {t.name: onnx.numpy_helper.to_array(t).tolist() for t in model.graph.initializer}
    assert values == {"five": [5.0]}


def test_a_bias_that_folding_adds_takes_no_name_of_the_graph() -> None:
    """A weight called c.weight would get a bias called c.bias, which is another tensor's."""
    text = FOLDED.replace(", float[2] b = {1, 2}", ", float[2] u.bias = {9, 9}").replace(
        "(x, w, b)", "(x, w)"
    )
    model = graph(text.replace("y = Relu (n)", "y = Sub (n, taken)").replace("u.bias", "taken"))
    for tensor in model.graph.initializer:
        tensor.name = {"w": "c.weight", "taken": "c.bias"}.get(tensor.name, tensor.name)
    for node in model.graph.node:
        node.input[:] = [{"w": "c.weight", "taken": "c.bias"}.get(n, n) for n in node.input]
    changed(model, fold_batch_norms)
    values = {t.name: onnx.numpy_helper.to_array(t).ravel() for t in model.graph.initializer}
    assert values["c.bias"].tolist() == [9, 9]
    # (0 - 7) * 1 + 5 and (0 - 8) * 1 + 6.
    assert values[model.graph.node[0].input[2]].tolist() == [-2, -2]


@pytest.mark.parametrize(
    ("actual", "expected", "fraction"),
    [
        ([[1.0, -4.0]], [[1.0, -4.0]], 0.0),
        ([[1.0, -3.0], [1.0, 0.0]], [[1.0, -4.0], [1.0, 0.5]], 0.5),
        ([[0.0, 0.0]], [[0.0, 0.0]], 0.0),
        ([[0.0, 0.1]], [[0.0, 0.0]], np.inf),
        ([[1.0, 2.0]], [[1.0, 2.0, 3.0]], np.inf),
        ([[np.nan, 1.0]], [[np.nan, 1.0]], np.nan),
        ([[np.inf, 1.0]], [[np.inf, 1.0]], np.nan),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_differences_are_shares_of_the_largest_logit(
    actual: list[list[float]], expected: list[list[float]], fraction: float
) -> None:
    """By hand, row by row; nothing that is not finite passes for equal."""
    found = relative_difference(np.array(actual, np.float32), np.array(expected, np.float32))
    np.testing.assert_equal(found, fraction)

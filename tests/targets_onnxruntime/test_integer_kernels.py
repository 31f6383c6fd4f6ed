"""Another target's Q/DQ network on integer kernels computes what the network itself does."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import FOLDED, NAMES, images, logits_of, network, with_weight
from tables import table_by_every_method

from edgeres.calibration.quality import sqnr_db
from edgeres.core.methods import Method
from edgeres.core.table import Threshold
from edgeres.graph_names import free_added_names
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.qdq.network import LOWERING
from edgeres.quantization.units import quantizable
from edgeres.session import open_session, run_session
from edgeres.targets.onnxruntime import kernels
from edgeres.targets.onnxruntime.kernels import on_integer_kernels


def lowered(graph: Graph, method: Method = Method.MSE) -> onnx.ModelProto:
    """Returns a network with TensorRT's Q/DQ pairs."""
    return LOWERING.lower(graph, table_by_every_method(graph, images(16)), method)


@pytest.mark.parametrize("name", NAMES)
def test_the_logits_are_those_of_the_pairs(name: str) -> None:
    """What differs is far below what quantization itself changes."""
    model, x = network(name), images(32, seed=5)
    pairs = lowered(view(model))
    expected = logits_of(pairs, x, optimized=False)
    found = logits_of(on_integer_kernels(pairs), x)
    assert sqnr_db(expected, found) > sqnr_db(logits_of(model, x), expected) + 8


@pytest.mark.parametrize("name", ["identity", "max-pooled stem", "bottleneck"])
def test_what_is_clipped_stays_clipped(name: str) -> None:
    """Thresholds a third of the right ones: what lies beyond is their largest value, and no more."""
    model, x = network(name), images(32, seed=5)
    graph = view(model)
    table = table_by_every_method(graph, images(16))
    tensors = {
        key: replace(seen, thresholds={Method.MSE: Threshold(s8=seen.amax / 3)})
        for key, seen in table.tensors.items()
    }
    pairs = LOWERING.lower(graph, replace(table, tensors=tensors), Method.MSE)
    expected = logits_of(pairs, x, optimized=False)
    found = logits_of(on_integer_kernels(pairs), x)
    assert sqnr_db(expected, found) > sqnr_db(logits_of(model, x), expected) + 8


@pytest.mark.parametrize("name", FOLDED)
def test_a_sum_that_nothing_rounds_is_exact(name: str) -> None:
    """Of each convolution before an addition alone: int32 sums, then float32."""
    graph, x = view(network(name)), images(8, seed=5)
    for conv in (
        n for n in graph.nodes if n.output[0] in {"main", "shortcut"} and n.op_type == "Conv"
    ):
        rest = quantizable(graph) - {conv.name}
        pairs = lowered(graph.keeping(dict.fromkeys(rest, "in float")))
        # What comes before the convolution is in float, in the same kernels on both sides.
        floats = open_session(pairs.SerializeToString(), integer=False)
        expected = run_session(floats, ["logits"], {"image": x})[0]
        simulated = on_integer_kernels(pairs)
        assert {"MatMulIntegerToFloat", "ConvInteger"} & {n.op_type for n in simulated.graph.node}
        np.testing.assert_allclose(logits_of(simulated, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["identity", "bottleneck", "grouped", "max-pooled stem"])
def test_every_convolution_has_an_integer_kernel(name: str, tmp_path: Path) -> None:
    """Of the graph that ONNX Runtime runs: no float convolution is left."""
    pairs = lowered(view(network(name)))
    path = tmp_path / "optimized.onnx"
    open_session(on_integer_kernels(pairs).SerializeToString(), optimized=path)
    operators = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert not {"Conv", "FusedConv"} & operators.keys()
    integer = sum(operators[op] for op in ("QLinearConv", "ConvInteger", "MatMulIntegerToFloat"))
    assert integer == sum(node.op_type == "Conv" for node in pairs.graph.node)


def test_a_processor_whose_products_saturate_is_given_unsigned_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their sums are the same integers, so the logits are."""
    pairs, x = lowered(view(network("bottleneck"))), images(8, seed=5)
    expected = logits_of(on_integer_kernels(pairs), x)
    monkeypatch.setattr(kernels, "int8_may_saturate", lambda: True)
    simulated = on_integer_kernels(pairs)
    products = [n for n in simulated.graph.node if n.op_type == "MatMulIntegerToFloat"]
    types = {t.name: t.data_type for t in simulated.graph.initializer}
    assert products
    assert {types[n.input[1]] for n in products} == {onnx.TensorProto.UINT8}
    np.testing.assert_allclose(logits_of(simulated, x), expected, rtol=1e-5)


def test_a_bias_beyond_int32_is_added_in_float() -> None:
    """Seeded fault: weights so small that a bias in units of their scales overflows."""
    model = with_weight(network("identity"), "main1_w", lambda weight: weight * np.float32(1e-8))
    model = with_weight(model, "main1_b", lambda bias: np.abs(bias) + 1)
    pairs, x = lowered(view(model)), images(8)
    expected = logits_of(pairs, x, optimized=False)
    assert sqnr_db(expected, logits_of(on_integer_kernels(pairs), x)) > 40


def test_added_names_are_free(tmp_path: Path) -> None:
    """A network that has a tensor of each added name is renamed when it is read."""
    added = on_integer_kernels(lowered(view(network("bottleneck"))))
    tensors = {name for node in added.graph.node for name in (*node.input, *node.output)}
    names = {name for name in tensors if "edgeres_" in name}
    assert len(names) > 20
    model = network("bottleneck")
    for name in names:
        # An operator that nothing reads, of the name that the simulation will take.
        model.graph.node.add(op_type="Identity", input=["image"], output=[name], name=name)
    free_added_names(tmp_path / "model.onnx", model)
    left = {name for node in model.graph.node for name in (*node.output, node.name)}
    assert not left & names

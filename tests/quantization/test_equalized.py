"""Channels on other scales: the function stays, and what is joined shares its factors."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import FOLDED, images, logits_of, network, with_weight
from numpy.typing import NDArray

from edgeres.calibration.recovery.equalize import equalization_of
from edgeres.quantization.equalized import channel_groups, equalized_parameters
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.parameters import with_parameters

Array = NDArray[np.float32]


def peaks_of(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Returns ranges of channels between 0.05 and 20, of every activation with pixels."""
    random = np.random.default_rng(seed)
    return {
        name: np.exp(random.uniform(-3, 3, shape[0])).astype(np.float32)
        for name, shape in graph.shapes.items()
        if len(shape) == 3 and name not in graph.constants
    }


def equalized(model: onnx.ModelProto) -> Graph:
    """Returns the network after equalization of such ranges."""
    graph = view(model)
    factors = equalization_of(graph, peaks_of(graph))
    return with_parameters(graph, equalized_parameters(graph, factors))


@pytest.mark.parametrize("name", FOLDED)
def test_equalization_changes_no_result(name: str) -> None:
    """Factors pass through ReLU, addition, padding and pools to the classifier, grouped or not."""
    model = network(name)
    changed = equalized(model)
    before, after = logits_of(model, images(4)), logits_of(changed.model, images(4))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)
    weights = [node.input[1] for node in changed.nodes if node.op_type == "Conv"]
    assert any(name.endswith("/recovered_weight") for name in weights)


def test_a_factor_falls_with_the_range_of_its_channel() -> None:
    """0.7 of the ratio of ranges in logarithms, less half of the weights' that read it, by hand."""
    graph = view(network("identity"))
    peaks = {"hidden_relu": np.array([8, 4, 2, 1, 1, 1, 1, 1], np.float32)}
    factors = np.array(equalization_of(graph, peaks)["hidden_relu"])
    weight = graph.constant(graph.producers["main"].input[1])
    assert weight is not None
    shares = np.abs(weight).max(axis=(2, 3)) / np.abs(weight).max(axis=(1, 2, 3))[:, None]
    expected = (peaks["hidden_relu"] / 8) ** 0.7 / shares.max(axis=0) ** 0.5
    np.testing.assert_allclose(factors, expected, rtol=1e-5)


def test_a_dead_channel_has_a_finite_factor() -> None:
    """Neither a channel without values nor one that nobody reads divides by zero."""
    model = with_weight(
        network("identity"), "main1_w", lambda w: w * (np.arange(8) != 3)[:, None, None, None]
    )
    model = with_weight(model, "main2_w", lambda w: w * (np.arange(8) != 5)[None, :, None, None])
    graph = view(model)
    peaks = peaks_of(graph)
    peaks["hidden_relu"][3] = 0
    for values in equalization_of(graph, peaks).values():
        assert np.isfinite(values).all()
        assert min(values) > 0


def test_what_an_addition_joins_shares_its_factors() -> None:
    """The stem's channels and the main branch's are one stream; image and logits keep their scale."""
    groups = channel_groups(view(network("identity")))
    assert np.array_equal(groups["entry"], groups["main"])
    assert np.array_equal(groups["last"], groups["entry"])
    assert len({*groups["entry"], *groups["hidden_relu"]}) == 16
    assert not groups["image"].any()
    assert not groups["logits"].any()


def test_padded_channels_are_those_of_the_stage_before() -> None:
    """Option A: the middle 8 of 16 channels are tied to the 8 of the stage before."""
    groups = channel_groups(view(network("option A")))
    assert np.array_equal(groups["last"][4:12], groups["entry"])
    assert len(set(groups["last"])) == 16


def test_what_is_no_multiple_keeps_its_scale() -> None:
    """A clip at a constant is another function of a scaled tensor."""
    model = network("identity")
    relu = next(node for node in model.graph.node if node.output[0] == "hidden_relu")
    relu.op_type = "Sigmoid"
    groups = channel_groups(view(model))
    assert not groups["hidden"].any()
    assert groups["entry"].all()

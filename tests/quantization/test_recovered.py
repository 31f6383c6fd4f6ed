"""A recovery changes the FP32 graph, and both lowerings with it; equalization changes no result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from networks import images, initializers, network
from tables import EMPTY, table_from_images

from edgeres.core.methods import Method, WeightMethod
from edgeres.core.recovery import Corrected
from edgeres.core.table import CalibrationTable
from edgeres.errors import ArtifactError
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.parameters import parameters_of
from edgeres.quantization.placement import Placement
from edgeres.quantization.qdq.lowering import lower_for_tensorrt
from edgeres.quantization.qdq.placement import place_for_tensorrt
from edgeres.quantization.recovered import recovered
from edgeres.quantization.rounding import grid_scales, in_steps, pack
from edgeres.quantization.weights import mse_weight_scales, quantize_weight, weight_scales
from edgeres.targets.onnxruntime.lowering import lower_for_cpu
from edgeres.targets.onnxruntime.placement import place_for_cpu

NOTHING = Placement((), frozenset(), ())
"""All layers in float."""


def conv(graph: Graph, output: str) -> onnx.NodeProto:
    """Returns the convolution that makes a tensor."""
    return graph.producers[output]


def table_with(graph: Graph, **found: object) -> CalibrationTable:
    """Returns a table of the graph with these parts of a recovery; `biases` serve both lowerings."""
    if (biases := found.pop("biases", None)) is not None:
        corrected = Corrected(before_db=0, after_db=0, biases=biases)  # type: ignore[arg-type]
        found["lowerings"] = {"tensorrt": corrected, "onnxruntime": corrected}
    return replace(table_from_images(graph, images(4)), recovery=replace(EMPTY, **found))  # type: ignore[arg-type]


def test_rounding_bits_reach_both_lowerings() -> None:
    """All bits down gives the floor and all up the ceiling of every weight, on either target."""
    model = network("identity")
    graph = view(model)
    node = conv(graph, "main")
    weight = parameters_of(graph, node).weight
    steps = in_steps(weight, grid_scales(weight))
    for up in (np.zeros(weight.shape, bool), np.ones(weight.shape, bool)):
        table = table_with(graph, rounding={node.name: pack(up)})
        expected = np.where(np.abs(steps) >= 127, np.sign(steps) * 127, np.floor(steps) + up)
        placement = place_for_tensorrt(graph)
        changed = recovered(graph, table, placement, "tensorrt")
        for lowered in (
            lower_for_tensorrt(changed, placement, table),
            lower_for_tensorrt(changed, placement, table, fp16_scales=True),
            lower_for_cpu(recovered(graph, table, place_for_cpu(graph), "onnxruntime"), table),
        ):
            assert np.array_equal(initializers(lowered)[node.name + "/weight_s8"], expected)


def test_biases_reach_both_lowerings() -> None:
    """A correction is added to the trained bias; one where the convolution has none makes it."""
    model = network("identity")
    next(n for n in model.graph.node if n.output[0] == "hidden").input.pop()
    graph = view(model)
    nodes = [conv(graph, name) for name in ("hidden", "main")]
    table = table_with(graph, biases={node.name: tuple(np.arange(8) / 8) for node in nodes})
    changed = recovered(graph, table, place_for_tensorrt(graph), "tensorrt")
    trained = initializers(model)["main2_b"]
    shift = np.arange(8, dtype=np.float32) / 8
    assert np.array_equal(parameters_of(changed, nodes_by(changed, "hidden")).bias, shift)
    assert np.array_equal(parameters_of(changed, nodes_by(changed, "main")).bias, trained + shift)
    cpu = initializers(lower_for_cpu(changed, table))
    stored = cpu[nodes[0].name + "/bias_s32"] * cpu[nodes[0].name + "/bias_scale"]
    np.testing.assert_allclose(stored, shift, atol=1e-3)


def nodes_by(graph: Graph, output: str) -> onnx.NodeProto:
    """Returns the operator that makes a tensor in a changed graph."""
    return graph.producers[output]


def test_a_layer_left_in_float_keeps_its_weights() -> None:
    """Rounding and bias correction belong to INT8; a float layer is what was trained."""
    graph = view(network("identity"))
    node = conv(graph, "main")
    up = np.ones(parameters_of(graph, node).weight.shape, bool)
    table = table_with(graph, rounding={node.name: pack(up)}, biases={node.name: (1.0,) * 8})
    changed = recovered(graph, table, NOTHING, "tensorrt")
    assert np.array_equal(
        parameters_of(changed, nodes_by(changed, "main")).weight, parameters_of(graph, node).weight
    )


def test_what_is_kept_in_float_stays_so() -> None:
    """Mixed precision and recovery together: the changed graph keeps the same layers from INT8."""
    graph = view(network("identity"))
    node = conv(graph, "main")
    kept = graph.keeping({node.name: "for the accuracy"})
    first = conv(graph, "hidden")
    table = table_with(graph, biases={first.name: (1.0,) * 8})
    changed = recovered(kept, table, place_for_cpu(kept), "onnxruntime")
    assert changed.kept == {node.name: "for the accuracy"}
    weights = initializers(lower_for_cpu(changed, table))
    assert node.name + "/weight_s8" not in weights
    assert first.name + "/weight_s8" in weights


def test_a_table_without_recovery_changes_nothing() -> None:
    """The graph comes back as it is."""
    graph = view(network("identity"))
    assert recovered(graph, table_from_images(graph, images(4)), NOTHING, "tensorrt") is graph


def test_two_readers_of_one_weight_are_recovered_apart() -> None:
    """Each convolution gets a weight of its own."""
    model = network("identity")
    next(n for n in model.graph.node if n.output[0] == "main").input[1] = "main1_w"
    graph = view(model)
    node = conv(graph, "main")
    weight = parameters_of(graph, node).weight
    table = table_with(graph, rounding={node.name: pack(np.ones(weight.shape, bool))})
    changed = recovered(graph, table, place_for_tensorrt(graph), "tensorrt")
    assert np.array_equal(parameters_of(changed, nodes_by(changed, "hidden")).weight, weight)
    assert not np.array_equal(parameters_of(changed, nodes_by(changed, "main")).weight, weight)


def test_another_method_takes_no_corrections() -> None:
    """They were fitted to other thresholds; equalization stays, as thresholds are of its channels."""
    graph = view(network("identity"))
    main = conv(graph, "main")
    bits = pack(np.ones(parameters_of(graph, main).weight.shape, bool))
    table = table_with(
        graph,
        biases={main.name: (1.0,) * 8},
        rounding={main.name: bits},
        equalization={"hidden_relu": (2.0,) * 8},
    )
    placement = place_for_tensorrt(graph)
    changed = recovered(graph, table, placement, "tensorrt", Method.MSE)
    found, trained = parameters_of(changed, conv(changed, "main")), parameters_of(graph, main)
    assert np.array_equal(found.weight, trained.weight * 2)
    assert np.array_equal(found.bias, trained.bias)
    own = recovered(graph, table, placement, "tensorrt", Method.MAX)
    assert np.array_equal(parameters_of(own, conv(own, "main")).bias, trained.bias + 1)


@pytest.mark.parametrize("place", [place_for_cpu, place_for_tensorrt])
def test_weights_by_mse_have_their_grid_in_both_lowerings(
    place: Callable[[Graph], Placement],
) -> None:
    """The integers and scales are those of the search, the joint convolution's within them."""
    graph = view(network("down-sampling"))
    table = replace(table_from_images(graph, images(4)), weight_method=WeightMethod.MSE)
    placement = place(graph)
    changed = recovered(graph, table, placement, "tensorrt")
    if place is place_for_tensorrt:
        lowered = initializers(lower_for_tensorrt(changed, placement, table))
    else:
        lowered = initializers(lower_for_cpu(changed, table))
    narrowed = 0
    for name in placement.weighted:
        weight = parameters_of(graph, next(n for n in graph.nodes if n.name == name)).weight
        scales = mse_weight_scales(weight, axis=0)
        narrowed += int((scales < weight_scales(weight, axis=0)).sum())
        np.testing.assert_allclose(lowered[name + "/weight_scale"], scales, rtol=1e-6)
        expected = quantize_weight(weight, scales, axis=0).values
        assert np.array_equal(lowered[name + "/weight_s8"], expected)
    assert narrowed


def test_weights_by_mse_of_a_float_layer_are_the_trained_ones() -> None:
    """Nothing is clipped that no grid needs."""
    graph = view(network("identity"))
    table = replace(table_from_images(graph, images(4)), weight_method=WeightMethod.MSE)
    assert recovered(graph, table, NOTHING, "tensorrt") is graph


MISFITS: dict[str, dict[str, object]] = {
    "equalizes 2 channels of 'hidden_relu'": {"equalization": {"hidden_relu": (1.0, 2.0)}},
    "equalizes 3 channels of 'image'": {"equalization": {"image": (2.0,) * 3}},
    "equalizes 8 channels of 'entry'": {"equalization": {"entry": (2.0,) * 8, "main": (3.0,) * 8}},
    "names 'nothing', which is no convolution": {"biases": {"nothing": (1.0,)}},
    "does not fit the convolution '{main}' (1 bytes of rounding bits for 576": {
        "rounding": {"{main}": b"\x00"}
    },
    "does not fit the convolution '{main}' (cannot reshape array of size 2": {
        "biases": {"{main}": (1.0, 2.0)}
    },
}


@pytest.mark.parametrize("message", MISFITS)
def test_a_recovery_that_does_not_fit_is_refused(message: str) -> None:
    """A table edited by hand ends in a sentence, not in wrong weights."""
    graph = view(network("identity"))
    main = conv(graph, "main").name
    found = {
        part: {name.format(main=main): v for name, v in values.items()}  # type: ignore[attr-defined]
        for part, values in MISFITS[message].items()
    }
    with pytest.raises(ArtifactError) as caught:
        recovered(graph, table_with(graph, **found), place_for_tensorrt(graph), "tensorrt")
    assert message.format(main=main) in str(caught.value)
    assert "Run calibrate again." in str(caught.value)

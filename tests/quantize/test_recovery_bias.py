"""Bias correction takes the mean error of every channel to zero, layer after layer."""

from __future__ import annotations

import numpy as np
from networks import images, initializers, network
from numpy.typing import NDArray
from tables import table_from_images

from edgeres.quantize.graph import Graph, view
from edgeres.quantize.placement import place_for_tensorrt
from edgeres.quantize.recovery.apply import Parameters, parameters_of, with_parameters
from edgeres.quantize.recovery.bias import fit_bias
from edgeres.quantize.recovery.layers import Layer, layers_of
from edgeres.quantize.recovery.replay import Replay, float_replay, twin_replay

Array = NDArray[np.float32]
FITTED, ALL = 20, 28


def outputs(replay: Replay, layer: Layer) -> Array:
    """Returns a layer's output before the ReLU on all images."""
    return np.concatenate([made for (made,) in replay.read([layer.target])])


def setting(name: str, coarse: float = 0.05) -> tuple[Graph, Graph, Replay, Replay]:
    """Returns a network with a weight of its own for each layer, the same coarsely rounded, both run."""
    graph = view(network(name))
    placement = place_for_tensorrt(graph)
    trained = {n.name: parameters_of(graph, n) for n in graph.nodes if n.name in placement.weighted}
    own = with_parameters(graph, trained)
    rounded = {
        k: Parameters((np.rint(p.weight / coarse) * coarse).astype(np.float32), p.bias)
        for k, p in trained.items()
    }
    twin = with_parameters(own, rounded)
    table = table_from_images(graph, images(4))
    x = images(ALL) + np.float32(0.3)
    return own, twin, float_replay(own, x), twin_replay(twin, placement, table, x)


def test_the_mean_error_is_gone_in_every_layer() -> None:
    """Settled one after the other, no channel of the fitted images is off on average."""
    own, rounded, exact, twin = setting("down-sampling")
    for layer in layers_of(own, place_for_tensorrt(own)):
        nearest = parameters_of(rounded, rounded.producers[layer.node.output[0]])
        found = fit_bias(layer, nearest, (exact, twin), FITTED)
        off = (outputs(exact, layer) - outputs(twin, layer))[:FITTED].mean(axis=(0, 2, 3))
        np.testing.assert_allclose(found.shift, off, atol=1e-5)
        assert np.abs(off).max() > 1e-3
        twin.settle(layer.node, Parameters(found.weight, nearest.bias + found.shift))
        left = (outputs(exact, layer) - outputs(twin, layer))[:FITTED].mean(axis=(0, 2, 3))
        np.testing.assert_allclose(left, 0, atol=1e-5)


def test_errors_are_of_the_held_out_images() -> None:
    """Before and after are mean squares behind the ReLU on images that were not fitted."""
    own, rounded, exact, twin = setting("identity")
    layer = layers_of(own, place_for_tensorrt(own))[1]
    nearest = parameters_of(rounded, rounded.producers[layer.node.output[0]])
    found = fit_bias(layer, nearest, (exact, twin), FITTED)
    wanted, made = outputs(exact, layer)[FITTED:], outputs(twin, layer)[FITTED:]
    shifted = made + found.shift[:, None, None]
    expected = [np.square(np.maximum(m, 0) - np.maximum(wanted, 0)).mean() for m in (made, shifted)]
    np.testing.assert_allclose([found.before, found.after], expected, rtol=1e-4)
    assert found.after < found.before
    assert found.up is None


def test_a_layer_without_error_is_left_alone() -> None:
    """Where both networks agree, the correction is nothing."""
    own, _, exact, _ = setting("identity")
    layer = layers_of(own, place_for_tensorrt(own))[0]
    parameters = parameters_of(own, layer.node)
    found = fit_bias(layer, parameters, (exact, exact), FITTED)
    assert not found.shift.any()
    assert (found.before, found.after) == (0, 0)
    assert initializers(own.model)  # the network itself was only read

"""Bias correction takes the mean error of every channel to zero, layer after layer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from networks import images, initializers, network
from numpy.typing import NDArray
from sure_means import sure_means
from tables import table_from_images

from edgeres.calibration.recovery.bias import fit_bias, mean_errors
from edgeres.calibration.recovery.layers import (
    QuantizedConvolution,
    image_weights,
    layers_of,
    powers_of,
)
from edgeres.calibration.recovery.replay import (
    Replay,
    ReplayPair,
    float_replay,
    quantized_replay,
)
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.parameters import Parameters, parameters_of, with_parameters
from edgeres.quantization.qdq.placement import place_for_tensorrt

Array = NDArray[np.float32]
FITTED, ALL = 20, 28


def outputs(replay: Replay, layer: QuantizedConvolution) -> Array:
    """Returns a layer's output before the ReLU on all images."""
    return np.concatenate([made for (made,) in replay.read([layer.target])])


def shares(wanted: Array) -> Array:
    """Returns how much of a mean each image makes, by its power or the median of all."""
    powers = np.square(wanted.astype(np.float64)).mean(axis=(1, 2, 3))
    inverse = 1 / np.maximum(powers, np.median(powers))
    return np.asarray(inverse / inverse.mean(), np.float32)


def off_by(layer: QuantizedConvolution, wanted: Array, made: Array) -> NDArray[np.float64]:
    """Returns the mean by which each channel falls short, as far as the images are sure of it."""
    return sure_means(wanted, made, shares(wanted), relu=layer.relu)


def setting(name: str, coarse: float = 0.05) -> tuple[Graph, Graph, ReplayPair]:
    """Returns a network with a weight of its own for each layer, the same coarsely rounded, both run."""
    graph = view(network(name))
    placement = place_for_tensorrt(graph)
    trained = {n.name: parameters_of(graph, n) for n in graph.nodes if n.name in placement.weighted}
    own = with_parameters(graph, trained)
    rounded = {
        k: Parameters((np.rint(p.weight / coarse) * coarse).astype(np.float32), p.bias)
        for k, p in trained.items()
    }
    coarsely = with_parameters(own, rounded)
    table = table_from_images(graph, images(4))
    x = images(ALL) + np.float32(0.3)
    quantized = quantized_replay(coarsely, placement, table, x, unsigned=False)
    return own, coarsely, ReplayPair(float_replay(own, x), quantized)


def test_the_mean_error_is_gone_in_every_layer() -> None:
    """Settled one after the other, no channel of the fitted images is off on average."""
    own, rounded, replays = setting("down-sampling")
    for layer in layers_of(own, place_for_tensorrt(own)):
        nearest = parameters_of(rounded, rounded.producers[layer.node.output[0]])
        found = fit_bias(layer, nearest, replays, FITTED)
        off = off_by(
            layer,
            outputs(replays.exact, layer)[:FITTED],
            outputs(replays.quantized, layer)[:FITTED],
        )
        np.testing.assert_allclose(found.shift, off, atol=1e-5)
        assert np.abs(off).max() > 1e-3
        replays.quantized.settle(layer.node, Parameters(found.weight, nearest.bias + found.shift))
        left = off_by(
            layer,
            outputs(replays.exact, layer)[:FITTED],
            outputs(replays.quantized, layer)[:FITTED],
        )
        assert np.abs(left).max() < np.abs(off).max() / 4


def test_errors_are_of_the_held_out_images() -> None:
    """Before and after are mean squares behind the ReLU on images that were not fitted."""
    own, rounded, replays = setting("identity")
    layer = layers_of(own, place_for_tensorrt(own))[1]
    nearest = parameters_of(rounded, rounded.producers[layer.node.output[0]])
    found = fit_bias(layer, nearest, replays, FITTED)
    wanted, made = (
        outputs(replays.exact, layer)[FITTED:],
        outputs(replays.quantized, layer)[FITTED:],
    )
    shifted = made + found.shift[:, None, None]
    errors = [np.square(np.maximum(m, 0) - np.maximum(wanted, 0)) for m in (made, shifted)]
    expected = [shares(wanted) @ error.mean(axis=(1, 2, 3)) / len(wanted) for error in errors]
    np.testing.assert_allclose([found.before, found.after], expected, rtol=1e-4)
    assert found.after < found.before
    assert found.up is None


def test_a_layer_without_error_is_left_alone() -> None:
    """Where both networks agree, the correction is nothing."""
    own, _, replays = setting("identity")
    layer = layers_of(own, place_for_tensorrt(own))[0]
    parameters = parameters_of(own, layer.node)
    found = fit_bias(layer, parameters, ReplayPair(replays.exact, replays.exact), FITTED)
    assert not found.shift.any()
    assert (found.before, found.after) == (0, 0)
    assert initializers(own.model)  # the network itself was only read


def test_what_the_relu_cuts_off_moves_no_bias() -> None:
    """Errors of ten times the rest on negative outputs, as clipping makes them, are of no account.

    A mean over all of the output, as in the source, would follow them.
    """
    own, rounded, replays = setting("identity")
    layer = layers_of(own, place_for_tensorrt(own))[1]
    nearest = parameters_of(rounded, rounded.producers[layer.node.output[0]])
    right = fit_bias(layer, nearest, replays, FITTED)
    read = replays.quantized.read
    far = cast("Replay", SimpleNamespace(read=lambda names: map(clipped, read(names))))
    found = fit_bias(layer, nearest, ReplayPair(replays.exact, far), FITTED)
    np.testing.assert_array_equal(found.shift, right.shift)
    wanted, made = outputs(replays.exact, layer)[:FITTED], outputs(far, layer)[:FITTED]
    assert np.abs((wanted - made).mean(axis=(0, 2, 3))).min() > 5 * np.abs(right.shift).max()


def clipped(part: list[Array]) -> list[Array]:
    """Returns the outputs with those below zero far below."""
    return [np.where(made < 0, made - 3, made) for made in part]


def noisy(generator: np.random.Generator, spread: float) -> tuple[Array, NDArray[np.float64]]:
    """Returns channels' true mean errors, (2000,), and what 12 images show of them, (12, 2000)."""
    true = generator.normal(0, spread, 2000)
    return true.astype(np.float32), true + generator.normal(0, 1, (12, 2000))


def test_a_mean_is_drawn_to_zero_by_what_chance_explains() -> None:
    """Normal means of normal errors have a posterior that is known: variance over the sum of both."""
    true, seen = noisy(np.random.default_rng(0), 0.3)
    found = mean_errors(np.ones(12, np.float32), 5 * seen, np.full(seen.shape, 5))
    means = seen.mean(axis=0)
    posterior = means * 0.3**2 / (0.3**2 + seen.var(axis=0, ddof=1) / 12)
    np.testing.assert_allclose(found, posterior, atol=0.05)
    assert np.square(found - true).mean() < 0.7 * np.square(means - true).mean()


def test_a_mean_without_chance_stays_and_chance_alone_goes() -> None:
    """Images that agree are sure; those that only differ show nothing, and one cannot differ."""
    true, seen = noisy(np.random.default_rng(1), 0.0)
    found = mean_errors(np.ones(12, np.float32), seen, np.ones(seen.shape, np.int64))
    assert np.square(found).mean() < 0.05 * np.square(seen.mean(axis=0)).mean()
    assert not true.any()
    alike = np.tile(np.linspace(-1, 1, 7), (3, 1))
    weights = np.array([0.5, 2, 0.5], np.float32)
    sure = mean_errors(weights, 4 * alike, np.full(alike.shape, 4))
    np.testing.assert_allclose(sure, alike[0], rtol=1e-6, atol=1e-9)
    assert not mean_errors(weights[:1], alike[:1], np.ones((1, 7), np.int64)).any()


def test_a_mean_of_unequal_images_has_the_error_of_resampled_ones() -> None:
    """One channel, its images weighted and of unlike positions: the bootstrap knows its variance."""
    generator = np.random.default_rng(2)
    active = generator.integers(5, 40, (200, 1))
    missing = active * generator.normal(0.1, 1, (200, 1))
    weights = generator.uniform(0.2, 1.8, 200).astype(np.float32)
    mean = float((weights @ missing / (weights @ active))[0])
    drawn = generator.integers(0, 200, (4000, 200))
    sums = [(weights[drawn, None] * values[drawn]).sum(axis=1) for values in (missing, active)]
    variance = float(np.var(sums[0] / sums[1]))
    found = float(mean_errors(weights, missing, active)[0])
    # A channel alone is its own prior: its square less its variance, over its square.
    assert found == pytest.approx(mean * (1 - variance / mean**2), rel=0.1)
    assert 0.1 < found / mean < 0.95


def test_one_giant_image_counts_as_much_as_another() -> None:
    """By hand: in proportion to 1 / power above the median, alike below, 1 on average."""
    found = image_weights(np.array([1.0, 4.0, 400.0, 2.0, 4.0], np.float32))
    np.testing.assert_allclose(found, np.array([1, 1, 0.01, 1, 1]) / 0.802, rtol=1e-6)
    assert np.array_equal(image_weights(np.zeros(3, np.float32)), np.ones(3))


def test_powers_are_of_each_image() -> None:
    """Mean squares over channels and positions."""
    outputs = np.stack([np.full((2, 3, 3), 2.0), np.zeros((2, 3, 3))]).astype(np.float32)
    assert powers_of(outputs).tolist() == [4.0, 0.0]

"""What recovery reads of a network: its layers, windows of them, and the activations cached between."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from networks import FOLDED, SIZE, images, logits_of, network, network_from_body
from tables import table_from_images
from torch.nn import functional

from edgeres.calibration.recovery import replay as replay_module
from edgeres.calibration.recovery import windows as windows_module
from edgeres.calibration.recovery.layers import (
    QuantizedConvolution,
    Samples,
    geometry_of,
    layers_of,
)
from edgeres.calibration.recovery.parts import between
from edgeres.calibration.recovery.replay import (
    Replay,
    Rounded,
    float_replay,
    integer_replay,
    quantized_replay,
)
from edgeres.calibration.recovery.windows import ExactOutputs, Sampling, sample, window_of
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.parameters import Parameters, parameters_of, with_parameters
from edgeres.quantization.qdq.lowering import lower_for_tensorrt
from edgeres.quantization.qdq.placement import place_for_tensorrt
from edgeres.quantization.rounding import grid_scales, on_grid

HEAD = "  pooled = GlobalAveragePool(last)\n  flat = Flatten(pooled)\n  logits = Gemm<transB = 1>(flat, fc_w, fc_b)\n"
ODD = {
    "dilated": "<dilations = [2, 2], pads = [2, 2, 2, 2]>",
    "strided, uneven padding": "<strides = [3, 2], pads = [0, 1, 2, 3]>",
    "same upper": '<auto_pad = "SAME_UPPER", strides = [2, 2]>',
    "same lower": '<auto_pad = "SAME_LOWER", strides = [2, 2]>',
    "valid": '<auto_pad = "VALID">',
}
"""Attributes of a 3x3 convolution."""


def quantized(graph: Graph, count: int = 6) -> Replay:
    """Returns the network with quantized activations on a few images."""
    table = table_from_images(graph, images(4))
    return quantized_replay(graph, place_for_tensorrt(graph), table, images(count), unsigned=False)


def convolved(graph: Graph, layer: QuantizedConvolution, samples: Samples) -> torch.Tensor:
    """Returns what torch makes of the windows: the convolution without padding, and the Add."""
    geometry, parameters = geometry_of(graph, layer.node), parameters_of(graph, layer.node)
    made = functional.conv2d(
        torch.from_numpy(samples.source),
        torch.from_numpy(parameters.weight.copy()),
        torch.from_numpy(parameters.bias.copy()),
        geometry.strides,
        0,
        geometry.dilations,
        geometry.groups,
    )
    return made if samples.shortcut is None else made + torch.from_numpy(samples.shortcut)


def sampled(
    graph: Graph, layer: QuantizedConvolution, replay: Replay, window: tuple[int, int], seed: int
) -> Samples:
    """Returns a layer's windows of that size, what is wanted being what the network itself makes."""
    count = sum(len(part) for (part,) in replay.read([layer.source]))
    sampling = Sampling.of(graph, layer, images=count, fitted=count, every=1, seed=seed)
    last = np.subtract(graph.shapes[layer.target][1:], window)
    starts = np.random.default_rng(seed).integers(last, endpoint=True, size=(count, 2))
    sampling = dataclasses.replace(sampling, window=window, starts=starts)
    return sample(sampling, replay, ExactOutputs(replay, [sampling]).take(layer))


def check_windows(graph: Graph, window: tuple[int, int] = (3, 2)) -> None:
    """Checks that the windows of each layer's input make the windows of its output."""
    for layer in layers_of(graph, place_for_tensorrt(graph)):
        samples = sampled(graph, layer, quantized(graph), window, seed=1)
        found = convolved(graph, layer, samples)
        assert found.shape[2:] == window
        torch.testing.assert_close(found, torch.from_numpy(samples.target), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FOLDED)
def test_windows_hold_what_the_layer_reads(name: str) -> None:
    """Torch makes of each window what ONNX Runtime made of the whole image there."""
    check_windows(view(network(name)))


@pytest.mark.parametrize("name", ODD)
def test_windows_follow_the_attributes(name: str) -> None:
    """Dilation, uneven strides and every kind of padding move them as ONNX says."""
    body = f"  stem = Conv{ODD[name]}(image, stem_w, stem_b)\n  last = Relu(stem)\n"
    check_windows(view(network_from_body(body + HEAD)))


def test_windows_reach_every_place() -> None:
    """Over many images the drawn windows touch all four corners of the feature map."""
    graph = view(network("identity"))
    layer = layers_of(graph, place_for_tensorrt(graph))[0]
    windows = sampled(graph, layer, quantized(graph, 64), (15, 15), seed=0).source
    padded = {(not window[:, 0].any(), not window[:, :, 0].any()) for window in windows}
    assert padded == {(True, True), (True, False), (False, True), (False, False)}


def test_a_layer_ends_before_its_relu() -> None:
    """Behind an Add where the convolution is the main branch, at itself where it is the shortcut."""
    graph = view(network("down-sampling"))
    found = {layer.node.output[0]: layer for layer in layers_of(graph, place_for_tensorrt(graph))}
    assert [(name, layer.target, layer.shortcut, layer.relu) for name, layer in found.items()] == [
        ("stem", "stem", None, True),
        ("hidden", "hidden", None, True),
        ("main", "sum", "shortcut/dq", True),
        ("shortcut", "shortcut", None, False),
    ]


def test_windows_grow_with_the_weights() -> None:
    """A window is as large as the equations need, and never larger than the feature map."""
    graph = view(network("identity"))
    layer = layers_of(graph, place_for_tensorrt(graph))[1]
    assert window_of(graph, layer, 1) == (SIZE, SIZE)
    assert window_of(graph, layer, 16) == (12, 12)
    assert window_of(graph, layer, 10_000) == (7, 7)


def test_caching_an_activation_changes_no_reading() -> None:
    """From the cached block output on, the network computes what it does from the image on."""
    graph = view(network("pre-activation"))
    advanced = float_replay(graph, images(5))
    advanced.advance(graph.producers["deep"])
    fresh = float_replay(graph, images(5))
    assert graph.input not in advanced._cached
    for (a,), (b,) in zip(advanced.read(["logits"]), fresh.read(["logits"]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_what_is_too_large_is_not_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is then run from further back."""
    monkeypatch.setattr(replay_module, "CACHE_BYTES", 10)
    graph = view(network("pre-activation"))
    replay = float_replay(graph, images(5))
    replay.advance(graph.producers["deep"])
    assert list(replay._cached) == [graph.input]


def test_large_activations_are_cached_of_fewer_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every second image where all would not fit, and of all again behind the down-sampling."""
    graph = view(network("down-sampling"))
    monkeypatch.setattr(replay_module, "CACHE_BYTES", 5 * 8 * SIZE * SIZE * 4)
    monkeypatch.setattr(replay_module, "LEAST_CACHED", 4)
    replay, fresh = float_replay(graph, images(8)), float_replay(graph, images(8))
    (expected,) = next(fresh.read(["last"]))
    replay.advance(graph.producers["main"])
    assert (set(replay._cached), replay.count(8), replay.count(5)) == (
        {"entry", "hidden_relu"},
        4,
        3,
    )
    np.testing.assert_allclose(next(replay.read(["last"]))[0], expected[::2], rtol=1e-5, atol=1e-6)
    replay.advance(graph.producers["pooled"])
    assert ([*replay._cached], replay.count(8)) == (["last"], 8)
    np.testing.assert_allclose(next(replay.read(["last"]))[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["bottleneck", "down-sampling"])
def test_no_cached_activation_is_larger_than_its_bound(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor what the layer computes, which is kept beside what it is computed of."""
    graph = view(network(kind))
    monkeypatch.setattr(replay_module, "CACHE_BYTES", 5 * 8 * SIZE * SIZE * 4)
    monkeypatch.setattr(replay_module, "LEAST_CACHED", 1)
    replay = float_replay(graph, images(8))
    for node in (each for each in graph.nodes if each.op_type == "Conv"):
        replay.advance(node)
        replay.keep(node.output[0])
        assert max(each.nbytes for each in replay._cached.values()) <= replay_module.CACHE_BYTES


def test_more_images_than_are_run_at_once() -> None:
    """What is cached of each stays in its place."""
    model = network("identity")
    graph = view(model)
    replay = float_replay(graph, images(19))
    replay.advance(graph.producers["pooled"])
    logits = np.concatenate([part for (part,) in replay.read(["logits"])])
    np.testing.assert_allclose(logits, logits_of(model, images(19)), rtol=1e-4, atol=1e-5)


def test_an_operator_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the way from the image to the logits nothing that is cached is computed again."""
    graph = view(network("bottleneck"))
    replay = float_replay(graph, images(4))
    run: list[str] = []

    def counted(*of: object) -> onnx.ModelProto:
        part = between(*of)  # type: ignore[arg-type]
        run.extend(node.output[0] for node in part.graph.node)
        return part

    monkeypatch.setattr(replay_module, "between", counted)
    for node in graph.nodes:
        replay.advance(node)
    assert len(run) == len(set(run)) > 8


@pytest.mark.parametrize("changed", ["settle", "shift"])
def test_what_follows_is_of_the_changed_convolution(changed: str) -> None:
    """A kept output moves with its bias, and is computed anew with another weight."""
    graph = view(network("identity"))
    node = graph.producers["main"]
    p = parameters_of(graph, node)
    shift = np.linspace(-1, 1, len(p.bias)).astype(np.float32)
    other = Parameters(p.weight if changed == "shift" else -p.weight, p.bias + shift)
    replay = float_replay(graph, images(5))
    replay.advance(node)
    replay.keep("sum")
    if changed == "shift":
        replay.shift(node, "sum", shift)
    else:
        replay.settle(node, other)
    expected = logits_of(with_parameters(graph, {node.name: other}).model, images(5))
    replay.advance(graph.producers["pooled"])
    (logits,) = next(replay.read(["logits"]))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_only_what_is_needed_is_run() -> None:
    """Between two tensors stand the operators between them, with their weights alone."""
    model = network("identity")
    part = between(model, ["image", "entry"], ["main"], {})
    assert [node.output[0] for node in part.graph.node] == ["hidden", "hidden_relu", "main"]
    assert {t.name for t in part.graph.initializer} == {"main1_w", "main1_b", "main2_w", "main2_b"}


def test_the_quantized_network_with_its_weights_rounded_is_the_lowered_one() -> None:
    """What recovery simulates is TensorRT's lowering, up to the order of sums."""
    graph = view(network("down-sampling"))
    placement = place_for_tensorrt(graph)
    rounded = {}
    for node in graph.nodes:
        if node.name in placement.weighted:
            p = parameters_of(graph, node)
            rounded[node.name] = Parameters(on_grid(p.weight, grid_scales(p.weight)), p.bias)
    settled = with_parameters(graph, rounded)
    table = table_from_images(graph, images(4))
    replay = quantized_replay(settled, placement, table, images(6), unsigned=False)
    (logits,) = next(replay.read(["logits"]))
    lowered = lower_for_tensorrt(settled, placement, table)
    expected = logits_of(lowered, images(6), optimized=False)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def rounded(graph: Graph) -> Graph:
    """Returns the network with each quantized weight on its grid."""
    placement = place_for_tensorrt(graph)
    found = {}
    for node in (each for each in graph.nodes if each.name in placement.weighted):
        p = parameters_of(graph, node)
        found[node.name] = Parameters(on_grid(p.weight, grid_scales(p.weight)), p.bias)
    return with_parameters(graph, found)


def on_integers(graph: Graph, count: int = 19) -> Replay:
    """Returns the quantized network on integer kernels, on more images than run at once."""
    table = table_from_images(graph, images(4))
    return integer_replay(graph, place_for_tensorrt(graph), table, images(count))


@pytest.mark.parametrize("name", FOLDED)
def test_integer_kernels_in_parts_make_the_lowered_network(name: str) -> None:
    """From the image to the logits in as many parts as there are convolutions.

    Reference: ONNX Runtime on the whole lowered network, in float between its roundings. A value
    within rounding of half a step may fall on the other side.
    """
    graph = rounded(view(network(name)))
    replay = on_integers(graph)
    for node in (each for each in graph.nodes if each.op_type == "Conv"):
        replay.advance(node)
    logits = np.concatenate([part for (part,) in replay.read([graph.output])])
    table = table_from_images(graph, images(4))
    lowered = lower_for_tensorrt(graph, place_for_tensorrt(graph), table)
    expected = logits_of(lowered, images(19), optimized=False)
    error = np.abs(logits_of(network(name), images(19)) - expected).max()
    assert np.abs(logits - expected).max() < error / 3


@pytest.mark.parametrize("name", ["down-sampling", "pre-activation", "option A"])
def test_what_a_layer_reads_as_integers_is_what_it_reads(name: str) -> None:
    """A window of an image's integers, scaled, is what ONNX Runtime dequantizes there."""
    graph = rounded(view(network(name)))
    replay = on_integers(graph)
    kinds = set()
    for layer in layers_of(graph, place_for_tensorrt(graph)):
        replay.advance(layer.node)
        read = [layer.source, *([] if layer.shortcut is None else [layer.shortcut])]
        of_all = [np.concatenate(each) for each in zip(*replay.read(read), strict=True)]
        for index, found in enumerate(replay.images(read)):
            for values, expected in zip(found, of_all, strict=True):
                kinds.add(type(values))
                window = values[:, 2:9, 1:4]
                assert window.dtype == np.float32
                np.testing.assert_array_equal(window, expected[index][:, 2:9, 1:4])
    assert Rounded in kinds


def test_a_settled_convolution_runs_on_integers() -> None:
    """What follows is of its new weight and bias, as the whole lowered network has them."""
    graph = rounded(view(network("down-sampling")))
    node = graph.producers["main"]
    p = parameters_of(graph, node)
    other = Parameters(-p.weight[::-1].copy(), p.bias + np.float32(0.5))
    replay = on_integers(graph, 5)
    replay.advance(node)
    replay.settle(node, other)
    replay.advance(graph.producers["pooled"])
    (logits,) = next(replay.read([graph.output]))
    table = table_from_images(graph, images(4))
    settled = with_parameters(graph, {node.name: other})
    lowered = lower_for_tensorrt(settled, place_for_tensorrt(graph), table)
    np.testing.assert_allclose(logits, logits_of(lowered, images(5), optimized=False), atol=0.02)


def test_integers_take_a_quarter_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that four times the images fit; what waits in float for an addition is not kept."""
    graph = rounded(view(network("down-sampling")))
    monkeypatch.setattr(replay_module, "LEAST_CACHED", 1)
    elements = SIZE * SIZE * 8 * 8
    monkeypatch.setattr(replay_module, "CACHE_BYTES", elements)
    replay = on_integers(graph, 8)
    for name in ("hidden", "main", "shortcut"):
        node = graph.producers[name]
        assert replay.thinning(node, 1, output=False) == 1
        replay.advance(node, 1)
        assert {values.dtype for values in replay._cached.values()} == {np.dtype(np.uint8)}
    assert float_replay(graph, images(8)).thinning(graph.producers["main"], 1) == 4


@pytest.mark.parametrize("most", [1, 1 << 30], ids=["layer by layer", "all at once"])
def test_the_fp32_windows_are_its_own(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every layer, whichever images it is sampled of, and whatever is run together."""
    monkeypatch.setattr(windows_module, "_MOST_BYTES", most)
    graph = view(network("bottleneck"))
    layers = layers_of(graph, place_for_tensorrt(graph))
    samplings = [
        Sampling.of(graph, layer, images=19, fitted=12, every=every, seed=3)
        for layer, every in zip(layers, [2, 2, 2, 1, 1], strict=False)
    ]
    outputs = ExactOutputs(float_replay(graph, images(19)), samplings)
    replay = float_replay(graph, images(19))
    for sampling in samplings:
        found = outputs.take(sampling.layer)
        whole = np.concatenate([part for (part,) in replay.read([sampling.layer.target])])
        expected = [
            image[sampling.inside(index)] for index, image in enumerate(whole[:: sampling.every])
        ]
        np.testing.assert_allclose(found, np.stack(expected), rtol=1e-4, atol=1e-5)

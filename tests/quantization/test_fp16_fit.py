"""What FP16 cannot hold is moved between layers, or found before anything is typed: all of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import images, network, with_weight
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from tables import table_from_amax, table_from_images

from edgeres.core.artifacts import Fp16Layer
from edgeres.core.precision import Precision
from edgeres.errors import QuantizationError
from edgeres.onnx_file import LoadedModel, load_onnx
from edgeres.quantization.fp16 import fit
from edgeres.quantization.fp16.computed import computed_in_fp32
from edgeres.quantization.fp16.fit import fit_fp16, overflows
from edgeres.quantization.fp16.typed import to_fp16
from edgeres.quantization.graph import view
from edgeres.quantization.lowering import float_network
from edgeres.quantization.qdq.lowering import lower_for_tensorrt
from edgeres.quantization.qdq.placement import place_for_tensorrt
from edgeres.session import open_session, run_session

Array = NDArray[np.float32]

HERE = Path("m.onnx")
CONVOLUTIONS = ("stem", "main1", "main2")


def huge(weight: Array) -> Array:
    """Returns a weight with one value beyond FP16."""
    weight.flat[0] = 70000
    return weight


def times(model: onnx.ModelProto, factors: Mapping[str, float]) -> onnx.ModelProto:
    """Returns the model with named weights and biases multiplied."""

    def multiplied(factor: float) -> Callable[[Array], Array]:
        return lambda value: value * np.float32(factor)

    for name, factor in factors.items():
        model = with_weight(model, name, multiplied(factor))
    return model


def activations_times(factor: float) -> onnx.ModelProto:
    """Returns the identity network of the same function whose activations are scaled."""
    biases = {f"{name}_b": factor for name in CONVOLUTIONS}
    return times(network("identity"), {"stem_w": factor, **biases, "fc_w": 1 / factor})


def saved(model: onnx.ModelProto, folder: Path) -> LoadedModel:
    """Writes a model."""
    onnx.save(model, folder / "m.onnx")
    return load_onnx(folder / "m.onnx")


def fitted(model: onnx.ModelProto, *, int8: bool = True) -> fit.Fitted:
    """Returns the model fitted to FP16, with the ranges of a few images."""
    graph = view(model)
    placement = place_for_tensorrt(graph) if int8 else None
    return fit_fp16(graph, table_from_images(graph, images(4)), placement=placement, path=HERE)


def logits(model: onnx.ModelProto, x: Array) -> Array:
    """Returns the logits of a model in FP32 arithmetic."""
    session = open_session(model.SerializeToString(), integer=False)
    return run_session(session, ["logits"], {"image": x})[0]


def signal_db(expected: Array, actual: Array) -> float:
    """Returns the ratio of what logits differ by between images to their error, as powers."""
    noise = np.square(expected - actual, dtype=np.float64).sum()
    signal = np.square(expected - expected.mean(axis=0), dtype=np.float64).sum()
    return float(10 * np.log10(signal / noise))


def overflowing(
    model: onnx.ModelProto, amax: dict[str, float], *, int8: bool
) -> list[tuple[str, str]]:
    """Returns kind and tensor of what overflows, with a table of these extremes."""
    graph = view(model)
    placement = place_for_tensorrt(graph) if int8 else None
    found = overflows(graph, table_from_amax(graph, amax), placement=placement)
    return [(o.kind, o.tensor) for o in found]


def test_a_network_that_fits_is_left_alone() -> None:
    """Random weights of common size, both ways: nothing overflows, nothing is moved or lost."""
    for int8 in (False, True):
        assert overflowing(network("bottleneck"), {}, int8=int8) == []
        model = network("bottleneck")
        found = fitted(model, int8=int8)
        assert found.layers == ()
        assert found.graph.model == view(model).model


@pytest.mark.parametrize("factor", [1e-6, 3e-5, 2.0**-20, 1e5, 2e6])
@pytest.mark.parametrize("int8", [True, False])
def test_scaled_activations_are_scaled_back(factor: float, int8: bool) -> None:
    """The same function with activations of 1e-6 or 1e6 is as close to FP32 as without them."""
    x = images(8, 4)
    model, plain = activations_times(factor), network("identity")
    expected = logits(plain, x)

    def quality(model: onnx.ModelProto) -> float:
        graph = view(model)
        if int8:
            found = fitted(model)
            assert found.table is not None
            place = place_for_tensorrt(graph)
            typed = lower_for_tensorrt(found.graph, place, found.table, fp16_scales=True)
        else:
            typed = fitted(model, int8=False).graph.model
        return signal_db(expected, logits(computed_in_fp32(to_fp16(typed)), x))

    assert quality(model) > quality(plain) - 1.0


@pytest.mark.parametrize("factor", [1e-6, 1e5])
def test_a_move_changes_no_bit_and_no_integer(factor: float) -> None:
    """FP32 logits are equal bit for bit, and so are the INT8 weights and the INT8 network's logits."""
    x, model = images(8, 4), activations_times(factor)
    graph, found = view(model), fitted(model)
    assert found.table is not None
    assert {layer.exponent for layer in found.layers} != {0}
    assert (logits(found.graph.model, x) == logits(model, x)).all()
    place = place_for_tensorrt(graph)
    before = lower_for_tensorrt(graph, place, table_from_images(graph, images(4)))
    after = lower_for_tensorrt(found.graph, place, found.table)
    assert (logits(before, x) == logits(after, x)).all()
    for first, second in zip(before.graph.initializer, after.graph.initializer, strict=True):
        if first.data_type == onnx.TensorProto.INT8:
            assert first == second


def test_without_a_move_the_same_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Activations of 1e-6 have a few steps of FP16; typed all the same, the logits are noise."""
    # Smaller logits, since the classifier's weights of 1e6 would be refused before.
    model, x = times(activations_times(1e-6), {"fc_w": 1e-3}), images(8, 4)
    graph = view(model)
    table = table_from_images(graph, images(4))
    place = place_for_tensorrt(graph)
    monkeypatch.setattr(fit, "choose_exponents", lambda groups, numbers: (0,) * groups.count)
    with pytest.raises(QuantizationError, match=r"activation 'pooled' reaches .*e-06, .* steps"):
        fit_fp16(graph, table, placement=place, path=HERE)
    typed = lower_for_tensorrt(graph, place, table, fp16_scales=True)
    assert signal_db(logits(model, x), logits(computed_in_fp32(to_fp16(typed)), x)) < 30


def test_one_block_may_be_scaled_alone() -> None:
    """Between two convolutions of a block, whose tensor no addition ties: nothing is lost after."""
    factor = 2.0**-18
    model = times(
        network("identity"), {"main1_w": factor, "main1_b": factor, "main2_w": 1 / factor}
    )
    found = fitted(model)
    exponents = {layer.name: layer.exponent for layer in found.layers}
    assert exponents["Conv_2"] - exponents["Conv_0"] >= 7
    assert all((layer.levels, layer.subnormal) == (127, 0) for layer in found.layers)


def test_both_sides_of_an_addition_move_or_none() -> None:
    """The stream's exponent is the stem's, the main branch's and the sum's; the logits' stays."""
    found = fitted(activations_times(2.0**-20))
    exponents = {layer.name: layer.exponent for layer in found.layers}
    assert len({exponents[name] for name in ("Conv_0", "Conv_4", "Add_5")}) == 1
    assert exponents.get("Gemm_9", 0) == 0


def test_a_batch_normalisation_stops_a_move() -> None:
    """Its mean and variance tie its input: what lies before it is refused instead."""
    model = network("pre-activation")
    tiny = times(model, {"stem_w": 1e-7, "stem_b": 1e-7, "main2_w": 1e-7, "main2_b": 1e-7})
    with pytest.raises(QuantizationError, match=r"layers? below FP16's .*'entry'"):
        fitted(tiny)


def test_a_dead_channel_moves_nothing() -> None:
    """Weights of zero have no scale that could be subnormal."""

    def dead(weight: Array) -> Array:
        weight[0] = 0
        return weight

    model = with_weight(network("identity"), "main1_w", dead)
    assert fitted(model).layers == ()


def test_what_cannot_be_moved_is_counted_and_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """A channel a million times weaker than its neighbours keeps few levels, and is named."""

    def weak(weight: Array) -> Array:
        weight[0] *= 1e-6
        return weight

    model = with_weight(network("identity"), "main1_w", weak)
    with caplog.at_level(logging.INFO, logger="edgeres"):
        layers = {layer.name: layer for layer in fitted(model).layers}
    lossy = layers["Conv_2"]
    assert lossy.subnormal >= 1
    assert lossy.levels < 127
    assert "FP16 leaves 1 layer fewer than 127 levels, Conv_2 the fewest" in caplog.text
    with caplog.at_level(logging.INFO, logger="edgeres"):
        fitted(activations_times(1e-6))
    assert "powers of two moved between 9 layers" in caplog.text


def test_levels_are_counted_by_hand() -> None:
    """A scale of 3.5 steps becomes 4: 127 * 3.5 / 4 levels; one of 3.2 becomes 3, and 3.4 clips."""
    step = 2.0**-24
    weight = np.zeros((4, 1, 1, 2), np.float32)
    weight[:, 0, 0, 0] = np.array([3.5, 3.2, 3.005, 1.0]) * step * 127
    layer, reason = fit._scale_loss(
        Fp16Layer(name="c"), onnx.helper.make_node("Conv", ["x", "w"], ["y"]), weight
    )
    # 3.2 rounds to 3 and would clip 8 levels of 127, so 4 is taken, as for 3.5.
    assert (layer.subnormal, layer.levels, layer.clipped) == (4, round(127 * 3.2 / 4), 0)
    assert reason == ""


def test_every_offender_is_named_by_layer(tmp_path: Path) -> None:
    """Without a table nothing is moved: a weight and two biases, not the first of them alone."""
    model = network("identity")
    for name in ("main1_w", "main2_b", "fc_b"):
        model = with_weight(model, name, huge)
    with pytest.raises(QuantizationError) as refused:
        float_network(saved(model, tmp_path), Precision.FP16)
    assert str(refused.value) == (
        f"{tmp_path / 'm.onnx'} has 3 values beyond FP16, whose largest number is 65504, and no "
        "power of two can be moved to another layer: "
        "Conv_2: weight or bias 'main1_w' reaches 70000; "
        "Conv_4: weight or bias 'main2_b' reaches 70000; "
        "Gemm_9: weight or bias 'fc_b' reaches 70000. "
        "Build with --precision fp32."
    )
    # With one, only the bias of the logits stays where it is.
    table = table_from_amax(view(model), {"hidden_relu": 80000.0})
    with pytest.raises(
        QuantizationError, match=r"has 1 value beyond .*: Gemm_9: weight or bias 'fc_b'"
    ):
        float_network(saved(model, tmp_path), Precision.FP16, table)


def test_logits_beyond_fp16_are_refused() -> None:
    """They are observed, and no layer behind them could take a power of two."""
    model = network("identity")
    largest = float(np.abs(logits(model, images(4))).max())
    factor = 5.9e5 / largest
    grown = times(model, {"fc_w": factor, "fc_b": factor})
    graph = view(grown)
    table = table_from_amax(graph, {}, bounded={"logits": 5.9e5})
    for placement, option in ((place_for_tensorrt(graph), "--float-layers"), (None, "--precision")):
        with pytest.raises(
            QuantizationError,
            match=f"Gemm_9: activation 'logits' reaches 590000. Build with {option}",
        ):
            fit_fp16(graph, table, placement=placement, path=HERE)


def test_a_weight_that_becomes_int8_may_be_large() -> None:
    """Its scale counts instead: 70000 / 127 fits, 1e8 / 127 does not."""
    model = with_weight(network("identity"), "main1_w", huge)
    assert overflowing(model, {}, int8=True) == []
    beyond = with_weight(network("identity"), "main1_w", lambda weight: weight * 0 + 1e8)
    assert overflowing(beyond, {}, int8=True) == [("weight scale", "main1_w")]


def test_an_activation_scale_beyond_fp16_is_reported() -> None:
    """9e6 / 127 is 70866; the activation itself is found as well."""
    kinds = overflowing(network("identity"), {"hidden_relu": 9e6}, int8=True)
    assert kinds == [("activation scale", "hidden_relu"), ("activation", "hidden_relu")]


@pytest.mark.parametrize(("amax", "overflow"), [(65504.0, False), (65505.0, True)])
def test_the_largest_number_itself_fits(amax: float, overflow: bool) -> None:
    """On either side of 65504."""
    assert bool(overflowing(network("identity"), {"entry": amax}, int8=False)) is overflow


def test_the_image_is_an_activation_too() -> None:
    """Named by the network's input, which no operator makes and no layer scales."""
    graph = view(network("identity"))
    with pytest.raises(QuantizationError, match="image: activation 'image' reaches 100000"):
        fit_fp16(graph, table_from_amax(graph, {"image": 1e5}), path=HERE)


def test_without_a_table_weights_alone_are_checked_and_that_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No activation is known then; the log says so, and tiny weights are refused with a way out."""
    model = saved(network("identity"), tmp_path)
    with caplog.at_level(logging.INFO, logger="edgeres.quantization"):
        float_network(model, Precision.FP16)
    assert "activations were not checked, for want of a calibration table" in caplog.text
    bad = saved(with_weight(network("identity"), "stem_b", huge), tmp_path)
    with pytest.raises(QuantizationError, match=r"has 1 value beyond .*'stem_b' reaches 70000"):
        float_network(bad, Precision.FP16)
    tiny = saved(times(network("identity"), {"stem_w": 1e-7}), tmp_path)
    with pytest.raises(QuantizationError, match=r"weights 'stem_w' keep .* Pass --calibration"):
        float_network(tiny, Precision.FP16)


def test_what_is_reported_overflows_when_it_runs() -> None:
    """The typed network in ONNX's own arithmetic is infinite just where the table says 65504+."""
    model = with_weight(network("identity"), "main1_w", lambda weight: weight * 60000)
    graph = view(model)
    x = images(2)
    table = table_from_images(graph, x)
    assert "hidden_relu" in {o.tensor for o in overflows(graph, table)}
    with np.errstate(all="ignore"):
        typed = to_fp16(with_weight(model, "main1_w", lambda w: np.clip(w, -65504, 65504)))
        found: Any = ReferenceEvaluator(typed).run(["logits"], {"image": x})
    assert not np.isfinite(found[0]).all()


def test_typing_names_every_constant_that_overflows() -> None:
    """`to_fp16` guards itself, for callers that did not ask before."""
    model = with_weight(with_weight(network("identity"), "main2_b", huge), "fc_b", huge)
    with pytest.raises(
        QuantizationError, match="'main2_b' holds 70000, 'fc_b' holds 70000, beyond"
    ):
        to_fp16(model)

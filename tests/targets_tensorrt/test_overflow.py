"""What FP16 cannot hold is found before anything is typed FP16: all of it, by layer."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import images, network, with_weight
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from tables import table_from_amax, table_from_images

from edgeres.errors import QuantizationError
from edgeres.onnx_file import LoadedModel, load_onnx
from edgeres.quantization.fp16 import to_fp16
from edgeres.quantization.graph import view
from edgeres.targets.tensorrt.overflow import check_fp16_range, overflows

Array = NDArray[np.float32]


def huge(weight: Array) -> Array:
    """Returns a weight with one value beyond FP16."""
    weight.flat[0] = 70000
    return weight


def saved(model: onnx.ModelProto, folder: Path) -> LoadedModel:
    """Writes a model."""
    onnx.save(model, folder / "m.onnx")
    return load_onnx(folder / "m.onnx")


def overflowing(
    model: onnx.ModelProto, amax: dict[str, float], *, int8: bool
) -> list[tuple[str, str]]:
    """Returns kind and tensor of what overflows, with a table of these extremes."""
    graph = view(model)
    table = table_from_amax(graph, amax)
    return [(o.kind, o.tensor) for o in overflows(graph, table, int8=int8)]


def test_a_network_that_fits_is_clean() -> None:
    """Random weights of common size, both ways."""
    assert overflowing(network("bottleneck"), {}, int8=False) == []
    assert overflowing(network("bottleneck"), {}, int8=True) == []


def test_every_offender_is_named_by_layer(tmp_path: Path) -> None:
    """A weight, two biases and an activation, not the first of them alone."""
    model = network("identity")
    for name in ("main1_w", "main2_b", "fc_b"):
        model = with_weight(model, name, huge)
    table = table_from_amax(view(model), {"hidden_relu": 80000.0})
    with pytest.raises(QuantizationError) as refused:
        check_fp16_range(saved(model, tmp_path), table, int8=False)
    assert str(refused.value) == (
        f"4 values of {tmp_path / 'm.onnx'} overflow FP16, whose largest number is 65504: "
        "Conv_2: weight or bias 'main1_w' reaches 70000; "
        "Conv_4: weight or bias 'main2_b' reaches 70000; "
        "Gemm_9: weight or bias 'fc_b' reaches 70000; "
        "Relu_3: activation 'hidden_relu' reaches 80000. "
        "Build with --precision fp32."
    )


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


def test_the_image_is_an_activation_too(tmp_path: Path) -> None:
    """Named by the network's input, which no operator makes."""
    table = table_from_amax(view(network("identity")), {"image": 1e5})
    with pytest.raises(QuantizationError, match="image: activation 'image' reaches 100000"):
        check_fp16_range(saved(network("identity"), tmp_path), table, int8=False)


def test_without_a_table_weights_alone_are_checked_and_that_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No activation is known then; the log says so."""
    model = saved(network("identity"), tmp_path)
    with caplog.at_level(logging.INFO, logger="edgeres.targets.tensorrt"):
        check_fp16_range(model, None, int8=False)
    assert "activations were not checked, for want of a calibration table" in caplog.text
    bad = saved(with_weight(network("identity"), "stem_b", huge), tmp_path)
    with pytest.raises(QuantizationError, match=r"1 values of .*'stem_b' reaches 70000"):
        check_fp16_range(bad, None, int8=False)


def test_what_is_reported_overflows_when_it_runs(tmp_path: Path) -> None:
    """The typed network in ONNX's own arithmetic is infinite just where the table says 65504+."""
    model = with_weight(network("identity"), "main1_w", lambda weight: weight * 60000)
    graph = view(model)
    x = images(2)
    table = table_from_images(graph, x)
    reported = {o.tensor for o in overflows(graph, table, int8=False)}
    assert "hidden_relu" in reported
    with np.errstate(all="ignore"):
        typed = to_fp16(with_weight(model, "main1_w", lambda w: np.clip(w, -65504, 65504)))
        logits: Any = ReferenceEvaluator(typed).run(["logits"], {"image": x})
    assert not np.isfinite(logits[0]).all()


def test_typing_names_every_constant_that_overflows() -> None:
    """`to_fp16` guards itself, for callers that did not ask before."""
    model = with_weight(with_weight(network("identity"), "main2_b", huge), "fc_b", huge)
    with pytest.raises(
        QuantizationError, match="'main2_b' holds 70000, 'fc_b' holds 70000, beyond"
    ):
        to_fp16(model)

"""Lowerings are evaluated by the noise of their logits on held-out images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import images, logits_of, network, with_weight
from scipy.stats import ttest_rel
from tables import table_by_every_method, table_from_images

from edgeres.calibration.quality import NOISELESS_DB, LogitEvaluator, is_gain, sqnr_db
from edgeres.core.methods import Method
from edgeres.onnx_file import load_onnx
from edgeres.quantization.graph import view
from edgeres.quantization.lowering import Lowering
from edgeres.quantization.qdq.network import LOWERING as TENSORRT_LOWERING
from edgeres.quantization.qdq.network import quantize_for_tensorrt
from edgeres.targets.onnxruntime.quantize import LOWERING as CPU_LOWERING
from edgeres.targets.session_runner import network_runner


def test_the_ratio_is_of_centred_logits_in_decibels() -> None:
    """By hand: signal (1, -1), errors of a tenth and of a half of it; the mean of 20 and 6 dB."""
    reference = np.array([[6.0, 4.0], [6.0, 4.0]], np.float32)
    found = np.array([[107.1, 104.9], [11.5, 8.5]], np.float32)
    assert sqnr_db(reference, found) == pytest.approx((20 + 6.0206) / 2, abs=1e-3)


def test_one_image_out_of_range_does_not_decide() -> None:
    """Seeded fault: an image a hundred times as loud, and wrong; the others keep their say."""
    generator = np.random.default_rng(0)
    reference = generator.standard_normal((64, 10)).astype(np.float32)
    reference[0] *= 100
    noise = generator.standard_normal(reference.shape).astype(np.float32)
    fine, coarse = reference + 0.01 * noise, reference + 0.1 * noise
    fine[0] = -reference[0]
    assert sqnr_db(reference, fine) > sqnr_db(reference, coarse) + 15


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_broken_network_is_the_worst(bad: float) -> None:
    """An image with NaN or infinity among its logits has no quality at all, and no crash."""
    reference = np.array([[1.0, 2.0], [3.0, 1.0]], np.float32)
    found = reference.copy()
    found[1, 0] = bad
    assert sqnr_db(reference[1:], found[1:]) == -NOISELESS_DB
    assert sqnr_db(reference, found) == 0
    assert sqnr_db(reference, reference) == NOISELESS_DB


@pytest.mark.parametrize("lowering", [CPU_LOWERING, TENSORRT_LOWERING], ids=lambda low: low.name)
def test_the_evaluator_runs_what_the_builder_gets(lowering: Lowering) -> None:
    """Its logits are those of the lowered file in a session of one's own, up to one rounding."""
    model = network("bottleneck")
    graph = view(model)
    table = table_by_every_method(graph, images(16))
    batches = [images(4, seed) for seed in (5, 6)]
    evaluator = LogitEvaluator.of(model, graph, batches)
    whole = np.concatenate(batches)
    np.testing.assert_allclose(evaluator.logits, logits_of(model, whole), atol=1e-5)
    expected = logits_of(lowering.lower(graph, table, Method.MSE), whole)
    found = evaluator.lowered_logits(lowering, graph, table, Method.MSE)
    assert sqnr_db(expected, found) > sqnr_db(evaluator.logits, expected) + 3
    assert evaluator.quality(lowering, graph, table, Method.MSE) == sqnr_db(evaluator.logits, found)


def test_a_simulation_keeps_the_biases(tmp_path: Path) -> None:
    """Seeded fault: weights so small that a bias in units of their scales overflows int32.

    ONNX Runtime's fusions round it to that by themselves; its unoptimised graph is the reference.
    """
    model = with_weight(network("identity"), "main1_w", lambda weight: weight * np.float32(1e-8))
    model = with_weight(model, "main1_b", lambda bias: np.abs(bias) + 1)
    # Its bias in units of its sum may round a value on the other side of a tie.
    model = with_weight(model, "stem_b", np.zeros_like)
    onnx.save(model, tmp_path / "model.onnx")
    source = load_onnx(tmp_path / "model.onnx")
    x = images(8)
    simulated = quantize_for_tensorrt(source, table_from_images(view(model), x))
    expected = logits_of(simulated.model, x, optimized=False)
    assert np.abs(logits_of(simulated.model, x) - expected).max() > 0.5
    with network_runner(simulated, "simulated") as runner:
        np.testing.assert_allclose(runner.infer(x), expected, atol=1e-4)


@pytest.mark.parametrize(("mean", "expected"), [(0.0, False), (0.3, False), (1.0, True)])
def test_a_gain_is_more_than_chance(mean: float, expected: bool) -> None:
    """As scipy's paired one-sided t test at 95 % has it."""
    generator = np.random.default_rng(3)
    before = generator.normal(29, 2, 64)
    after = before + generator.normal(0, 2.8, 64)
    after += mean - (after - before).mean()
    p = ttest_rel(after, before, alternative="greater").pvalue
    assert is_gain(before, after) == expected == (p < 0.05)


def test_one_image_or_no_change_shows_no_gain() -> None:
    """A single image has no spread, and equal qualities no gain."""
    assert not is_gain(np.array([20.0]), np.array([30.0]))
    assert not is_gain(np.full(64, 20.0), np.full(64, 20.0))

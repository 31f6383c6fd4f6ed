"""Method auto picks thresholds by the logits of held-out images, and says what it picked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import images, network, with_weight
from numpy.typing import NDArray
from tables import observed, table_by_every_method

from edgeres.calibration import auto
from edgeres.calibration.auto import (
    CANDIDATES,
    STEP,
    choose_thresholds,
    choose_weights,
    with_choices,
)
from edgeres.calibration.calibrate import calibrate
from edgeres.calibration.quality import LogitEvaluator
from edgeres.core.contract import preset
from edgeres.core.methods import Method, WeightMethod
from edgeres.core.precision import Precision
from edgeres.core.requests import CalibrationRequest
from edgeres.core.table import CalibrationTable, Threshold
from edgeres.core.tuning import Choice
from edgeres.errors import CalibrationError
from edgeres.onnx_file import load_onnx
from edgeres.progress import silent
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.lowering import float_network
from edgeres.quantization.qdq.network import LOWERING as TENSORRT_LOWERING
from edgeres.quantization.qdq.network import quantize_for_tensorrt
from edgeres.quantization.thresholds import merged
from edgeres.serialization import from_json, to_json
from edgeres.targets.onnxruntime.quantize import LOWERING as CPU_LOWERING
from edgeres.targets.onnxruntime.quantize import quantize_for_cpu


@dataclass(frozen=True)
class Images:
    """A batch as calibration takes it."""

    images: NDArray[np.float32]

    @property
    def hashes(self) -> tuple[str, ...]:
        """One for each image."""
        return tuple(f"{value:016x}" for value in range(len(self.images)))


def prepared(model: onnx.ModelProto) -> tuple[Graph, CalibrationTable, LogitEvaluator]:
    """Returns a network's graph, its table, and an evaluator on images that the table does not come from."""
    graph = view(model)
    table = table_by_every_method(graph, images(32))
    return graph, table, LogitEvaluator.of(model, graph, [images(16, seed=9)])


def chosen_by(graph: Graph, table: CalibrationTable, evaluator: LogitEvaluator) -> CalibrationTable:
    """Returns the table with the thresholds that auto chooses on it."""
    return with_choices(graph, table, choose_thresholds(graph, table, evaluator, silent))


@pytest.mark.parametrize("name", ["identity", "down-sampling", "bottleneck", "pre-activation"])
def test_auto_is_never_worse_than_any_method(name: str) -> None:
    """On the images that are evaluated, for both lowerings; the record says by how much.

    TensorRT's is compared under the thresholds that the CPU's search gave to signed tensors.
    """
    graph, table, evaluator = prepared(network(name))
    chosen = chosen_by(graph, table, evaluator)
    for lowering, choice in zip((CPU_LOWERING, TENSORRT_LOWERING), chosen.choices, strict=True):
        auto = evaluator.quality(lowering, graph, chosen, Method.AUTO)
        assert choice.target is lowering.name
        assert choice.tuned_db == pytest.approx(auto, abs=0.01)
        assert auto >= max(choice.sqnr_db.values()) - 0.01
        assert choice.method == max(CANDIDATES, key=lambda m: choice.sqnr_db[m])
    found = {m: evaluator.quality(CPU_LOWERING, graph, table, m) for m in CANDIDATES}
    assert chosen.choices[0].sqnr_db == pytest.approx(found, abs=1e-6)


def test_thresholds_that_clip_the_evidence_are_widened() -> None:
    """Seeded fault: every method's threshold a third of the right one; auto finds most back."""
    graph, table, evaluator = prepared(network("identity"))
    clipped = replace(
        table,
        tensors={
            name: replace(
                seen,
                thresholds={
                    m: Threshold(s8=t.s8 / 3, u8=None if t.u8 is None else t.u8 / 3)
                    for m, t in seen.thresholds.items()
                },
            )
            for name, seen in table.tensors.items()
        },
    )
    before = evaluator.quality(CPU_LOWERING, graph, clipped, Method.MAX)
    chosen = chosen_by(graph, clipped, evaluator)
    choice = chosen.choices[0]
    assert choice.tuned_db > before + 6
    assert max(choice.factors.values()) >= STEP**2


def test_no_threshold_passes_what_was_seen() -> None:
    """Widening stops at the exact extreme: beyond it levels are only wasted."""
    graph, table, evaluator = prepared(network("down-sampling"))
    chosen = chosen_by(graph, table, evaluator)
    for seen in chosen.tensors.values():
        threshold = seen.thresholds[Method.AUTO]
        assert threshold.s8 <= seen.amax
        assert (threshold.u8 is None) is seen.signed
        assert threshold.u8 is None or threshold.u8 <= seen.amax


def test_a_grid_that_two_lowerings_use_is_chosen_by_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seeded fault: a second lowering of the same grids, which would choose other thresholds."""
    graph, table, evaluator = prepared(network("down-sampling"))
    expected = chosen_by(graph, table, evaluator)

    def coarse(graph: Graph, table: CalibrationTable, method: Method) -> onnx.ModelProto:
        return CPU_LOWERING.lower(graph, table, Method.MAX)

    other = replace(CPU_LOWERING, name="another", lower=coarse)
    known = (CPU_LOWERING, other, TENSORRT_LOWERING, replace(TENSORRT_LOWERING, name="third"))
    monkeypatch.setattr(auto, "lowerings", lambda: known)
    found = chosen_by(graph, table, evaluator)
    assert [choice.target for choice in found.choices] == ["onnxruntime", "tensorrt"]
    assert found == expected


def test_the_choice_is_deterministic_and_survives_the_file() -> None:
    """Two searches give the same table; JSON brings the record back."""
    graph, table, evaluator = prepared(network("identity"))
    first = chosen_by(graph, table, evaluator)
    assert first == chosen_by(graph, table, evaluator)
    assert from_json(to_json(first), CalibrationTable, source="it", remedy="") == first


def test_a_dead_network_is_no_reason_to_fail() -> None:
    """All-zero weights leave nothing to choose by; every method is as good."""
    model = with_weight(network("identity"), "stem_w", np.zeros_like)
    graph, table, evaluator = prepared(model)
    chosen = chosen_by(graph, table, evaluator)
    assert chosen.method is Method.AUTO


def test_ranges_are_those_of_all_images(tmp_path: Path) -> None:
    """Held out for the choice, counted in the table: every other method is as without auto."""
    path = tmp_path / "model.onnx"
    onnx.save(network("identity"), path)
    model = load_onnx(path)
    loud = [Images(images(4, seed) * (5 if seed == 7 else 1)) for seed in range(16)]

    def table(method: Method) -> CalibrationTable:
        config = CalibrationRequest(method=method, batch_size=4)
        return calibrate(model, loud, config, contract=preset("cifar"), data="images")

    auto, plain = table(Method.AUTO), table(Method.MSE)
    for name, seen in plain.tensors.items():
        found = auto.tensors[name]
        assert found.amax == seen.amax
        # Logits have a range and no thresholds.
        for method in {Method.MAX, Method.PERCENTILE} & seen.thresholds.keys():
            expected = seen.thresholds[method].s8
            assert found.thresholds[method].s8 == pytest.approx(expected, rel=1e-3)
    # Of a network of few classes every second batch.
    assert auto.choices[0].images == 32
    assert auto.tensors["image"].amax == np.abs(loud[7].images).max()


def weighted(before: float, after: float) -> tuple[WeightMethod, tuple[Choice, ...]]:
    """Returns what auto chooses where weights by mse move both lowerings from one quality to another."""
    graph, table, evaluator = prepared(network("identity"))
    chosen = chosen_by(graph, table, evaluator)
    choices = tuple(replace(choice, tuned_db=before) for choice in chosen.choices)

    class Fixed(LogitEvaluator):
        def quality(self, *_: object) -> float:
            return after

    return choose_weights(graph, replace(chosen, choices=choices), Fixed((), evaluator.logits))


def test_weights_are_clipped_where_both_lowerings_gain() -> None:
    """By more than chance would move them; either way the record has both figures."""
    for gain, expected in ((0.5, WeightMethod.MSE), (0.1, WeightMethod.MAX)):
        method, choices = weighted(20, 20 + gain)
        assert method is expected
        for choice in choices:
            assert choice.weights_db == {WeightMethod.MAX: 20, WeightMethod.MSE: 20 + gain}


def test_weights_are_evaluated_by_the_logits() -> None:
    """The figure for mse is that of the clipped network."""
    graph, table, evaluator = prepared(network("identity"))
    chosen = chosen_by(graph, table, evaluator)
    _, choices = choose_weights(graph, chosen, evaluator)
    by_mse = replace(chosen, weight_method=WeightMethod.MSE)
    for lowering, choice in zip((CPU_LOWERING, TENSORRT_LOWERING), choices, strict=True):
        expected = evaluator.quality(lowering, graph, by_mse, Method.AUTO)
        assert choice.weights_db[WeightMethod.MSE] == expected != choice.tuned_db


def test_requested_weights_are_not_chosen(tmp_path: Path) -> None:
    """Auto without --weight-method evaluates both; with it the table has what was requested."""
    path = tmp_path / "model.onnx"
    onnx.save(network("identity"), path)
    stream = [Images(images(4, seed)) for seed in range(16)]
    for requested in (None, WeightMethod.MAX, WeightMethod.MSE):
        config = CalibrationRequest(method=Method.AUTO, weight_method=requested, batch_size=4)
        table = calibrate(load_onnx(path), stream, config, contract=preset("cifar"), data="images")
        assert requested in (None, table.weight_method)
        assert all(bool(choice.weights_db) is (requested is None) for choice in table.choices)


def test_the_file_is_read_once(tmp_path: Path) -> None:
    """Calibration with both searches, and both lowerings, work on what was loaded."""
    path = tmp_path / "model.onnx"
    onnx.save(network("identity"), path)
    model = load_onnx(path)
    path.unlink()
    stream = [Images(images(4, seed)) for seed in range(16)]
    config = CalibrationRequest(method=Method.AUTO, sensitivity=True, batch_size=4)
    table = calibrate(model, stream, config, contract=preset("cifar"), data="images")
    assert table.sensitivity is not None
    for lowered in (quantize_for_cpu(model, table), quantize_for_tensorrt(model, table)):
        assert lowered.source == model.artifact
    assert float_network(model, Precision.FP32).source == model.artifact


def test_too_few_images_to_hold_some_out_is_an_error(tmp_path: Path) -> None:
    """One batch, and the second would be held out: the message says how many images do."""
    path = tmp_path / "model.onnx"
    onnx.save(network("identity"), path)
    few = [Images(images(4))]
    with pytest.raises(CalibrationError, match=r"4 images in batches of 4: .* at least 8 images"):
        calibrate(
            load_onnx(path),
            few,
            CalibrationRequest(method=Method.AUTO, batch_size=4),
            contract=preset("cifar"),
            data="images",
        )


def test_merging_counts_what_one_histogram_would() -> None:
    """Two streams of another range merge into numpy's histogram of all values."""
    generator = np.random.default_rng(0)
    graph = view(network("identity"))
    parts = [generator.standard_normal((8, 3, 16, 16)).astype(np.float32) * s for s in (1, 9)]
    first, second = (observed(graph, ["image"], [Images(part)])["image"] for part in parts)
    for found in (merged(first, second), merged(second, first)):
        magnitudes = np.abs(np.concatenate(parts)).ravel()
        limit = found.bin_width * len(found.counts)
        expected, _ = np.histogram(magnitudes[magnitudes > 0], len(found.counts), (0, limit))
        np.testing.assert_array_equal(found.counts, expected)
        assert found.amax == magnitudes.max()


def test_merging_with_nothing_but_zeros_adds_the_zeros() -> None:
    """A dead tensor in one part has no bins of its own."""
    graph = view(network("identity"))
    parts = [images(2), np.zeros((2, 3, 16, 16), np.float32)]
    first, second = (observed(graph, ["image"], [Images(part)])["image"] for part in parts)
    for found in (merged(first, second), merged(second, first)):
        np.testing.assert_array_equal(found.counts, first.counts)
        assert found.zeros == first.zeros + parts[1].size
        assert found.amax == first.amax

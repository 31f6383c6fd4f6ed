"""The benchmark of method auto on unseen images: both sides by one measure, image by image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from digits import Digits

from benchmarks import unseen
from benchmarks.results import CASES
from edgeres.calibration.quality import LogitEvaluator
from edgeres.core.table import load_table
from edgeres.images import batches, load_dataset
from edgeres.onnx_file import load_onnx
from edgeres.quantization.graph import view
from edgeres.targets.onnxruntime.quantize import LOWERING


def test_quality_is_the_one_that_calibration_chooses_by(
    digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reference: the evaluator of the search, on the same images."""
    monkeypatch.setattr(unseen, "UNSEEN", 10_000)
    model, table = load_onnx(digits.model), load_table(digits.table)
    stream = batches(load_dataset(digits.test, labelled=False), table.contract, batch_size=16)
    graph = view(model.proto)
    evaluator = LogitEvaluator.of(model.proto, graph, [each.images for each in stream])
    found = unseen.answers_of(digits.model, digits.table, digits.test)
    expected = evaluator.qualities(LOWERING, graph, table, table.method)
    np.testing.assert_allclose(found["onnxruntime"].quality, expected, atol=0.01)
    assert found["tensorrt"].quality.mean() < expected.mean()


def test_gains_are_paired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that differ by 20 dB, each of which gains 1 dB or 2: known to 0.05 dB, not to 2."""
    before = np.tile([20.0, 40.0], 50)
    gains = np.repeat([1.0, 2.0], 50)

    def answers(_: Path, table: Path, __: Path) -> dict[str, unseen.Answers]:
        quality = before + gains * (".auto." in table.name)
        return {"cpu": unseen.Answers(quality=quality, correct=7, reference_correct=8)}

    monkeypatch.setattr(unseen, "edgeres", lambda _: "")
    monkeypatch.setattr(unseen, "answers_of", answers)
    (row,) = unseen.unseen({CASES[0]: tmp_path / "m.onnx"}, tmp_path)
    assert (row["mse_db"], row["auto_db"], row["gain_db"]) == (30.0, 31.5, 1.5)
    assert row["error_db"] == 0.05

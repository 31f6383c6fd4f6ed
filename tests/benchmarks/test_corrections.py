"""The benchmark of corrections: which of them it counts as a loss."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import corrections
from benchmarks.results import CASES


def test_a_loss_is_what_chance_does_not_explain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of gains of -1, -0.01 and +1 dB, each image's known to 0.5 dB, the first alone is one."""
    spread = np.random.default_rng(0).normal(0, 0.5, 100)
    spread -= spread.mean()
    gains = {"first": -1.0, "second": -0.01, "third": 1.0}

    def calibrated(line: str) -> str:
        one = {"applied": True, "before_db": 30.0, "after_db": 31.0}
        recovery = {"equalization": {}, "lowerings": dict.fromkeys(gains, one)}
        Path(line.split()[-1]).write_text(json.dumps({"recovery": recovery}))
        return ""

    def qualities(_: object, table: Path) -> dict[str, object]:
        corrected = ".none." not in table.name
        return {name: 30 + corrected * (gain + spread) for name, gain in gains.items()}

    monkeypatch.setattr(corrections, "edgeres", calibrated)
    monkeypatch.setattr(corrections, "_qualities", qualities)
    monkeypatch.setattr(corrections, "_small", lambda *_: iter(()))
    rows = list(corrections.corrections({CASES[0]: tmp_path / "m.onnx"}, tmp_path))
    assert len(rows) == len(gains) * len(corrections.KINDS)
    assert {row["lowering"]: row["lost"] for row in rows} == {
        "first": True,
        "second": False,
        "third": False,
    }
    assert {row["gain_db"] for row in rows} == {-1.0, -0.01, 1.0}

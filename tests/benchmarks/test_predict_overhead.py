"""The overhead of `predict`, on the embedded digits."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from digits import Digits
from PIL import Image

from benchmarks.predict_overhead import main


def test_a_line_for_each_engine(
    digits: Digits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The part is what was added to the steps, in CPU time, of any engine."""
    for number, pixels in enumerate(np.load(digits.test)["images"][:3]):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    words = ["x", str(digits.engine), str(digits.model), "--images", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    main()
    _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == [digits.engine.name, digits.model.name]
    for row in rows:
        steps, added, part = map(float, row.split()[1:4])
        assert steps > 0
        # Of figures that are rounded to two and three places.
        assert part == pytest.approx(100 * added / steps, abs=0.3 + abs(part) * 0.02)

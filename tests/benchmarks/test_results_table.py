"""The results table: its rows from verdicts, and its heading in the README."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import results

README = Path(__file__).resolve().parents[2] / "README.md"


def verdict(speedup: float | None) -> dict[str, object]:
    """Returns what `bench --json` prints of an engine that lost 3 of 1300 images."""
    return {
        "accuracy": {
            "engine": {"correct": 1051},
            "reference": {"correct": 1054},
            "samples": 1300,
            "drop_pp": 0.2308,
            "ci95_pp": [-0.36, 0.87],
        },
        "latency": None if speedup is None else {"speedup": speedup},
    }


def test_a_drop_is_shown_as_the_change_of_top1() -> None:
    """Sign and ends of the interval are turned around; a simulation has no latency."""
    expected = "| net | CPU | 1051, FP32 1054 of 1300 | -0.23 pp, -0.87 to +0.36 |"
    assert results.row("net", "CPU", verdict(3.064)) == f"{expected} 3.06 times as fast |"
    assert results.row("net", "CPU", verdict(None)) == f"{expected}  |"


def test_the_readme_has_the_table_s_heading(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a run prints can be put into it."""
    monkeypatch.setattr(results, "CASES", ())
    monkeypatch.setattr("sys.argv", ["results", "--shared", "."])
    assert results.main() == 0
    assert capsys.readouterr().out in README.read_text(encoding="utf-8")

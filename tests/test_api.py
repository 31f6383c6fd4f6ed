"""The public Python API: what it holds, what importing it loads, and that it does what commands do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from commands import passed
from digits import Digits

import edgeres
from edgeres.core.table import load_table

HEAVY = ("numpy", "onnx", "onnxruntime", "scipy", "torch", "click", "rich")


def test_importing_it_loads_no_library() -> None:
    """Neither does touching a request or a function."""
    script = (
        "import sys, edgeres\n"
        "edgeres.BuildRequest(), edgeres.bench\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there_and_documented() -> None:
    """The list, the table that loads them and `dir()` agree."""
    assert sorted(edgeres._MODULES) == edgeres.__all__
    for name in edgeres.__all__:
        assert name in dir(edgeres)
        assert getattr(edgeres, name).__doc__


def test_another_name_is_an_attribute_error() -> None:
    """As of any module, so that `hasattr` and star imports work."""
    assert not hasattr(edgeres, "quantise")
    with pytest.raises(AttributeError, match="module 'edgeres' has no attribute 'quantise'"):
        edgeres.quantise  # noqa: B018


def test_it_does_what_the_commands_do(digits: Digits, tmp_path: Path) -> None:
    """Table, engine and verdict from Python are those of the command line."""
    table = edgeres.calibrate(str(digits.model), digits.train, output=tmp_path / "table.json")
    assert table == load_table(tmp_path / "table.json")
    engine = edgeres.build_engine(digits.model, table=table, output=tmp_path / "int8.onnx")
    line = "build-engine {model} --calibration {table} -o {out}"
    passed(*digits.words(line, table=tmp_path / "table.json", out=tmp_path / "other.onnx"))
    assert engine.content == (tmp_path / "other.onnx").read_bytes()
    quick = edgeres.BenchRequest(samples=100, iterations=2, warmup=0, energy=False, max_drop_pp=5)
    verdict = edgeres.bench(engine.path, digits.model, digits.test, quick)
    assert verdict.passed
    assert verdict.accuracy.engine.samples == 100
    assert edgeres.inspect(engine.path) == engine
    simulated = edgeres.bench(
        tmp_path / "table.json", digits.model, digits.test, quick, simulate=True
    )
    assert simulated.latency is None


def test_what_it_refuses_is_an_edgeres_error(tmp_path: Path) -> None:
    """With the sentence of the command line."""
    with pytest.raises(edgeres.EdgeresError, match="cannot be read"):
        edgeres.inspect(tmp_path / "none.onnx")
    with pytest.raises(edgeres.EdgeresError, match="0 verdicts to compare"):
        edgeres.compare([])

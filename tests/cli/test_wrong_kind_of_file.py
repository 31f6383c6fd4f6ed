"""A file of another kind, or a target that is not installed, is named before minutes of work."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import refusal
from digits import QUICK, Digits

from edgeres.core.precision import Precision
from edgeres.errors import DependencyError
from edgeres.evaluation.coverage import coverage_checks
from edgeres.targets.base import Target, find_target
from edgeres.workflows import build


def test_a_simulation_of_an_engine_asks_for_the_table(digits: Digits) -> None:
    """An engine is no damaged table."""
    line = f"bench {digits.engine} --simulate --reference {digits.model} --data {digits.test}"
    message = refusal(*line.split(), *QUICK.split(), code=2)
    assert "--simulate evaluates a calibration table" in message
    assert f"{digits.engine} is one. Pass the table" in message


def test_a_missing_target_is_named_before_the_search(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mixed precision takes minutes to choose; without its target it does not begin."""

    def missing(name: str) -> None:
        raise DependencyError(f"{name} is not installed.")

    monkeypatch.setattr("edgeres.targets.tensorrt.module.load_backend", missing)
    monkeypatch.setattr(build, "load_fp32", lambda path: pytest.fail("the model was read"))
    line = f"build-engine {digits.model} --target tensorrt --precision mixed --max-drop 1"
    more = f"--calibration {digits.table} --judge-data {digits.test} -o {tmp_path / 'e.plan'}"
    assert "tensorrt is not installed." in refusal(*line.split(), *more.split())


def test_the_engine_of_another_kind_of_target_is_not_parsed(
    digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target whose engines are no ONNX files fails the check by its audit alone."""
    from dataclasses import replace

    from edgeres.core.artifacts import load_engine

    engine = load_engine(digits.engine)
    audit = find_target("onnxruntime").audit(engine)
    assert audit is not None
    node = replace(audit.nodes[0], asked=Precision.INT8, ran=Precision.FP32)
    failed = replace(audit, nodes=(node, *audit.nodes[1:]))
    kind = type(find_target("onnxruntime"))
    monkeypatch.setattr(kind, "audit", lambda self, engine: failed)
    monkeypatch.setattr(kind, "float_branches", Target.float_branches)
    (check,) = coverage_checks(replace(engine, content=b"no ONNX"))
    assert not check.passed
    assert node.name in (check.reason or "")

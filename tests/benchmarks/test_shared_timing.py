"""bench's latency of a real network against a plain loop over the same session."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgeres.core.contract_options import ContractOptions
from edgeres.core.requests import BuildRequest, CalibrationRequest
from edgeres.workflows import BuildInputs, build_from_model, calibrate_model, export_stage

pytestmark = [pytest.mark.shared, pytest.mark.usefixtures("one_core")]

ROOT = Path(__file__).resolve().parents[2]
ATTEMPTS = 8
"""A neighbour on the machine disturbs one of the two; it does not always."""

TOLERANCE = 0.05
"""Other tests run beside this one; the benchmark by itself, at rest, differs by less than 0.02."""


@pytest.fixture(scope="module")
def resnet50(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An INT8 engine of ResNet-50 for the CPU, on images of 128 x 128: a third of the time."""
    folder, data = tmp_path_factory.mktemp("resnet50"), shared / "data"
    stage = export_stage()
    request = stage.ExportRequest(
        architecture="resnet50_v1",
        weights=data / "resnet50-imagenet/resnet50_v1_keras_fp16.pt",
        contract=ContractOptions(preset="imagenet-caffe", resize="none", input_size=128),
        bn_eps=1e-3,
    )
    model = stage.export_model(request, output=folder / "model.onnx").path
    table = calibrate_model(model, data / "imagenet/calib500", CalibrationRequest(samples=4))
    engine = folder / "int8.onnx"
    build_from_model(BuildInputs(model=model, table=table, output=engine), BuildRequest())
    return engine


def measured(engine: Path) -> dict[str, float]:
    """Returns what the script prints."""
    brief = ("--rounds", "9", "--iterations", "12")
    command = [sys.executable, "-m", "benchmarks.timing", "--engine", str(engine), *brief]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def test_bench_agrees_with_a_plain_loop(resnet50: Path) -> None:
    """Within 5 %, in one of a few attempts; its own overhead is below 1 % in all."""
    attempts = []
    for _ in range(ATTEMPTS):
        attempts.append(measured(resnet50))
        assert attempts[-1]["overhead_part"] < 0.01
        if abs(attempts[-1]["ratio"] - 1) <= TOLERANCE:
            return
    pytest.fail(f"bench and the loop differ by more than {TOLERANCE:.0%}: {attempts}")

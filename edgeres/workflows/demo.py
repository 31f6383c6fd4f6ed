"""The whole path on the embedded digits, for every target that this machine can build."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeres.core.artifacts import EngineArtifact, OnnxArtifact
from edgeres.core.bench_requests import BenchConfig, BenchInputs
from edgeres.core.contract import ContractOptions
from edgeres.core.requests import CalibrationConfig
from edgeres.core.verdict import Verdict
from edgeres.files import atomic_write, make_folder
from edgeres.images import Dataset, embedded_digits, embedded_path
from edgeres.progress import Progress, silent
from edgeres.targets.base import targets
from edgeres.workflows.bench import bench_engine
from edgeres.workflows.build import build_from_model
from edgeres.workflows.calibrate import calibrate_model
from edgeres.workflows.torch_stages import export_stage

ARCHITECTURE = "resnet20"
WEIGHTS = "digits_resnet20.safetensors"

_MAX_DROP_PP = 1.0

Say = Callable[[str], None]
"""Receives one line on what is being done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What one target came to."""

    engine: EngineArtifact
    engine_bytes: int
    verdict: Verdict
    simulated: bool
    """Whether the accuracy is that of TensorRT's placement on the CPU, without a latency."""


def run_demo(folder: Path, *, say: Say, progress: Progress = silent) -> tuple[DemoResult, ...]:
    """Returns the verdict of every target that this machine can build.

    Args:
        folder: where the data, the model, the table and the engines are written; made if missing.
        say: is told of each step.
        progress: receives how far each pass is.

    Raises:
        EdgeresError: a step failed.
    """
    make_folder(folder)
    train, test = _write_digits(folder)
    weights = _copied(embedded_path(WEIGHTS), folder)
    model = _exported(weights, folder, say)
    ranges = CalibrationConfig()
    say(f"calibrate   {ranges.samples} training images, all methods in one pass")
    table_path = folder / "digits.table.json"
    table = calibrate_model(model.path, train, ranges, output=table_path, progress=progress)
    limits = BenchConfig(max_drop_pp=_MAX_DROP_PP)
    results = []
    for target in targets().values():
        config = target.portable_request()
        if config is None:
            continue
        engine = folder / f"digits.int8{target.suffix}"
        say(f"build       {config.precision} for {config.target}")
        built = build_from_model(model.path, config, table, output=engine)
        simulated = target.uses_gpu
        request = BenchInputs(
            engine=table_path if simulated else engine,
            reference=model.path,
            data=test,
            simulate=simulated,
        )
        say(f"bench       {'simulated on the CPU' if simulated else 'on this machine'}")
        verdict = bench_engine(request, limits, progress=progress)
        results.append(
            DemoResult(
                engine=built,
                engine_bytes=engine.stat().st_size,
                verdict=verdict,
                simulated=simulated,
            )
        )
    return tuple(results)


def _write_digits(folder: Path) -> tuple[Path, Path]:
    train, test = (folder / f"{part}.npz" for part in ("train", "test"))
    for path, dataset in zip((train, test), embedded_digits(), strict=True):
        _write_npz(path, dataset)
    return train, test


def _write_npz(path: Path, dataset: Dataset) -> None:
    images = np.stack([dataset.image(index) for index in range(len(dataset))])
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, images=images, labels=np.asarray(dataset.labels))


def _copied(source: Path, folder: Path) -> Path:
    with atomic_write(folder / source.name) as temporary:
        temporary.write_bytes(source.read_bytes())
    return folder / source.name


def _exported(weights: Path, folder: Path, say: Say) -> OnnxArtifact:
    stage = export_stage()
    say(f"export      {ARCHITECTURE} trained on handwritten digits")
    request = stage.ExportRequest(
        architecture=ARCHITECTURE,
        weights=weights,
        contract=ContractOptions(preset="digits"),
    )
    exported: OnnxArtifact = stage.export_model(request, output=folder / "digits.onnx")
    return exported

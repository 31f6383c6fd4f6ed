"""The whole path on the embedded digits, for every target that this machine can build."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeres.core.artifacts import EngineArtifact, OnnxArtifact, manifest_path
from edgeres.core.bench_requests import BenchInputs, BenchRequest
from edgeres.core.contract_options import ContractOptions
from edgeres.core.requests import CalibrationRequest
from edgeres.core.verdict import Verdict
from edgeres.errors import ConfigError, DependencyError
from edgeres.files import atomic_write, make_folder
from edgeres.images import embedded_digits, embedded_path
from edgeres.input_files import CHECKPOINT, is_file, read_bytes
from edgeres.input_files import MODEL as MODEL_FILE
from edgeres.onnx_file import load_onnx
from edgeres.plurals import counted
from edgeres.progress import Progress, silent
from edgeres.targets.base import targets
from edgeres.workflows.bench import bench_engine
from edgeres.workflows.build import BuildInputs, build_from_model
from edgeres.workflows.calibrate import calibrate_model
from edgeres.workflows.torch_modules import export_stage

ARCHITECTURE = "resnet20"
WEIGHTS = "digits_resnet20.safetensors"
MODEL = "digits_resnet20.onnx"
"""What `edgeres export` makes of the weights; for machines without torch, as a Jetson is."""

_MAX_DROP_PP = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What one target came to."""

    engine: EngineArtifact
    engine_bytes: int
    verdict: Verdict
    simulated: bool
    """Whether the accuracy is that of TensorRT's placement on the CPU, without a latency."""


def run_demo(
    folder: Path, *, show_status: Callable[[str], None], progress: Progress = silent
) -> tuple[DemoResult, ...]:
    """Returns the verdict of every target that this machine can build.

    Args:
        folder: where the data, the model, the table and the engines are written; made if missing.
        show_status: receives one line on each step.
        progress: receives how far each pass is.

    Raises:
        ConfigError: the folder has files of these names that no earlier run has written.
        EdgeresError: a step failed.
    """
    _check_folder(folder)
    make_folder(folder)
    # A copy, so that a kept folder has all that its commands were run on. Written first, since it
    # marks the folder as one of this command's, which a later run may overwrite.
    weights = folder / WEIGHTS
    with atomic_write(weights) as temporary:
        temporary.write_bytes(read_bytes(embedded_path(WEIGHTS), CHECKPOINT))
    train, test = folder / "train.npz", folder / "test.npz"
    for path, dataset in zip((train, test), embedded_digits(), strict=True):
        images = np.stack([dataset.image(index) for index in range(len(dataset))])
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, images=images, labels=np.asarray(dataset.labels))
    model = _exported(weights, folder / "digits.onnx", show_status)
    ranges = CalibrationRequest()
    show_status(f"calibrate   {counted(ranges.samples, 'training image')}, all methods in one pass")
    table_path = folder / "digits.table.json"
    table = calibrate_model(model.path, train, ranges, output=table_path, progress=progress)
    limits = BenchRequest(max_drop_pp=_MAX_DROP_PP)
    results = []
    for target in targets().values():
        config = target.portable_request()
        if config is None:
            continue
        output = folder / f"digits.int8{target.suffix}"
        show_status(f"build       {config.precision} for {config.target}")
        source = BuildInputs(model=model.path, table=table, output=output)
        engine = build_from_model(source, config)
        # A plan for another machine's GPU is built here and cannot be run here.
        simulated = target.uses_gpu
        subject = table_path if simulated else output
        files = BenchInputs(engine=subject, reference=model.path, data=test, simulate=simulated)
        show_status(f"bench       {'simulated on the CPU' if simulated else 'on this machine'}")
        verdict = bench_engine(files, limits, progress=progress)
        results.append(
            DemoResult(
                engine=engine,
                engine_bytes=len(engine.content),
                verdict=verdict,
                simulated=simulated,
            )
        )
    return tuple(results)


def _exported(weights: Path, output: Path, show_status: Callable[[str], None]) -> OnnxArtifact:
    """Exports the weights, or takes what was exported of them where torch is not installed."""
    try:
        stage = export_stage()
    except DependencyError as error:
        show_status(f"export      left out, its result is used: {error}")
        with atomic_write(output) as temporary:
            temporary.write_bytes(read_bytes(embedded_path(MODEL), MODEL_FILE))
        return load_onnx(output).artifact
    show_status(f"export      {ARCHITECTURE} trained on handwritten digits")
    digits = ContractOptions(preset="digits")
    request = stage.ExportRequest(architecture=ARCHITECTURE, weights=weights, contract=digits)
    exported: OnnxArtifact = stage.export_model(request, output=output)
    return exported


def _check_folder(folder: Path) -> None:
    """Refuses a folder whose files would be lost; an earlier run's are known by their weights."""
    weights = folder / WEIGHTS
    if is_file(weights, CHECKPOINT):
        own = read_bytes(embedded_path(WEIGHTS), CHECKPOINT)
        if read_bytes(weights, CHECKPOINT) == own:
            return
    engines = [f"digits.int8{target.suffix}" for target in targets().values()]
    manifests = [manifest_path(Path(engine)).name for engine in engines]
    written = [WEIGHTS, "train.npz", "test.npz", "digits.onnx", "digits.table.json"]
    for name in (*written, *engines, *manifests):
        if os.path.lexists(folder / name):
            raise ConfigError(
                f"{folder / name} was not written by edgeres demo, and would be lost. Pass a new "
                "folder."
            )

"""The embedded digits through the whole path, once a run: checkpoint, model, table and engine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeres.core.artifacts import Manifest, load_engine, manifest_path
from edgeres.core.contract_options import ContractOptions
from edgeres.core.requests import BuildRequest, CalibrationRequest
from edgeres.images import Dataset, embedded_digits, embedded_path
from edgeres.serialization import save_json
from edgeres.workflows import BuildInputs, build_from_model, calibrate_model, export_stage

CLASSES = 10


def sha256_of(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


QUICK = "--samples 100 --iterations 2 --warmup 0 --no-energy"
"""Options of bench that keep it short where the figures do not matter."""


@dataclass(frozen=True)
class Digits:
    """Files that tests share and only read."""

    weights: Path
    """The trained resnet20."""
    model: Path
    table: Path
    engine: Path
    """INT8 for the CPU."""
    train: Path
    """1,000 images of 8 x 8, labelled."""
    test: Path
    """797 others."""

    def words(self, line: str, **more: object) -> list[str]:
        """Returns a command line's words, with `{model}` and the like in them filled in."""
        names = {**vars(self), **more}
        return [word.format(**names) for word in line.split()]


def make_digits(folder: Path) -> Digits:
    """Writes the files below a folder, by the pipeline and with its defaults."""
    made = Digits(
        weights=embedded_path("digits_resnet20.safetensors"),
        model=folder / "digits.onnx",
        table=folder / "digits.table.json",
        engine=folder / "digits.int8.onnx",
        train=folder / "train.npz",
        test=folder / "test.npz",
    )
    for path, dataset in zip((made.train, made.test), embedded_digits(), strict=True):
        write_npz(path, dataset)
    stage = export_stage()
    request = stage.ExportRequest(
        architecture="resnet20", weights=made.weights, contract=ContractOptions(preset="digits")
    )
    stage.export_model(request, output=made.model)
    table = calibrate_model(made.model, made.train, CalibrationRequest(), output=made.table)
    build_from_model(BuildInputs(model=made.model, table=table, output=made.engine), BuildRequest())
    return made


def write_npz(path: Path, dataset: Dataset) -> None:
    """Writes a data set of images of one size, uncompressed."""
    images = np.stack([dataset.image(index) for index in range(len(dataset))])
    np.savez(path, images=images, labels=np.asarray(dataset.labels))


def gpu_plan(digits: Digits, path: Path, target: str = "tensorrt") -> Path:
    """Writes bytes and a manifest that say they are a GPU's plan of the digits, and no CUDA."""
    path.write_bytes(b"plan")
    manifest = replace(
        load_engine(digits.engine).manifest,
        target=target,
        engine_sha256=sha256_of(path),
        compute_capability="8.7",
    )
    save_manifest(path, manifest)
    return path


def save_manifest(engine: Path, manifest: Manifest) -> None:
    """Writes the manifest beside the engine."""
    save_json(manifest_path(engine), manifest)

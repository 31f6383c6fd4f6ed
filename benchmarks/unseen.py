"""The gain of method auto over mse on images that no choice has seen.

In one measure for both sides, that of calibration: each image's logits are centred, and decibels
are averaged over images. `bench` has another, of all images together, which the few with large
logits decide; it lies about a decibel lower, and figures of the two compare nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import Case, edgeres
from edgeres.calibration.quality import sqnr_by_image
from edgeres.core.precision import Precision
from edgeres.core.table import load_table
from edgeres.images import batches, load_dataset, select
from edgeres.normalization import normalize
from edgeres.onnx_file import load_onnx
from edgeres.quantization.qdq.network import quantize_for_tensorrt
from edgeres.targets.onnxruntime.quantize import quantize_for_cpu
from edgeres.targets.runner import Runner
from edgeres.targets.session_runner import model_runner, network_runner

TABLES = {"mse": "--method mse", "auto": "--method auto"}

UNSEEN = 2000
"""Validation images that the logits are compared on, or all where there are fewer."""

_BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """Results of a lowered network on the images."""

    quality: NDArray[np.float64]
    """(images,), of each one's logits in dB."""
    correct: int
    reference_correct: int


def unseen(models: dict[Case, Path], shared: Path) -> Iterator[dict[str, Any]]:
    """Yields the logits' quality and the labels by method auto beside mse, by network and lowering.

    TensorRT's placement is simulated, with FP16 between the layers as plans have it.
    """
    for case, path in models.items():
        tables = {name: path.with_suffix(f".{name}.json") for name in TABLES}
        for name, options in TABLES.items():
            data = shared / case.calibration
            edgeres(f"calibrate {path} --data {data} {options} -o {tables[name]}")
        validation = shared / case.validation
        answers = {name: answers_of(path, table, validation) for name, table in tables.items()}
        for lowering, before in answers["mse"].items():
            after = answers["auto"][lowering]
            gains = after.quality - before.quality
            yield {
                "network": case.name,
                "lowering": lowering,
                "images": len(gains),
                "mse_db": round(float(before.quality.mean()), 2),
                "auto_db": round(float(after.quality.mean()), 2),
                "gain_db": round(float(gains.mean()), 2),
                "error_db": round(float(gains.std(ddof=1) / np.sqrt(len(gains))), 2),
                "mse_correct": before.correct,
                "auto_correct": after.correct,
                "fp32_correct": after.reference_correct,
            }


def answers_of(path: Path, table_path: Path, validation: Path) -> dict[str, Answers]:
    """Returns the results of each lowering of a table on unseen images, by its name."""
    table = load_table(table_path)
    model = normalize(load_onnx(path), table.contract)
    dataset = select(load_dataset(validation, labelled=True), UNSEEN, 0)
    parts = list(batches(dataset, table.contract.prepared, batch_size=_BATCH))
    images, labels = [each.images for each in parts], np.concatenate([p.labels for p in parts])
    reference = _logits(model_runner(model), images)
    networks = {
        "onnxruntime": quantize_for_cpu(model, table),
        "tensorrt": quantize_for_tensorrt(model, table, floats=Precision.FP16),
    }
    results = {}
    for name, network in networks.items():
        lowered = _logits(network_runner(network, name), images)
        results[name] = Answers(
            quality=sqnr_by_image(reference, lowered),
            correct=int((lowered.argmax(axis=1) == labels).sum()),
            reference_correct=int((reference.argmax(axis=1) == labels).sum()),
        )
    return results


def _logits(runner: Runner, images: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    with runner:
        return np.concatenate([runner.infer(batch) for batch in images])

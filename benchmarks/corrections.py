"""What correcting biases and rounding does to the logits, by lowering, on images of no choice.

A lowering takes a correction where the logits of held-out images gain more than chance explains.
Whether that rule keeps its word is seen on images that had no part in it: those of validation.
Networks are the trained ones at hand, the embedded digits, and some of seeded weights, which are
like no trained one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.exporters import seeded_network
from benchmarks.results import Case, edgeres
from edgeres.calibration.quality import LogitEvaluator
from edgeres.core.table import load_table
from edgeres.images import batches, embedded_digits, embedded_path, load_dataset, select
from edgeres.networks.registry import find_spec
from edgeres.normalization import normalize
from edgeres.onnx_file import load_onnx
from edgeres.quantization.graph import view
from edgeres.targets.base import lowerings

SEEDED = ("resnet20", "plain20", "resnet32")
KINDS = ("bias", "adaround")

UNSEEN = 500
"""Validation images that the logits are compared on."""

SIGMAS = 1.645
"""Standard errors below zero from which on a correction counts as a loss: one-sided 95 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A network with images to calibrate on, and others."""

    name: str
    model: Path
    calibration: Path
    validation: Path


def corrections(models: dict[Case, Path], shared: Path) -> Iterator[dict[str, Any]]:
    """Yields the logits' quality without and with each correction, by network and lowering."""
    folder = next(iter(models.values())).parent
    trained = (
        Subject(
            name=case.name,
            model=model,
            calibration=shared / case.calibration,
            validation=shared / case.validation,
        )
        for case, model in models.items()
    )
    for subject in (*trained, *_small(folder, shared)):
        tables = {kind: subject.model.with_suffix(f".{kind}.json") for kind in ("none", *KINDS)}
        for kind, table in tables.items():
            edgeres(
                f"calibrate {subject.model} --data {subject.calibration} --method auto "
                f"--recover {kind} -o {table}"
            )
        qualities = {kind: _qualities(subject, table) for kind, table in tables.items()}
        for kind in KINDS:
            recovery = json.loads(tables[kind].read_text(encoding="utf-8"))["recovery"]
            for name, corrected in recovery["lowerings"].items():
                gains = qualities[kind][name] - qualities["none"][name]
                error = gains.std(ddof=1) / np.sqrt(len(gains))
                yield {
                    "network": subject.name,
                    "recovery": kind,
                    "lowering": name,
                    "equalized": bool(recovery["equalization"]),
                    "taken": corrected["applied"],
                    "held_out_db": f"{corrected['before_db']:.2f} to {corrected['after_db']:.2f}",
                    "unseen_db": round(float(qualities["none"][name].mean()), 2),
                    "gain_db": round(float(gains.mean()), 2),
                    "error_db": round(float(error), 2),
                    "lost": bool(gains.mean() < -SIGMAS * error),
                }


def _small(folder: Path, shared: Path) -> Iterator[Subject]:
    """Yields the embedded digits' network, and seeded ones on the images of CIFAR-10."""
    paths = folder / "digits_train.npz", folder / "digits_test.npz"
    for path, dataset in zip(paths, embedded_digits(), strict=True):
        np.savez(path, images=np.stack([dataset.image(i) for i in range(len(dataset))]))
    model = folder / "digits.onnx"
    weights = embedded_path("digits_resnet20.safetensors")
    edgeres(f"export resnet20 --weights {weights} --preset digits -o {model}")
    yield Subject(name="digits", model=model, calibration=paths[0], validation=paths[1])
    for name in SEEDED:
        checkpoint, model = folder / f"{name}.seeded.pth", folder / f"{name}.seeded.onnx"
        torch.save(seeded_network(find_spec(name)).state_dict(), checkpoint)
        edgeres(f"export {name} --weights {checkpoint} --preset cifar-imagenet-norm -o {model}")
        yield Subject(
            name=f"{name}, seeded",
            model=model,
            calibration=shared / "data/cifar10/calib1000.npz",
            validation=shared / "data/cifar10/test.npz",
        )


def _qualities(subject: Subject, path: Path) -> dict[str, Any]:
    """Returns the quality of each unseen image's logits by each lowering, (images,)."""
    table = load_table(path)
    model = normalize(load_onnx(subject.model), table.contract)
    graph = view(model.proto)
    dataset = select(load_dataset(subject.validation, labelled=False), UNSEEN, 0)
    stream = batches(dataset, table.contract.prepared, batch_size=8)
    evaluator = LogitEvaluator.of(model.proto, graph, [batch.images for batch in stream])
    return {
        lowering.name: evaluator.qualities(lowering, graph, table, table.method)
        for lowering in lowerings()
    }

"""What is measured on the machine that an engine is for: latency, stability, energy, LoadGen."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeres.core.bench_requests import BenchConfig, LoadGenConfig
from edgeres.core.verdict import Energies, LoadGenResult, PairedLatency
from edgeres.errors import DataError
from edgeres.evaluation.benchmark import benchmark_pair
from edgeres.evaluation.loadgen import run_loadgen
from edgeres.images import Dataset, batches, take
from edgeres.machine import NoEnergy, Stability, monitor_stability, open_gpu, open_meter
from edgeres.targets.runner import Runner
from edgeres.workflows.bench_pair import BenchPair
from edgeres.workflows.energy import measure_energies


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was taken on the machine that the engine is for."""

    latency: PairedLatency
    stability: Stability
    energy: Energies | NoEnergy


def measure(pair: BenchPair, dataset: Dataset, config: BenchConfig) -> Measured:
    """Times both networks while the machine is monitored, then meters them.

    Args:
        pair: engine and reference, open.
        dataset: where the images come from.
        config: batch and counts.

    Raises:
        DataError: there are fewer images than the latency batch has.
        BuildError: the FP32 engine that a plan is timed against cannot be built.
        RunnerError: inference failed.
    """
    images = _images(pair, dataset, config.latency_batch)
    on_gpu = pair.engine.target.uses_gpu
    meter = partial(open_meter, gpu=on_gpu)
    with _alike(pair, config.latency_batch) as reference:
        with monitor_stability(gpu=open_gpu() if on_gpu else None) as monitor:
            latency = benchmark_pair(reference, pair.engine.runner, images, config)
        energy = (
            measure_energies(reference, pair.engine.runner, images, meter)
            if config.energy
            else NoEnergy(reason="It was not asked for (--no-energy).")
        )
    return Measured(latency=latency, stability=monitor.stability(), energy=energy)


def drive(
    pair: BenchPair, dataset: Dataset, config: LoadGenConfig | None, logs: Path | None
) -> LoadGenResult | None:
    """Lets LoadGen drive the open engine on images in memory, where that is asked for.

    Raises:
        ConfigError: there are too few images for the scenario.
        RunnerError: inference failed.
        ArtifactError: the folder of the logs cannot be made.
    """
    if config is None:
        return None
    images = _images(pair, dataset, min(config.images, len(dataset)))
    return run_loadgen(pair.engine.runner, images, config, logs)


def _alike(pair: BenchPair, batch: int) -> nullcontext[Runner] | Runner:
    """Returns what the engine is timed against: the reference on the engine's own target."""
    reference, model = nullcontext(pair.reference.runner), pair.reference.model
    if model is None:
        return reference
    timed = pair.engine.target.timed_reference(model, pair.contract, batch=batch)
    return reference if timed is None else timed


def _images(pair: BenchPair, dataset: Dataset, wanted: int) -> NDArray[np.float32]:
    if len(dataset) < wanted:
        raise DataError(
            f"A latency batch of {wanted} needs as many images; the data has {len(dataset)}. "
            "Pass a smaller --latency-batch or more images."
        )
    few = take(dataset, np.arange(wanted))
    return next(iter(batches(few, pair.contract, batch_size=wanted))).images

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
from edgeres.targets.base import find_target
from edgeres.targets.runner import Runner
from edgeres.workflows.bench_pair import Contest
from edgeres.workflows.energy import measure_energies


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was taken on the machine that the engine is for."""

    latency: PairedLatency
    stability: Stability
    energy: Energies | NoEnergy


def measure(contest: Contest, dataset: Dataset, config: BenchConfig) -> Measured:
    """Times both networks while the machine is monitored, then meters them.

    Args:
        contest: engine and reference, open.
        dataset: where the images come from.
        config: batch and counts.

    Raises:
        DataError: there are fewer images than the latency batch has.
        BuildError: the FP32 engine that a plan is timed against cannot be built.
        RunnerError: inference failed.
    """
    images = _images(contest, dataset, config.latency_batch)
    on_gpu = find_target(contest.lineage.target).uses_gpu
    meter = partial(open_meter, gpu=on_gpu)
    with _alike(contest, config.latency_batch) as reference:
        with monitor_stability(gpu=open_gpu() if on_gpu else None) as monitor:
            latency = benchmark_pair(reference, contest.engine, images, config)
        energy = (
            measure_energies(reference, contest.engine, images, meter)
            if config.energy
            else NoEnergy(reason="It was not asked for (--no-energy).")
        )
    return Measured(latency=latency, stability=monitor.stability(), energy=energy)


def drive(
    contest: Contest, dataset: Dataset, config: LoadGenConfig | None, logs: Path | None
) -> LoadGenResult | None:
    """Lets LoadGen drive the open engine on images in memory, where that is asked for.

    Raises:
        ConfigError: there are too few images for the scenario.
        RunnerError: inference failed.
        ArtifactError: the folder of the logs cannot be made.
    """
    if config is None:
        return None
    images = _images(contest, dataset, min(config.images, len(dataset)))
    return run_loadgen(contest.engine, images, config, logs)


def _alike(contest: Contest, batch: int) -> nullcontext[Runner] | Runner:
    """Returns what the engine is timed against: the reference on the engine's own target."""
    if contest.model is None:
        return nullcontext(contest.reference)
    target = find_target(contest.lineage.target)
    timed = target.timed_reference(contest.model, contest.contract, batch=batch)
    return nullcontext(contest.reference) if timed is None else timed


def _images(contest: Contest, dataset: Dataset, wanted: int) -> NDArray[np.float32]:
    if len(dataset) < wanted:
        raise DataError(
            f"A latency batch of {wanted} needs as many images; the data has {len(dataset)}. "
            "Pass a smaller --latency-batch or more images."
        )
    few = take(dataset, np.arange(wanted))
    return next(iter(batches(few, contest.contract, batch_size=wanted))).images

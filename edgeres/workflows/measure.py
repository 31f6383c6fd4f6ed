"""What is measured on the machine that an engine is for: latency, stability, energy, LoadGen.

Energy of engine and reference is by the same meter.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeres.core.bench_requests import BenchInputs, BenchRequest, LoadGenRequest
from edgeres.core.verdict import (
    Energies,
    LoadGenResult,
    MeasuredThroughput,
    PairedLatency,
    ProfileRow,
)
from edgeres.errors import ConfigError, DataError
from edgeres.evaluation.benchmark import benchmark_pair
from edgeres.evaluation.loadgen import check_loadgen, run_loadgen
from edgeres.evaluation.profile import profile_rows
from edgeres.evaluation.throughput import measure_throughput
from edgeres.images import Dataset, batches, take
from edgeres.machine import (
    Meter,
    NoEnergy,
    NoMeter,
    Stability,
    idle_watts,
    measure_energy,
    monitor_stability,
    open_gpu,
    open_meter,
)
from edgeres.progress import Progress, silent, tracked
from edgeres.targets.runner import Profiled, Runner
from edgeres.workflows.bench_pair import BenchPair

WORK_S = 5.0
"""Time that each network works for the meter: twice what the slowest one, NVML's, must see."""

_STAGE = "Metering energy"

OpenMeter = Callable[[], Meter | NoMeter]
"""Opens the meter of what the engine runs on."""


def measure_energies(
    reference: Runner,
    engine: Runner,
    images: NDArray[np.float32],
    open_meter: OpenMeter,
    progress: Progress = silent,
) -> Energies | NoEnergy:
    """Returns what both networks cost on the same batch, or why that is unavailable.

    Without a meter nothing is run.

    Args:
        reference: the network to compare with.
        engine: the network under test.
        images: (N, 3, H, W) float32, preprocessed.
        open_meter: opens the meter, which is closed here.
        progress: receives how many of the three measurements are done, between two of them.

    Raises:
        RunnerError: inference failed.
    """

    def after_idle(stage: str, done: float, total: float, note: str = "") -> None:
        progress(stage, 1 + done, 1 + total, note)

    def infer(runner: Runner) -> int:
        """Infers for `WORK_S` and returns the number of images."""
        count, end = 0, time.monotonic() + WORK_S
        while time.monotonic() < end:
            runner.infer(images)
            count += len(images)
        return count

    with closing(open_meter()) as meter:
        if isinstance(meter, NoMeter):
            return NoEnergy(reason=meter.reason)
        # Once, before either works: a chip that has just worked stays warm and draws more.
        progress(_STAGE, 0, 3)
        idle = idle_watts(meter)
        first, second = (
            measure_energy(meter, partial(infer, runner), idle_watts=idle)
            for runner in tracked((reference, engine), _STAGE, after_idle)
        )
    if isinstance(first, NoEnergy):
        return first
    return second if isinstance(second, NoEnergy) else Energies(engine=second, reference=first)


_NOT_RUN = NoEnergy(reason="The engine was not run on its target.")
"""Energy of an engine that was only simulated."""

_PROFILED = 50
"""Inferences that kernels are timed in: the median of each is needed, and no tail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was taken on the machine that the engine is for."""

    latency: PairedLatency | None = None
    """None where the engine is only simulated, as is `stability`."""
    throughput: MeasuredThroughput | None = None
    """None where it was not requested."""
    stability: Stability | None = None
    energy: Energies | NoEnergy = _NOT_RUN


def check_measurable(inputs: BenchInputs, config: BenchRequest) -> None:
    """Checks that limits and options go with what is measured, before anything is.

    Raises:
        ConfigError: a limit or an option that nothing will be measured for.
        DependencyError: LoadGen is requested and not installed.
    """
    has_limit, has_scenario = config.min_speedup is not None, config.loadgen is not None
    conflicts = {
        "--strict is about a measurement, and --simulate makes none": config.strict,
        "--min-speedup needs a latency, and --simulate measures none": has_limit,
        "--profile times layers, and --simulate times none": config.profile,
        "--scenario times an engine, and --simulate has none": has_scenario,
        "--streams times an engine, and --simulate has none": config.streams is not None,
        "--simulate lowers an FP32 model, and --quantized-reference is for none": (
            inputs.quantized_reference
        ),
    }
    for conflict, is_requested in conflicts.items():
        if inputs.simulate and is_requested:
            raise ConfigError(f"{conflict}. Leave one of them out.")
    if (inputs.dump is None) is not (inputs.image is None):
        raise ConfigError(
            "--dump is a tensor that a program fed to its engine, and --image the image that it was "
            "made of. Pass both or neither."
        )
    if config.loadgen is not None:
        check_loadgen()
    elif inputs.loadgen_logs is not None:
        raise ConfigError(
            "--loadgen-logs keeps the logs of a scenario, and none is requested. Pass --scenario."
        )


def measure(
    pair: BenchPair,
    dataset: Dataset,
    config: BenchRequest,
    batch: int,
    progress: Progress = silent,
) -> Measured:
    """Times both networks while the machine is monitored, then meters them; none in a simulation.

    Latency is timed alone; with `config.streams` throughput is measured after it.

    Args:
        pair: engine and reference, open.
        dataset: where the images come from.
        config: mode and counts.
        batch: images per inference.
        progress: receives how far building, timing and metering are.

    Raises:
        ConfigError: `config.streams` is more than the machine has cores for.
        DataError: there are fewer images than the latency batch has.
        BuildError: the FP32 engine that a plan is timed against cannot be built.
        RunnerError: inference failed.
    """
    if not pair.engine.is_timed:
        return Measured()
    images = _images(pair, dataset, batch)
    on_gpu = pair.engine.target.uses_gpu
    meter = partial(open_meter, gpu=on_gpu)
    with _timed_reference(pair, batch, progress) as reference:
        # The monitor's samples cover the timing alone, and metering comes after it.
        with monitor_stability(gpu=open_gpu() if on_gpu else None) as monitor:
            latency = benchmark_pair(
                reference, pair.engine.runner, images, config, progress=progress
            )
            throughput = (
                None
                if config.streams is None
                else measure_throughput(
                    reference,
                    pair.engine.runner,
                    images,
                    config,
                    streams=config.streams,
                    progress=progress,
                )
            )
        energy = (
            measure_energies(reference, pair.engine.runner, images, meter, progress)
            if config.energy
            else NoEnergy(reason="It was not requested (--no-energy).")
        )
    return Measured(
        latency=latency, throughput=throughput, stability=monitor.stability(), energy=energy
    )


def profile(
    pair: BenchPair,
    dataset: Dataset,
    config: BenchRequest,
    batch: int,
    progress: Progress = silent,
) -> tuple[ProfileRow, ...]:
    """Returns where the time of both networks goes, by residual block and layer.

    Args:
        pair: engine and reference, open.
        dataset: where the images come from.
        config: nothing is profiled where it does not request it.
        batch: images per inference.
        progress: receives which of the two is profiled.

    Raises:
        ConfigError: a runtime has no profiler.
        DataError: there are fewer images than the latency batch has.
        RunnerError: inference failed.
    """
    if not config.profile:
        return ()
    images = _images(pair, dataset, batch)
    iterations = min(config.iterations, _PROFILED)
    times = []
    with _timed_reference(pair, batch, progress) as reference:
        for runner in tracked((pair.engine.runner, reference), "Profiling", progress):
            if not isinstance(runner, Profiled):
                raise ConfigError(
                    f"--profile needs a runtime that times its layers, and {runner.name} has none. "
                    "Leave it out."
                )
            times.append(runner.kernel_times(images, iterations=iterations))
    return profile_rows(*times)


def _timed_reference(
    pair: BenchPair, batch: int, progress: Progress
) -> AbstractContextManager[Runner]:
    """Returns what the engine is timed against, on the engine's own target."""
    # A plan is timed against the FP32 model as a plan: on ONNX Runtime's CPU every GPU would win.
    model, timed = pair.reference.model, None
    if model is not None:
        timed = pair.engine.target.timed_reference(
            model, pair.contract, batch=batch, progress=progress
        )
    # The pair's own reference is open already, and stays open for the validity checks.
    return nullcontext(pair.reference.runner) if timed is None else timed


def drive(
    pair: BenchPair,
    dataset: Dataset,
    config: LoadGenRequest | None,
    logs: Path | None,
    progress: Progress = silent,
) -> LoadGenResult | None:
    """Lets LoadGen drive the open engine on images in memory, where it is requested.

    Raises:
        ConfigError: there are too few images for the scenario.
        RunnerError: inference failed.
        ArtifactError: the folder of the logs cannot be made.
    """
    if config is None:
        return None
    # LoadGen draws from its images with repetition, so fewer than it could have are enough.
    images = _images(pair, dataset, min(config.images, len(dataset)))
    return run_loadgen(pair.engine.runner, images, config, logs, progress)


def _images(pair: BenchPair, dataset: Dataset, wanted: int) -> NDArray[np.float32]:
    if len(dataset) < wanted:
        raise DataError(
            f"A latency batch of {wanted} needs as many images; the data has {len(dataset)}. "
            "Pass a smaller --latency-batch or more images."
        )
    few = take(dataset, np.arange(wanted))
    return next(iter(batches(few, pair.contract, batch_size=wanted))).images

#!/usr/bin/env python3
"""Measures the throughput of evaluation, and what limits it.

Three rates in images per second, each the median of a few interleaved passes: evaluation from the
files, the same engine on the same images in memory, and decoding alone. Where inference and
decoding share the cores, the two together cannot be faster than one after the other; where they
do not, no faster than the slower one. Both limits are printed.

Example:
  python -m benchmarks.evaluation --engine resnet50.int8.onnx --data val/ --samples 512
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from statistics import median

from edgeres.core.artifacts import EngineArtifact, load_engine
from edgeres.evaluation.evaluate import evaluate
from edgeres.images import Batch, Dataset, batches, load_dataset, select
from edgeres.targets.base import engine_runner
from edgeres.targets.runner import Runner


def main() -> int:
    """Measures and prints the rates."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evaluation", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--engine", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    engine = load_engine(options.engine)
    dataset = select(load_dataset(options.data), options.samples, 0)
    rates = measure(engine, dataset, options.batch_size, options.passes)
    print(json.dumps(rates, indent=1) if options.json else as_text(rates))
    return 0


def measure(
    engine: EngineArtifact, dataset: Dataset, batch_size: int, passes: int
) -> dict[str, float]:
    """Returns the rates, their ratio and the limits, in images per second."""

    def stream() -> Generator[Batch, None, None]:
        return batches(dataset, engine.manifest.contract, batch_size=batch_size)

    def evaluate_files(runner: Runner) -> None:
        with closing(stream()) as images:
            evaluate(runner, images)

    in_memory = list(stream())
    with engine_runner(engine) as runner:
        # The first inference allocates; it belongs to none of the rates.
        runner.infer(in_memory[0].images)
        work: dict[str, Callable[[], object]] = {
            "evaluation": lambda: evaluate_files(runner),
            "in_memory": lambda: evaluate(runner, in_memory),
            "decoding": lambda: sum(len(batch) for batch in stream()),
        }
        seconds: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(passes):
            for name, run in work.items():
                start = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - start)
    rates = {name: len(dataset) / median(taken) for name, taken in seconds.items()}
    shared = 1 / (1 / rates["in_memory"] + 1 / rates["decoding"])
    return {
        **rates,
        "ratio": rates["evaluation"] / rates["in_memory"],
        "limit_one_after_the_other": shared,
        "limit_side_by_side": min(rates["in_memory"], rates["decoding"]),
        "cores": float(os.cpu_count() or 1),
    }


def as_text(rates: dict[str, float]) -> str:
    """Returns the rates as text."""
    return (
        f"evaluation {rates['evaluation']:.1f} images/s, {rates['ratio']:.3f} of "
        f"{rates['in_memory']:.1f} on images in memory; decoding alone {rates['decoding']:.1f}\n"
        f"limits: {rates['limit_side_by_side']:.1f} with cores for both, "
        f"{rates['limit_one_after_the_other']:.1f} where they share the {rates['cores']:.0f} cores"
    )


if __name__ == "__main__":
    sys.exit(main())

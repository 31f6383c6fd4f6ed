#!/usr/bin/env python3
"""Compares bench's latency with a plain loop over the same session, interleaved.

The loop knows nothing of edgeres' timing: it calls ONNX Runtime's session itself and reads the
clock. Each round times both; the figure is the median of the rounds' ratios of medians, and its
spread shows how quiet the machine is.

Example:
  python -m benchmarks.timing --engine resnet50.int8.onnx --rounds 9
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from edgeres.core.artifacts import load_engine
from edgeres.core.bench_requests import BenchRequest
from edgeres.evaluation.benchmark import benchmark_pair
from edgeres.targets.session_runner import OnnxRuntimeRunner


class OpenRunner(OnnxRuntimeRunner):
    """The CPU's runner, with its session in reach."""

    def run_session(self, images: NDArray[np.float32]) -> object:
        """Calls ONNX Runtime itself."""
        return self._session.run(None, {self.input.name: images})


def main() -> int:
    """Measures and prints the ratio."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.timing", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--engine", type=Path, required=True, help="for the onnxruntime target")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--iterations", type=int, default=60, help="of each, in a round")
    options = parser.parse_args()
    manifest = load_engine(options.engine).manifest
    shape = (1, *manifest.contract.shape)
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    runner = OpenRunner(
        options.engine, input=manifest.input, output=manifest.output, name=options.engine.name
    )
    with runner:
        rounds = [
            one_round(runner, images, options.iterations, turn) for turn in range(options.rounds)
        ]
    ratios = sorted(bench / loop for bench, loop, _ in rounds)
    figures = {
        "ratio": median(ratios),
        "lowest": ratios[0],
        "highest": ratios[-1],
        "bench_p50_ms": median(bench for bench, _, _ in rounds),
        "loop_p50_ms": median(loop for _, loop, _ in rounds),
        "overhead_part": median(overhead for *_, overhead in rounds),
    }
    print(json.dumps(figures, indent=1))
    return 0


def one_round(
    runner: OpenRunner, images: NDArray[np.float32], count: int, turn: int
) -> tuple[float, float, float]:
    """Returns the medians of bench and of the loop in ms, and the overhead as a fraction of bench's."""
    config = BenchRequest(iterations=count, warmup=5)
    # The order alternates, so that a machine that warms up favours neither.
    if turn % 2:
        loop_ms = plain_loop(runner, images, count)
        pair = benchmark_pair(runner, runner, images, config)
    else:
        pair = benchmark_pair(runner, runner, images, config)
        loop_ms = plain_loop(runner, images, count)
    return pair.engine.p50_ms, loop_ms, (pair.overhead_ms or 0.0) / pair.engine.p50_ms


def plain_loop(runner: OpenRunner, images: NDArray[np.float32], count: int) -> float:
    """Returns the median time of the session itself, in milliseconds."""
    for _ in range(5):
        runner.run_session(images)
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        runner.run_session(images)
        taken.append(time.perf_counter() - start)
    return 1000 * median(taken)


if __name__ == "__main__":
    sys.exit(main())

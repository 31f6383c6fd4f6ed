#!/usr/bin/env python3
"""Measures what a Dask cluster of this machine's own costs and gives: workers on loopback.

Without an engine, jobs of no work: what a job costs beside its command is the scheduler's share,
and with as many boards as jobs, the scheduler is what they wait for.

With an engine, the accuracy of all images on the workers beside that of one process, which has all
cores: whether every prediction is the same, and the images a second of both. Each worker has a core
of its own where there are enough.

Example:
  python -m benchmarks.cluster --jobs 1000 --workers 4
  python -m benchmarks.cluster --engine e.int8.onnx --reference e.onnx --data test.npz --kill
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import distributed

from edgeres.fleet.lock import VARIABLE
from edgeres.fleet.scheduler import BOARD, worker_command
from edgeres.fleet.worker import shares

ACCURACY_ALONE = (
    "--no-energy", "--iterations=1", "--warmup=0", "--no-diagnose", "--quiet", "--json",
)  # fmt: skip
"""Options of bench that leave its latency aside."""


@dataclass(frozen=True)
class LoopbackCluster:
    """A scheduler, and its workers with the cache of each."""

    address: str
    workers: tuple[tuple[subprocess.Popen[bytes], Path], ...]


def main() -> int:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=1000, help="Of no work.")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--engine", type=Path)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--repeats", type=int, default=1, help="Of the pair of runs, interleaved.")
    parser.add_argument("--kill", action="store_true", help="Kill a worker while it has a part.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.engine is None:
            with loopback_cluster(Path(folder), options.workers) as cluster:
                print_overhead(cluster, options.jobs)
            return 0
        words = [
            sys.executable, "-m", "edgeres", "bench", str(options.engine),
            f"--reference={options.reference}", f"--data={options.data}", *ACCURACY_ALONE,
        ]  # fmt: skip
        print("| run | images | one process, s | workers, s | ratio of images/s | predictions |")
        print("| ---: | ---: | ---: | ---: | ---: | --- |")
        ratios, equal = [], True
        for number in range(options.repeats):
            alone_s, alone = accuracy_of(words)
            own = Path(folder) / str(number)
            with loopback_cluster(own, options.workers) as cluster:
                there_s, there = accuracy_of(
                    [*words, f"--scheduler={cluster.address}"], cluster if options.kill else None
                )
            ratios.append(alone_s / there_s)
            equal &= alone == there
            shown = "equal" if alone == there else "DIFFER"
            print(
                f"| {number + 1} | {len(alone['images']['engine'])} | {alone_s:.1f} | {there_s:.1f} | "
                f"{ratios[-1]:.2f} | {shown} |"
            )
    print(f"Median ratio with {options.workers} workers: {statistics.median(ratios):.2f}")
    return 0 if equal else 1


@contextmanager
def loopback_cluster(folder: Path, workers: int) -> Iterator[LoopbackCluster]:
    """Runs a scheduler and its workers, each on a core, a cache and a lock of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    scheduler = ("-m", "dask", "scheduler", "--host", address, "--no-dashboard")
    processes = [subprocess.Popen([sys.executable, *scheduler], stderr=subprocess.DEVNULL)]
    cores, started = sorted(os.sched_getaffinity(0)), []
    try:
        for number in range(workers):
            home = folder / f"board{number}"
            home.mkdir(parents=True)
            line = worker_command(address, (), home.name, plain_tcp=False)
            own = {"XDG_CACHE_HOME": str(home), VARIABLE: str(home / "lock")}
            process = subprocess.Popen(line, env=os.environ | own, stderr=subprocess.DEVNULL)
            processes.append(process)
            os.sched_setaffinity(process.pid, {cores[number % len(cores)]})
            started.append((process, home))
        with connected(address) as client:
            client.wait_for_workers(workers)
        yield LoopbackCluster(address, tuple(started))
    finally:
        for process in processes:
            process.kill()
            process.wait()


def accuracy_of(words: list[str], losing: LoopbackCluster | None = None) -> tuple[float, Any]:
    """Returns the seconds that bench takes, and the accuracy of its verdict.

    Args:
        words: of the command.
        losing: the cluster whose first worker is killed while it has a part; None: none is.
    """
    begun = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        if losing is not None:
            worker, home = losing.workers[0]
            while process.poll() is None and not [*home.glob("edgeres/jobs/*/out")]:
                time.sleep(0.01)
            if process.poll() is not None:
                sys.exit("bench ended before the worker had a part")
            worker.kill()
        printed, _ = process.communicate()
    if process.returncode:
        sys.exit(f"bench ended with {process.returncode}")
    return time.perf_counter() - begun, json.loads(printed)["accuracy"]


def print_overhead(cluster: LoopbackCluster, jobs: int) -> None:
    """Prints what the scheduler costs a job, from the first one's start to the last one's result."""
    with connected(cluster.address) as client:
        # The first job of a worker loads what it needs.
        client.run(shares)
        started = time.perf_counter()
        futures = [client.submit(shares, resources={BOARD: 1}, pure=False) for _ in range(jobs)]
        client.gather(futures)
        seconds = time.perf_counter() - started
    each_ms = 1000 * seconds / jobs
    print("| jobs | workers | seconds | ms a job | 1,000 boards, a job each |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    count = len(cluster.workers)
    print(f"| {jobs} | {count} | {seconds:.2f} | {each_ms:.2f} | {each_ms:.1f} s |")


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Yields a client of a scheduler."""
    connect: object = distributed.Client
    assert callable(connect)
    with connect(address, timeout="60s", set_as_default=False) as client:
        yield client


if __name__ == "__main__":
    sys.exit(main())

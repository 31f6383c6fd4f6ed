#!/usr/bin/env python3
"""Measures what Dask adds to a job: jobs of no work, one after another's heels, on loopback.

What a job costs beside its command is the scheduler's share; with as many boards as jobs, the
scheduler is what they wait for.

Example:
  python -m benchmarks.cluster --jobs 1000 --workers 4
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import time

import distributed

from edgeres.fleet.scheduler import BOARD, worker_command
from edgeres.fleet.worker import shares


def main() -> int:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    lines = [
        (sys.executable, "-m", "dask", "scheduler", "--host", address, "--no-dashboard"),
        *(
            worker_command(address, (), f"board{number}", plain_tcp=False)
            for number in range(options.workers)
        ),
    ]
    processes = [subprocess.Popen(line, stderr=subprocess.DEVNULL) for line in lines]
    try:
        seconds = _timed(address, options.workers, options.jobs)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    each_ms = 1000 * seconds / options.jobs
    print("| jobs | workers | seconds | ms a job | 1,000 boards, a job each |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    print(
        f"| {options.jobs} | {options.workers} | {seconds:.2f} | {each_ms:.2f} | {each_ms:.1f} s |"
    )
    return 0


def _timed(address: str, workers: int, jobs: int) -> float:
    """Returns the seconds from the first job's start to the last one's result."""
    connect: object = distributed.Client
    assert callable(connect)
    with connect(address, timeout="60s", set_as_default=False) as client:
        client.wait_for_workers(workers)
        # The first job of a worker loads what it needs.
        client.run(shares)
        started = time.perf_counter()
        futures = [client.submit(shares, resources={BOARD: 1}, pure=False) for _ in range(jobs)]
        client.gather(futures)
        return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())

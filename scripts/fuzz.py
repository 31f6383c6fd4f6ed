#!/usr/bin/env python3
"""Reads changed copies of valid files, each reader in a process of its own, and counts failures.

A failure is an exception other than edgeres' own errors, a read that takes more than 5 s of CPU
time or sleeps as long, a process that a signal ends, or 2 GB of memory. Each failing input is kept,
once for each place it fails at; the same --seed makes the same inputs. Every reader gets --each
inputs; the rest of --inputs is shared out by how fast each reader is. Exit code 1 if there is a
failure, or less was read than requested.

Example:
  python scripts/fuzz.py --inputs 1000000 --each 20000 --minutes 60 --jobs 2 -o failures
  python scripts/fuzz.py --reader table.json --reader data.npz --inputs 2000 --seed 7
"""

from __future__ import annotations

import argparse
import logging
import math
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from fuzz_readers import READERS, Reader, make_seeds

from edgeres.errors import EdgeresError

HANG_S = 5.0
MOST_KIB = 2_000_000
START_S = 120.0
"""A process that has not read anything by then has not started."""

PROBED = 200
"""Inputs by which a reader's speed is known."""

KINDS = ("escape", "hang", "crash", "memory")

SHARED = ("index", "start", "accepted", "refused", "slowest_s", "peak_kib", "cpu_s")
"""Numbers that a process which reads shares with the one that watches it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """What a run reads and where it keeps what failed."""

    inputs: int
    """Of all readers."""
    each: int
    """Of every reader at least."""
    seed: int
    end: float
    """Of the monotonic clock."""
    seeds: Path
    failures: Path
    hang_s: float = HANG_S


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a reader did with its inputs so far."""

    reader: Reader
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    cpu_s: float = 0.0
    """CPU time of all, changing and writing them included."""
    slowest_s: float = 0.0
    """CPU time of one input."""
    peak_kib: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    places: dict[str, None] = field(default_factory=dict)
    """Kind and place of each failure, once."""


def changed_input(reader: Reader, campaign: Campaign, index: int) -> bytes:
    """Returns an input of a campaign, the same in every run; the first is the valid file."""
    content = (campaign.seeds / reader.seed).read_bytes()
    if index == 0:
        return content
    return reader.mutate(Random(f"{campaign.seed} {reader.name} {index}"), content)


def read_inputs(reader: Reader, campaign: Campaign, last: int, path: Path, shared: Any) -> None:
    """Reads inputs from the shared index on; runs in a process of its own.

    Args:
        reader: what reads.
        campaign: which inputs.
        last: the index after the last one's.
        path: where each input is written.
        shared: (sender, numbers): a pipe for failures, and numbers in the order of `SHARED`.
    """
    sender, numbers = shared
    logging.disable()
    warnings.simplefilter("ignore")
    # Libraries in C++ write to the descriptors themselves.
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    begin = time.process_time()
    for index in range(int(numbers[0]), last):
        numbers[0] = index
        path.write_bytes(changed_input(reader, campaign, index))
        before, numbers[1] = time.process_time(), time.monotonic()
        try:
            reader.read(path)
            numbers[2] += 1
        except EdgeresError as error:
            if index == 0:
                sender.send(("escape", f"the valid file is refused: {error}", 0))
            else:
                numbers[3] += 1
        except BaseException as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
            sender.send(("escape", place, index))
        numbers[1] = 0.0
        numbers[4] = max(numbers[4], time.process_time() - before)
        numbers[6] = time.process_time() - begin
        numbers[5] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if numbers[5] > MOST_KIB:
            sender.send(("memory", f"above {MOST_KIB} KiB", index))
            break
        if time.monotonic() > campaign.end:
            break
    sender.send(("done", "", 0))


def fuzz_reader(outcome: Outcome, campaign: Campaign, upto: Mapping[str, int]) -> None:
    """Reads a reader's inputs up to an index, in processes that are replaced where they end or hang."""
    reader, last = outcome.reader, upto[outcome.reader.name]
    forks = multiprocessing.get_context("forkserver")

    def keep(kind: str, place: str, index: int) -> None:
        outcome.failures[kind] += 1
        if f"{kind}: {place}" in outcome.places:
            return
        outcome.places[f"{kind}: {place}"] = None
        name = f"{campaign.seed}.{index}.{kind}.{reader.name}"
        (campaign.failures / name).write_bytes(changed_input(reader, campaign, index))

    while outcome.inputs < last and time.monotonic() < campaign.end:
        receiver, sender = forks.Pipe(duplex=False)
        numbers = forks.RawArray("d", len(SHARED))
        numbers[0] = outcome.inputs
        with tempfile.TemporaryDirectory(dir=campaign.seeds.parent) as folder:
            work = Path(shutil.copytree(campaign.seeds, Path(folder) / "work"))
            arguments = (reader, campaign, last, work / reader.seed, (sender, numbers))
            process = forks.Process(target=read_inputs, args=arguments)
            process.start()
            sender.close()
            fault = _watch(process, receiver, numbers, campaign.hang_s, keep)
        if fault:
            keep(*fault, int(numbers[0]))
        outcome.inputs = int(numbers[0]) + 1
        outcome.accepted += int(numbers[2])
        outcome.refused += int(numbers[3])
        outcome.slowest_s = max(outcome.slowest_s, numbers[4])
        outcome.peak_kib = max(outcome.peak_kib, numbers[5])
        outcome.cpu_s += numbers[6]


def _watch(
    process: Any, receiver: Any, numbers: Any, hang_s: float, keep: Any
) -> tuple[str, str] | None:
    """Returns how a process failed that crashed, or that hung and was killed; None at its end."""
    begin = time.monotonic()
    reading, used, asleep = -1.0, 0.0, begin
    while True:
        try:
            while receiver.poll(0.1):
                kind, place, index = receiver.recv()
                if kind == "done":
                    process.join()
                    return None
                keep(kind, place, index)
        except EOFError:
            process.join()
            return "crash", f"exit code {process.exitcode}"
        now, start = time.monotonic(), numbers[1]
        cpu, sleeps = _state(process.pid)
        if reading != start or not start:
            reading, used = start, cpu
        if not sleeps or not start:
            asleep = now
        # Not by the clock alone: a process that waits for a core does not hang.
        if (
            cpu - used > hang_s
            or now - asleep > hang_s
            or (not numbers[5] and now > begin + START_S)
        ):
            process.kill()
            process.join()
            return "hang", "no end" if start else "no start"


def _state(pid: int) -> tuple[float, bool]:
    """Returns a process's CPU time in seconds, and whether it sleeps."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0, False
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), fields[0] in "SD"


def planned(outcomes: Sequence[Outcome], campaign: Campaign) -> dict[str, int]:
    """Returns inputs by reader: what each gets at least, and more for those that take less time."""
    counts = {o.reader.name: max(campaign.each, o.inputs) for o in outcomes}
    rates = {o.reader.name: o.inputs / o.cpu_s if o.cpu_s else 1.0 for o in outcomes}
    rest = campaign.inputs - sum(counts.values())
    if rest > 0:
        total = sum(rates.values())
        for name, rate in rates.items():
            counts[name] += math.ceil(rest * rate / total)
    return counts


def table(outcomes: Sequence[Outcome]) -> str:
    """Returns a line for each reader, and the places of its failures."""
    names = ("inputs", "refused", "accepted", *KINDS, "slowest/s", "RSS/MiB", "CPU/s")
    lines = [f"{'reader':<20}" + "".join(f"{name:>10}" for name in names)]
    for each in outcomes:
        cells = [each.inputs, each.refused, each.accepted, *(each.failures[k] for k in KINDS)]
        texts = [*map(str, cells), f"{each.slowest_s:.2f}", f"{each.peak_kib / 1024:.0f}"]
        texts.append(f"{each.cpu_s:.0f}")
        lines.append(f"{each.reader.name:<20}" + "".join(f"{text:>10}" for text in texts))
        lines += [f"    {place}" for place in each.places]
    return "\n".join(lines)


def run(readers: Sequence[Reader], campaign: Campaign, jobs: int) -> int:
    """Fuzzes readers, prints the table and returns the exit code."""
    begin = time.monotonic()
    multiprocessing.get_context("forkserver").set_forkserver_preload(["fuzz_readers"])
    outcomes = tuple(Outcome(reader=reader) for reader in readers)
    with ThreadPoolExecutor(jobs) as pool:

        def upto(counts: Mapping[str, int]) -> None:
            # The longest first, so that no job is left with it at the end.
            order = sorted(
                outcomes, key=lambda o: -o.cpu_s * counts[o.reader.name] / (o.inputs or 1)
            )
            tuple(pool.map(partial(fuzz_reader, campaign=campaign, upto=counts), order))

        probed = min(PROBED, -(-campaign.inputs // len(readers)))
        upto({reader.name: probed for reader in readers})
        upto(counts := planned(outcomes, campaign))
    print(table(outcomes))
    failed = sum(outcome.failures.total() for outcome in outcomes)
    inputs, missing = sum(o.inputs for o in outcomes), sum(counts.values())
    missing -= sum(min(o.inputs, counts[o.reader.name]) for o in outcomes)
    print(
        f"{inputs} inputs in {(time.monotonic() - begin) / 60:.1f} min, {failed} failures"
        + (f"; {missing} inputs were not reached in the time given" if missing else "")
    )
    return int(failed > 0 or missing > 0)


def main() -> int:
    """Reads the options and runs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=20_000, help="in all; default: %(default)s")
    parser.add_argument("--each", type=int, default=0, help="by reader, at least")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--minutes", type=float, default=60.0, help="in all; default: %(default)s")
    parser.add_argument("--jobs", type=int, default=1, help="readers at once; default: %(default)s")
    names = [reader.name for reader in READERS]
    parser.add_argument("--reader", action="append", choices=names, help="default: all")
    parser.add_argument("-o", "--output", type=Path, default=Path("fuzz-failures"))
    options = parser.parse_args()
    readers = [each for each in READERS if each.name in (options.reader or names)]
    end = time.monotonic() + options.minutes * 60
    # In memory where there is such a file system: each input is written once and read once.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        (seeds := Path(folder) / "seeds").mkdir()
        make_seeds(seeds)
        options.output.mkdir(parents=True, exist_ok=True)
        campaign = Campaign(
            inputs=options.inputs,
            each=options.each,
            seed=options.seed,
            end=end,
            seeds=seeds,
            failures=options.output,
        )
        return run(readers, campaign, options.jobs)


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Reads changed copies of valid files, each reader in a process of its own, and counts failures.

A failure is an exception other than edgeres' own errors, a read of more than 5 s, a process that
a signal ends, or 2 GB of memory. Each failing input is kept, once for each place it fails at; the
same --seed makes the same inputs. Exit code 1 if there is a failure.

Example:
  python scripts/fuzz.py --inputs 20000 --minutes 60 --jobs 2 -o failures
  python scripts/fuzz.py --reader table.json --reader data.npz --inputs 1000 --seed 7
"""

from __future__ import annotations

import argparse
import logging
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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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

KINDS = ("escape", "hang", "crash", "memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """What a run reads and where it keeps what failed."""

    inputs: int
    """By reader."""
    seed: int
    seconds: float
    """By reader."""
    seeds: Path
    failures: Path
    hang_s: float = HANG_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a reader did with its inputs."""

    reader: str
    inputs: int
    accepted: int
    seconds: float
    failures: Counter[str]
    places: tuple[str, ...]
    """Kind and place of each failure, once."""


def changed_input(reader: Reader, campaign: Campaign, index: int) -> bytes:
    """Returns an input of a campaign, the same in every run; the first is the valid file."""
    if index == 0:
        return (campaign.seeds / reader.seed).read_bytes()
    random = Random(f"{campaign.seed} {reader.name} {index}")
    return reader.mutate(random, (campaign.seeds / reader.seed).read_bytes())


def read_inputs(reader: Reader, campaign: Campaign, first: int, path: Path, shared: Any) -> None:
    """Reads inputs from `first` on; runs in a process of its own.

    Args:
        reader: what reads.
        campaign: which inputs.
        first: the first one's index.
        path: where each input is written.
        shared: (sender, index, start): a pipe for failures and two shared values.
    """
    sender, index, start = shared
    logging.disable()
    warnings.simplefilter("ignore")
    # Libraries in C++ write to the descriptors themselves.
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    end, accepted = time.monotonic() + campaign.seconds, 0
    for index.value in range(first, campaign.inputs):
        path.write_bytes(changed_input(reader, campaign, index.value))
        start.value = time.monotonic()
        try:
            reader.read(path)
            accepted += 1
        except EdgeresError as error:
            if index.value == 0:
                sender.send(("escape", f"the valid file is refused: {error}", 0))
        except BaseException as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
            sender.send(("escape", place, index.value))
        start.value = 0.0
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > MOST_KIB:
            sender.send(("memory", f"above {MOST_KIB} KiB", index.value))
            break
        if time.monotonic() > end:
            break
    sender.send(("done", str(accepted), index.value))


def fuzz_reader(reader: Reader, campaign: Campaign) -> Outcome:
    """Reads a reader's inputs in processes that are replaced where they end or hang."""
    spawn = multiprocessing.get_context("spawn")
    begin, at, accepted = time.monotonic(), 0, 0
    failures, places = Counter[str](), dict[str, None]()

    def keep(kind: str, place: str, index: int) -> None:
        failures[kind] += 1
        if f"{kind}: {place}" in places:
            return
        places[f"{kind}: {place}"] = None
        name = f"{campaign.seed}.{index}.{kind}.{reader.seed}"
        (campaign.failures / name).write_bytes(changed_input(reader, campaign, index))

    while at < campaign.inputs and time.monotonic() < begin + campaign.seconds:
        receiver, sender = spawn.Pipe(duplex=False)
        index, start = spawn.RawValue("q", at), spawn.RawValue("d", 0.0)
        with tempfile.TemporaryDirectory() as folder:
            work = Path(shutil.copytree(campaign.seeds, Path(folder) / "work"))
            arguments = (reader, campaign, at, work / reader.seed, (sender, index, start))
            process = spawn.Process(target=read_inputs, args=arguments)
            process.start()
            sender.close()
            end = _monitor(process, receiver, start, campaign.hang_s, keep)
            if end is not None:
                accepted += end
            elif process.exitcode == -9 and start.value:
                keep("hang", "no end", index.value)
            else:
                keep("crash", f"exit code {process.exitcode}", index.value)
            at = index.value + 1
    return Outcome(
        reader=reader.name,
        inputs=at,
        accepted=accepted,
        seconds=time.monotonic() - begin,
        failures=failures,
        places=tuple(places),
    )


def _monitor(process: Any, receiver: Any, start: Any, hang_s: float, keep: Any) -> int | None:
    """Returns how many inputs a process accepted; None if it crashed, or hung and was killed."""
    begin = time.monotonic()
    started = False
    while True:
        try:
            while receiver.poll(0.1):
                kind, place, index = receiver.recv()
                if kind == "done":
                    process.join()
                    return int(place)
                keep(kind, place, index)
        except EOFError:
            process.join()
            return None
        since = start.value
        started = started or since > 0
        late = since and time.monotonic() > since + hang_s
        if late or (not started and time.monotonic() > begin + START_S):
            process.kill()
            process.join()
            return None


def table(outcomes: Sequence[Outcome]) -> str:
    """Returns a line for each reader, and the places of its failures."""
    head = "".join(f"{kind:>9}" for kind in ("inputs", "accepted", *KINDS, "inputs/s"))
    lines = [f"{'reader':<20}{head}"]
    for each in outcomes:
        rate = each.inputs / each.seconds
        counts = (each.inputs, each.accepted, *(each.failures[kind] for kind in KINDS))
        lines.append(f"{each.reader:<20}{''.join(f'{count:>9}' for count in counts)}{rate:>9.1f}")
        lines += [f"    {place}" for place in each.places]
    return "\n".join(lines)


def run(readers: Sequence[Reader], campaign: Campaign, jobs: int) -> int:
    """Fuzzes readers, prints the table and returns the exit code."""
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = tuple(pool.map(partial(fuzz_reader, campaign=campaign), readers))
    print(table(outcomes))
    failed = sum(outcome.failures.total() for outcome in outcomes)
    print(f"{sum(outcome.inputs for outcome in outcomes)} inputs, {failed} failures")
    return int(failed > 0)


def main() -> int:
    """Reads the options and runs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=1000, help="by reader; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--minutes", type=float, default=60.0, help="in all; default: %(default)s")
    parser.add_argument("--jobs", type=int, default=1, help="readers at once; default: %(default)s")
    names = [reader.name for reader in READERS]
    parser.add_argument("--reader", action="append", choices=names, help="default: all")
    parser.add_argument("-o", "--output", type=Path, default=Path("fuzz-failures"))
    options = parser.parse_args()
    readers = [each for each in READERS if each.name in (options.reader or names)]
    with tempfile.TemporaryDirectory() as folder:
        make_seeds(seeds := Path(folder))
        options.output.mkdir(parents=True, exist_ok=True)
        campaign = Campaign(
            inputs=options.inputs,
            seed=options.seed,
            seconds=options.minutes * 60 * options.jobs / len(readers),
            seeds=seeds,
            failures=options.output,
        )
        return run(readers, campaign, options.jobs)


if __name__ == "__main__":
    sys.exit(main())

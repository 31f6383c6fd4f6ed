#!/usr/bin/env python3
"""Ends commands at random instants by KILL, TERM and INT, and counts what is lost.

Each command overwrites what an earlier run of it has written. After each end the old result or the
new one loads, whole; after the next run that is left alone no temporary file stands there.
Exit code 1 if anything is lost.

Example:
  python scripts/kills.py --kills 500
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from random import Random
from xml.etree import ElementTree

from edgeres.cli import SHORT_HELP
from edgeres.cli import main as main_command
from edgeres.core.artifacts import load_engine
from edgeres.core.table import load_table
from edgeres.errors import EdgeresError
from edgeres.images import embedded_digits, embedded_path
from edgeres.onnx_file import load_onnx

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

HANG_S = 60.0
"""A command that a signal has not ended by then hangs."""


def run_words(words: tuple[str, ...]) -> None:
    """Runs a command line as a new process of it would, without the second that imports take."""
    # Where this runs in the background, SIGINT would be ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    main_command(args=list(words), prog_name="edgeres")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command line, and how one sees that what it has written is whole."""

    words: tuple[str, ...]
    check: Callable[[Path], object]
    """Takes the folder; raises where the result is not whole."""
    program: Callable[[tuple[str, ...]], object] = run_words
    """Runs the words, in a process of its own."""
    folder: str = ""
    """What it writes where that is a folder; a new run begins without it."""
    resumes: bool = False
    """Whether it goes on where a run that was ended has stopped."""


def check_report(folder: Path) -> None:
    """Raises unless report and checks are there to their ends."""
    if not (folder / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>"):
        raise ValueError("report.html is cut off")
    ElementTree.parse(folder / "report.xml")


def check_rows(folder: Path) -> None:
    """Raises unless the table of predictions has a row for each image."""
    lines = (folder / "rows.csv").read_text(encoding="utf-8").splitlines()
    if len({line.count(",") for line in lines}) != 1:
        raise ValueError(f"rows.csv has {len(lines)} lines of several lengths")


def check_sweep(folder: Path) -> None:
    """Raises unless every engine and verdict that is there loads, and so does the result."""
    swept = folder / "sweep"
    for manifest in swept.glob("engines/*.json"):
        load_engine(manifest.with_suffix(""))
    for path in (*swept.glob("verdicts/*.json"), *swept.glob("sweep.json")):
        json.loads(path.read_bytes())
    if (swept / "sweep.json").exists() and not list(swept.glob("verdicts/*.json")):
        raise ValueError("sweep.json is there, and its verdicts are not")


def check_deployment(folder: Path) -> None:
    """Raises unless the deployment is there as a whole, or not at all."""
    names = {path.name for path in (folder / "deployment").rglob("*")}
    if names and not {"engine.onnx", "README.md"} <= names:
        raise ValueError(f"the deployment has {', '.join(sorted(names))} alone")


def make_commands(folder: Path) -> dict[str, Command]:
    """Returns the commands, whose paths are in the folder; each needs what the one before wrote."""
    import numpy as np
    from PIL import Image

    train, _ = embedded_digits()
    np.savez(
        folder / "data.npz",
        images=np.stack([train.image(index) for index in range(100)]),
        labels=np.asarray(train.labels)[:100],
    )
    Image.fromarray(train.image(0)).save(folder / "image.png")
    lines: Mapping[str, tuple[str, Callable[[Path], object]]] = {
        "export": (
            f"export resnet20 --weights {embedded_path('digits_resnet20.safetensors')} "
            "--preset digits -o {}/model.onnx",
            lambda folder: load_onnx(folder / "model.onnx"),
        ),
        "calibrate": (
            "calibrate {}/model.onnx --data {}/data.npz -o {}/table.json",
            lambda folder: load_table(folder / "table.json"),
        ),
        "build-engine": (
            "build-engine {}/model.onnx --calibration {}/table.json -o {}/engine.onnx",
            lambda folder: load_engine(folder / "engine.onnx"),
        ),
        "bench": (
            "bench {}/engine.onnx --reference {}/model.onnx --data {}/data.npz --iterations 2 "
            "--warmup 0 --no-energy --report {}/report.html --junit {}/report.xml",
            check_report,
        ),
        "predict": ("predict {}/engine.onnx {}/image.png --csv {}/rows.csv", check_rows),
        "sweep": (
            "sweep {}/model.onnx --data {}/data.npz --calibration {}/table.json --samples 50 "
            "--iterations 2 -o {}/sweep",
            check_sweep,
        ),
        "deploy": ("deploy {}/engine.onnx --to python -o {}/deployment", check_deployment),
    }
    folders = {"sweep": "sweep", "deploy": "deployment"}
    return {
        name: Command(
            words=tuple(line.replace("{}", str(folder)).split()),
            check=check,
            folder=folders.get(name, ""),
            resumes=name == "sweep",
        )
        for name, (line, check) in lines.items()
    }


def started(command: Command, folder: Path, *, anew: bool) -> ForkProcess:
    """Returns the running command; `anew` takes the folder away that it has written before."""
    if command.folder and anew:
        shutil.rmtree(folder / command.folder, ignore_errors=True)
    process = multiprocessing.get_context("fork").Process(
        target=command.program, args=(command.words,)
    )
    # Python's own steps after a fork hold locks, which an exception in them would leave taken.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    process.start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    return process


def finished(process: ForkProcess) -> int:
    """Returns the exit code of a command that is left alone."""
    process.join()
    return process.exitcode or 0


def losses(
    name: str, command: Command, folder: Path, *, ended: bool, of_others: Set[Path] = frozenset()
) -> list[str]:
    """Returns a sentence for what is not whole, and after a whole run for what is left over.

    Args:
        name: of the command.
        command: what was run.
        folder: where.
        ended: whether it was killed.
        of_others: temporary files of other commands, which their own next runs remove.
    """
    faults = []
    try:
        command.check(folder)
    except (EdgeresError, OSError, ValueError, ElementTree.ParseError) as error:
        faults.append(f"{name}: {error}")
    if not ended:
        left = set(folder.rglob(".*.tmp")) - of_others
        faults += [f"{name}: {path.name} is left" for path in sorted(left)]
    return faults


def run(
    commands: Mapping[str, Command], folder: Path, kills: int, random: Random
) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Ends commands in turn; returns how often each was ended by what, and what was lost."""
    times, counts, faults = dict[str, float](), Counter[tuple[str, str]](), list[str]()
    for name, command in commands.items():
        begin = time.monotonic()
        code = finished(started(command, folder, anew=True))
        times[name] = time.monotonic() - begin
        if early := losses(name, command, folder, ended=False) or code:
            return counts, [f"{name} fails before any kill, with exit code {code}: {early}"]
    kill, left_by = 0, dict[Path, str]()
    while kill < kills:
        name = list(commands)[kill % len(commands)]
        command, kind = commands[name], random.choice(SIGNALS)
        anew = not command.resumes or random.random() < 0.5
        process, begin = started(command, folder, anew=anew), time.monotonic()
        # Files are written at the end: half of the kills fall into the last fifth.
        part = random.random() if random.random() < 0.5 else 0.85 + 0.2 * random.random()
        process.join(times[name] * part)
        if process.exitcode is not None:
            # Done before its end: the machine is faster than it was, or little was left to do.
            if anew:
                times[name] = time.monotonic() - begin
            counts[name, "was done"] += 1
            continue
        # Sent to the process itself: mypy does not know that it was started.
        if process.pid is not None:
            os.kill(process.pid, kind)
        process.join(HANG_S)
        if process.exitcode is None:
            faults.append(f"{name}: still there {HANG_S:.0f} s after {kind.name}")
            process.kill()
            process.join()
        counts[name, kind.name] += 1
        faults += losses(name, command, folder, ended=True)
        for path in folder.rglob(".*.tmp"):
            left_by.setdefault(path, name)
        # Every tenth is followed by a run that is left alone, and so is the last.
        if kill // len(commands) % 10 == 9 or kill >= kills - len(commands):
            if code := finished(started(command, folder, anew=not command.resumes)):
                faults.append(f"{name}: exit code {code} after a kill")
            of_others = {path for path, by in left_by.items() if by != name}
            faults += losses(name, command, folder, ended=False, of_others=of_others)
        kill += 1
    # The last run of each command was left alone.
    faults += [f"at the end: {path.name} is left" for path in folder.rglob(".*.tmp")]
    return counts, faults


def run_job(job: int, kills: int, seed: int, sender: Connection) -> None:
    """Ends commands in a folder of its own, and sends what `run` returns."""
    # Loaded once here, and there in every process that is split off.
    for name in (*SHORT_HELP, "edgeres.workflows", "onnxruntime", "torch", "scipy.stats"):
        known = name in SHORT_HELP
        importlib.import_module(f"edgeres.cli.{name.replace('-', '_')}" if known else name)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sender.send(run(make_commands(folder), folder, kills, Random(f"{seed} {job}")))


def summary(
    commands: Sequence[str], counts: Counter[tuple[str, str]], faults: Sequence[str]
) -> str:
    """Returns how often each command was ended by what, and what was lost."""
    kinds = (*(kind.name for kind in SIGNALS), "was done")
    lines = [f"{'command':<14}" + "".join(f"{kind:>10}" for kind in kinds)]
    lines += [
        f"{name:<14}" + "".join(f"{counts[name, kind]:>10}" for kind in kinds) for name in commands
    ]
    return "\n".join([*lines, *faults, f"{counts.total()} runs, {len(faults)} losses"])


def main() -> int:
    """Reads the options and runs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=500, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--jobs", type=int, default=1, help="at once; default: %(default)s")
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    running = []
    for job in range(options.jobs):
        receiver, sender = spawn.Pipe(duplex=False)
        kills = (options.kills + job) // options.jobs
        spawn.Process(target=run_job, args=(job, kills, options.seed, sender)).start()
        sender.close()
        running.append(receiver)
    counts, faults = Counter[tuple[str, str]](), list[str]()
    for receiver in running:
        # Raises EOFError where the job itself has ended without an answer.
        counted, lost = receiver.recv()
        counts += counted
        faults += lost
    names = list(dict.fromkeys(name for name, _ in counts))
    print(summary(names, counts, faults))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())

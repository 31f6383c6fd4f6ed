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
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from xml.etree import ElementTree

from edgeres.core.artifacts import load_engine
from edgeres.core.table import load_table
from edgeres.errors import EdgeresError
from edgeres.images import embedded_digits, embedded_path
from edgeres.onnx_file import load_onnx

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

START = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from edgeres.cli import main; main(prog_name='edgeres')"
)
"""Runs the command line; where this runs in the background, SIGINT would be ignored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command line, and how one sees that what it has written is whole."""

    words: tuple[str, ...]
    check: Callable[[Path], object]
    """Takes the folder; raises where the result is not whole."""
    program: tuple[str, ...] = (sys.executable, "-c", START)


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
    }
    return {
        name: Command(words=tuple(line.replace("{}", str(folder)).split()), check=check)
        for name, (line, check) in lines.items()
    }


def started(command: Command) -> subprocess.Popen[bytes]:
    """Returns the running command."""
    quiet = subprocess.DEVNULL
    return subprocess.Popen([*command.program, *command.words], stdout=quiet, stderr=quiet)


def losses(name: str, command: Command, folder: Path, *, ended: bool) -> list[str]:
    """Returns a sentence for what is not whole, and after a whole run for what is left over."""
    faults = []
    try:
        command.check(folder)
    except (EdgeresError, OSError, ValueError, ElementTree.ParseError) as error:
        faults.append(f"{name}: {error}")
    if not ended:
        faults += [f"{name}: {path.name} is left" for path in folder.glob(".*.tmp")]
    return faults


def run(commands: Mapping[str, Command], folder: Path, kills: int, random: Random) -> int:
    """Ends commands in turn, prints the counts and returns the exit code."""
    times = dict[str, float]()
    for name, command in commands.items():
        begin = time.monotonic()
        code = started(command).wait()
        times[name] = time.monotonic() - begin
        if early := losses(name, command, folder, ended=False) or code:
            print(f"{name} fails before any kill, with exit code {code}: {early}")
            return 1
    counts, faults = Counter[tuple[str, str]](), list[str]()
    kill = 0
    while kill < kills:
        name = list(commands)[kill % len(commands)]
        command, kind = commands[name], random.choice(SIGNALS)
        process, begin = started(command), time.monotonic()
        # Files are written at the end: half of the kills fall into the last fifth.
        part = random.random() if random.random() < 0.5 else 0.85 + 0.2 * random.random()
        try:
            process.wait(times[name] * part)
        except subprocess.TimeoutExpired:
            process.send_signal(kind)
            process.wait()
            counts[name, kind.name] += 1
        else:
            # Done before its end: the machine is faster than it was.
            times[name] = time.monotonic() - begin
            counts[name, "was done"] += 1
            continue
        faults += losses(name, command, folder, ended=True)
        # Every tenth is followed by a run that is left alone, and so is the last.
        if kill // len(commands) % 10 == 9 or kill >= kills - len(commands):
            if code := started(command).wait():
                faults.append(f"{name}: exit code {code} after a kill")
            faults += losses(name, command, folder, ended=False)
        kill += 1
    print(summary(commands, counts, faults))
    return int(bool(faults))


def summary(
    commands: Mapping[str, Command], counts: Counter[tuple[str, str]], faults: Sequence[str]
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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return run(make_commands(folder), folder, options.kills, Random(options.seed))


if __name__ == "__main__":
    sys.exit(main())

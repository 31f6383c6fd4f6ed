#!/usr/bin/env python3
"""Breaks ssh at random points of a build on a board, and counts what is resumed and what is lost.

A real sshd on loopback stands for the board, and a port before it cuts the connection after a
random number of bytes, in either direction. After each break there is no half file, here or on the
board; the same build again then succeeds, with the same engine. Exit code 1 if anything is lost.

Example:
  python scripts/breaks.py --breaks 20
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "fleet"))

from sshd import SSHD, Loopback, sshd

from edgeres.core.artifacts import load_engine, manifest_path
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.errors import EdgeresError
from edgeres.fleet.inputs import job_input
from edgeres.fleet.rack import RackBoard
from edgeres.fleet.ssh import SshBoard, ssh_connection
from edgeres.images import embedded_path
from edgeres.plurals import percent
from edgeres.workflows import BuildInputs


@dataclass
class Tally:
    """Breaks of one stage."""

    breaks: int = 0
    again: list[float] = field(default_factory=list)
    """Bytes of the next build, as a fraction of those of a build that nothing breaks."""


def main() -> int:
    """Runs the builds, and prints what became of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--breaks", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if SSHD is None:
        print("No sshd is installed: sudo apt install openssh-server", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="edgeres-", dir="/tmp") as folder:
        server = Path(folder) / "sshd"
        server.mkdir()
        with sshd(server) as loopback:
            os.environ["PATH"] = loopback.environment()["PATH"]
            tallies, faults = break_builds(loopback, Path(folder), options.breaks, options.seed)
    print("| what had arrived | breaks | bytes of the next build, of an unbroken one's |")
    print("| --- | ---: | ---: |")
    for arrived, tally in tallies.items():
        print(
            f"| {arrived} | {tally.breaks} | {percent(min(tally.again), 0)} to {percent(max(tally.again), 0)} |"
        )
    print("\n".join(faults) or "Nothing was lost.")
    return 1 if faults else 0


def break_builds(
    loopback: Loopback, folder: Path, breaks: int, seed: int
) -> tuple[dict[str, Tally], list[str]]:
    """Returns the breaks by what had arrived until then, and a sentence for what was lost."""
    random, tallies, faults = Random(seed), defaultdict[str, Tally](Tally), list[str]()
    model, cutter = embedded_path("digits_resnet20.onnx"), loopback.cutter
    engine = folder / "engine.onnx"
    if error := built(loopback, "whole", model, engine):
        return tallies, [f"It fails before any break: {error}"]
    expected, total = engine.read_bytes(), cutter.passed
    for number in range(breaks):
        board, at = f"board{number}", random.randrange(total)
        remove(engine)
        cutter.most = at
        if built(loopback, board, model, engine) is None:
            faults.append(f"{number}: a break after {at} bytes is not reported")
        store = loopback.folder / "boards" / board / "cache" / "edgeres" / "files"
        faults += [f"{number}: {each}" for each in half_files(engine, store)]
        stored = list(store.iterdir()) if store.exists() else []
        parts = [path for path in stored if path.suffix == ".part" and path.stat().st_size]
        whole = any(len(path.name) == 64 for path in stored)
        # Whoever breaks off is waited for, in case it still writes.
        for path in parts:
            os.utime(path, (time.time() - 60,) * 2)
        cutter.most = None
        if error := built(loopback, board, model, engine):
            faults.append(f"{number}: after a break at {at} bytes it fails: {error}")
        elif engine.read_bytes() != expected:
            faults.append(f"{number}: the engine is another one")
        tally = tallies["part of the model" if parts else "the model" if whole else "nothing"]
        tally.breaks += 1
        tally.again.append(cutter.passed / total)
    return tallies, faults


def built(loopback: Loopback, board: str, model: Path, engine: Path) -> EdgeresError | None:
    """Builds an engine on a board; returns the error that ended it."""
    where = SshBoard(host="cut", edgeres=loopback.board(board))
    with ssh_connection(where) as connection:
        inputs = BuildInputs(model=model, output=engine)
        request = BuildRequest(precision=Precision.FP32)
        try:
            RackBoard(board, connection, job_input).build(inputs, request)
        except EdgeresError as error:
            return error
    return None


def half_files(engine: Path, store: Path) -> list[str]:
    """Returns a sentence for each file that is not what its name promises, here and on the board."""
    faults = []
    if engine.exists() or manifest_path(engine).exists():
        try:
            load_engine(engine)
        except EdgeresError as error:
            faults.append(f"half an engine is here: {error}")
    faults += [
        f"{path.name} on the board has another content"
        for path in (store.iterdir() if store.exists() else ())
        if len(path.name) == 64 and hashlib.sha256(path.read_bytes()).hexdigest() != path.name
    ]
    return faults


def remove(engine: Path) -> None:
    """Removes an engine with its manifest."""
    for path in (engine, manifest_path(engine)):
        with suppress(FileNotFoundError):
            path.unlink()


if __name__ == "__main__":
    sys.exit(main())

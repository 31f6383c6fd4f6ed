#!/usr/bin/env python3
"""Measures how long each command of the path writes nothing to a terminal.

Each command runs with a pseudo-terminal as stderr and stdout. The figure is the longest time
between two outputs, from its start to its end, with what stood on the terminal then: a stage
without a bar, or a bar whose steps are long. Counted are the times over `--over`. With `--model`
the whole path of a network is run, from its file to a sweep.

Example:
  python -m benchmarks.silence --folder build/ 'export resnet50 -o r50.onnx' 'inspect r50.onnx'
  python -m benchmarks.silence --folder build/ --model r50.onnx --data val/ --calib-data train/
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import select
import shlex
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from edgeres.core.bench_requests import Scenario

_CONTROL = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]|[\r\x07]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """The longest time in which a command wrote nothing."""

    command: str
    exit_code: int
    seconds: float
    longest_s: float
    after: str
    """The last line before it; empty at the start."""
    times_over: int
    """How often it wrote nothing for longer than was asked about."""


PATH = (
    "inspect {model}",
    "calibrate {model} --data {calib_data} --method auto --sensitivity -o table.json",
    "build-engine {model} --calibration table.json -o int8.onnx",
    "bench int8.onnx --reference {model} --data {data} --max-drop 5 --profile "
    "--report verdict.html --history history.jsonl",
    *(
        f"bench int8.onnx --reference {{model}} --data {{data}} --scenario {scenario} "
        "--loadgen-seconds {loadgen_s}"
        for scenario in Scenario
    ),
    "compare --history history.jsonl --report history.html",
    "deploy int8.onnx --to python -o deployed",
    "sweep {model} --data {data} --calibration table.json --batch 1,8 -o sweep",
)
"""Commands of the path, as words after `edgeres`."""


def main() -> int:
    """Runs the commands one after the other and prints a line for each."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.silence", description=__doc__.splitlines()[0]
    )
    parser.add_argument("commands", nargs="*", help="words after 'edgeres', quoted as one")
    parser.add_argument("--folder", type=Path, default=Path(), help="where they run")
    parser.add_argument("--model", type=Path, help="run the whole path of this FP32 ONNX file")
    parser.add_argument("--data", type=Path, help="labelled images of the path")
    parser.add_argument("--calib-data", type=Path, help="images of the path to calibrate on")
    parser.add_argument("--loadgen-seconds", type=float, default=10.0, help="of each scenario")
    parser.add_argument("--over", type=float, default=2.0, help="seconds that are counted")
    parser.add_argument("--json", action="store_true", help="print one JSON object a command")
    options = parser.parse_args()
    commands = list(options.commands)
    if options.model is not None:
        if options.data is None or options.calib_data is None:
            parser.error("--model needs --data and --calib-data")
        paths = {name: getattr(options, name).resolve() for name in ("model", "data", "calib_data")}
        words = {name: shlex.quote(str(path)) for name, path in paths.items()}
        commands += [each.format(**words, loadgen_s=options.loadgen_seconds) for each in PATH]
    silences = []
    for command in commands:
        one = silence(command, options.folder, over_s=options.over)
        silences.append(one)
        line = (
            f"{one.longest_s:6.2f} s silent of {one.seconds:6.1f}, exit {one.exit_code}: "
            f"{command}\n{'':17}after: {one.after}"
        )
        print(json.dumps(asdict(one)) if options.json else line, flush=True)
    longest, over = max(one.longest_s for one in silences), sum(one.times_over for one in silences)
    print(f"longest: {longest:.2f} s; over {options.over:g} s: {over}", file=sys.stderr)
    return 0


def silence(command: str, folder: Path, *, over_s: float = 2.0) -> Silence:
    """Runs one command on a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"}
    words = [sys.executable, "-m", "edgeres", *shlex.split(command)]
    began = last = time.monotonic()
    longest, shown, after, times_over = 0.0, b"", b"", 0
    with subprocess.Popen(
        words, cwd=folder, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        is_open = True
        while is_open:
            select.select([ours], [], [])
            try:
                chunk = os.read(ours, 65536)
            # Linux ends a terminal whose other side has closed with an error.
            except OSError:
                chunk = b""
            now = time.monotonic()
            times_over += now - last > over_s
            if now - last > longest:
                longest, after = now - last, shown
            last, is_open = now, bool(chunk)
            shown = (shown + chunk)[-2000:]
        code = process.wait()
    os.close(ours)
    lines = _CONTROL.sub(b"\n", after).decode(errors="replace").split("\n")
    return Silence(
        command=command,
        exit_code=code,
        seconds=time.monotonic() - began,
        longest_s=longest,
        after=next((line.strip() for line in reversed(lines) if line.strip()), ""),
        times_over=times_over,
    )


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Measures how long each command of the path writes nothing to a terminal.

Each command runs with a pseudo-terminal as stderr and stdout. The figure is the longest time
between two outputs, from its start to its end, with what stood on the terminal then: a stage
without a bar, or a bar whose steps are long.

Example:
  python -m benchmarks.silence --folder build/ 'export resnet50 -o r50.onnx' 'inspect r50.onnx'
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


def main() -> int:
    """Runs the commands one after the other and prints a line for each."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.silence", description=__doc__.splitlines()[0]
    )
    parser.add_argument("commands", nargs="+", help="words after 'edgeres', quoted as one")
    parser.add_argument("--folder", type=Path, default=Path(), help="where they run")
    parser.add_argument("--json", action="store_true", help="print one JSON object a command")
    options = parser.parse_args()
    longest = 0.0
    for command in options.commands:
        one = silence(command, options.folder)
        longest = max(longest, one.longest_s)
        line = (
            f"{one.longest_s:6.2f} s silent of {one.seconds:6.1f}, exit {one.exit_code}: "
            f"{command}\n{'':17}after: {one.after}"
        )
        print(json.dumps(asdict(one)) if options.json else line, flush=True)
    print(f"longest: {longest:.2f} s", file=sys.stderr)
    return 0


def silence(command: str, folder: Path) -> Silence:
    """Runs one command on a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"}
    words = [sys.executable, "-m", "edgeres", *shlex.split(command)]
    began = last = time.monotonic()
    longest, shown, after = 0.0, b"", b""
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
    )


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Measures the README's results table, with the commands that a user would type.

Takes real trained networks and labelled images from a folder with the layout of its README
(--shared), carries each network through export, calibrate, build-engine and bench, and prints
one Markdown table and, with --json, every verdict with its environment. Latency is the ratio of
medians of engine and reference, timed interleaved in one run.

Example:
  python -m benchmarks.results --shared ../shared --json results.json
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A network with its data, as paths below the shared folder."""

    name: str
    export: str
    """Arguments of `edgeres export`; `{shared}` stands for the folder."""
    calibration: str
    validation: str


CASES = (
    Case(
        name="resnet20",
        export="resnet20 --weights {shared}/data/cifar10-resnets/resnet20-12fca82f.th "
        "--preset cifar-imagenet-norm",
        calibration="data/cifar10/calib1000.npz",
        validation="data/cifar10/test.npz",
    ),
    Case(
        name="resnet32",
        export="resnet32 --weights {shared}/data/cifar10-resnets/resnet32-d509ac18.th "
        "--preset cifar-imagenet-norm",
        calibration="data/cifar10/calib1000.npz",
        validation="data/cifar10/test.npz",
    ),
    Case(
        name="resnet50_v1",
        export="resnet50_v1 --weights {shared}/data/resnet50-imagenet/resnet50_v1_keras_fp16.pt "
        "--preset imagenet-caffe --bn-eps 1e-3 --resize none",
        calibration="data/imagenet/calib500",
        validation="data/imagenet/val1300",
    ),
)


def main() -> int:
    """Runs every case and prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.results", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--shared", type=Path, required=True, help="folder that holds data/")
    parser.add_argument("--case", action="append", choices=[c.name for c in CASES])
    parser.add_argument("--json", type=Path, help="where to write every verdict")
    options = parser.parse_args()
    wanted = [case for case in CASES if not options.case or case.name in options.case]
    verdicts: dict[str, Any] = {}
    print("| network | engine | correct | top-1, 95 % interval | latency |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for case in wanted:
            for engine, verdict in verdicts_of(case, options.shared.resolve(), Path(folder)):
                verdicts[f"{case.name} {engine}"] = verdict
                print(row(case.name, engine, verdict), flush=True)
    if options.json:
        options.json.write_text(json.dumps(verdicts, indent=1) + "\n", encoding="utf-8")
    return 0


def verdicts_of(case: Case, shared: Path, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each engine of a case by its title, with its verdict."""
    model, table, engine = (folder / f"{case.name}.{end}" for end in ("onnx", "json", "int8"))
    validation = f"--reference {model} --data {shared / case.validation} --json"
    edgeres(f"export {case.export.format(shared=shared)} -o {model}")
    edgeres(f"calibrate {model} --data {shared / case.calibration} -o {table}")
    edgeres(f"build-engine {model} --calibration {table} -o {engine}")
    yield "CPU, INT8", json.loads(edgeres(f"bench {engine} {validation}"))
    yield (
        "TensorRT placement, simulated",
        json.loads(edgeres(f"bench {table} --simulate {validation}")),
    )


def edgeres(arguments: str) -> str:
    """Runs a command and returns what it printed; a failure ends the run with its message."""
    command = [sys.executable, "-m", "edgeres", *shlex.split(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"edgeres {arguments}\n{done.stderr}")
    return done.stdout


def row(name: str, engine: str, verdict: dict[str, Any]) -> str:
    """Returns one line of the table."""
    accuracy, latency = verdict["accuracy"], verdict["latency"]
    low, high = accuracy["ci95_pp"]
    counts = f"{accuracy['engine']['correct']}, FP32 {accuracy['reference']['correct']}"
    speed = "" if latency is None else f"{latency['speedup']:.2f} times as fast"
    return (
        f"| {name} | {engine} | {counts} of {accuracy['samples']} | "
        # The verdict has the drop; its sign and the interval's ends are turned around.
        f"{-accuracy['drop_pp']:+.2f} pp, {-high:+.2f} to {-low:+.2f} | {speed} |"
    )


if __name__ == "__main__":
    sys.exit(main())

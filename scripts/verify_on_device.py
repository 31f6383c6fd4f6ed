#!/usr/bin/env python3
"""Checks on a board what no machine without one can, and writes one report to send in.

Builds engines of the embedded digits' network and of a ResNet-50 with TensorRT, and compares
each with its simulation on the CPU: logits and accuracy, precision layer by layer, latency in every
timing mode and against trtexec, memory over many inferences, several streams, and the primary
context that torch uses too. A step that lacks its hardware or package is skipped with what
it lacks, so the script runs anywhere.

Writes REPORT.json and, with the same content to read, REPORT.txt. Exit code 1 where a step failed.

Example:
  python scripts/verify_on_device.py -o report.json
  python scripts/verify_on_device.py --onnx resnet50.onnx --data val/ -o report.json
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from device_bench import Bench, FailureError, Figures, LackError, Options, lacks
from device_steps import steps

from edgeres.errors import EdgeresError
from edgeres.machine import describe_machine
from edgeres.machine.cuda import CudaDevice, find_cuda_device
from edgeres.serialization import save_json, to_json


def main() -> int:
    """Runs every step and writes the report."""
    given = parsed()
    with tempfile.TemporaryDirectory(prefix="edgeres-") as folder:
        options = Options(
            folder=Path(folder),
            networks=tuple(given.network or ("digits", "resnet50")),
            onnx=given.onnx,
            data=given.data,
            target=given.target,
            inferences=given.inferences,
            images=given.images,
        )
        report = verify(options, log=lambda line: print(line, file=sys.stderr, flush=True))
    save_json(given.output, report)
    given.output.with_suffix(".txt").write_text(text_of(report), encoding="utf-8")
    print(text_of(report), end="")
    return 1 if any(step["status"] == "failed" for step in report["steps"]) else 0


def parsed() -> argparse.Namespace:
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("report.json"))
    parser.add_argument("--network", action="append", choices=["digits", "resnet50"])
    parser.add_argument("--onnx", type=Path, help="ResNet-50 to use [random weights]")
    parser.add_argument("--data", type=Path, help="labelled images for it [random ones]")
    targets = ["tensorrt", "tensorrt-rtx"]
    parser.add_argument("--target", choices=targets, default="tensorrt")
    parser.add_argument("--inferences", type=int, default=10_000, help="of the leak test")
    parser.add_argument("--images", type=int, default=64, help="that ResNet-50 is evaluated on")
    return parser.parse_args()


def verify(options: Options, log: Callable[[str], None]) -> Figures:
    """Returns the report: the machine, and every step with its status and figures."""
    bench = Bench(options=options, lacks=lacks(options.target))
    done = []
    for name, run in steps(options):
        log(name)
        done.append({"name": name, **outcome(run, bench)})
    device = find_cuda_device()
    return {
        "schema_version": 1,
        "kind": "edgeres-device-report",
        "machine": to_json(describe_machine()),
        "device": to_json(device) if isinstance(device, CudaDevice) else None,
        "lacks": dict(bench.lacks),
        "steps": done,
    }


def outcome(run: Callable[[Bench], Figures], bench: Bench) -> Figures:
    """Returns status and figures of one step; nothing that it raises ends the run."""
    start = time.perf_counter()
    try:
        result: Figures = {"status": "passed", "figures": run(bench)}
    except LackError as lack:
        result = {"status": "skipped", "reason": str(lack)}
    except FailureError as failure:
        result = {"status": "failed", "reason": str(failure), "figures": failure.figures}
    except EdgeresError as error:
        result = {"status": "failed", "reason": str(error)}
    except Exception:  # a report from a board must have what nobody expected
        result = {"status": "failed", "reason": traceback.format_exc()}
    return {**result, "seconds": round(time.perf_counter() - start, 2)}


def text_of(report: Figures) -> str:
    """Returns the report to read: a line for each step, and what is lacking."""
    device = report["device"]
    lines = [f"device: {device['name'] if device else 'none'}"]
    lines += [f"lacks {thing}: {reason}" for thing, reason in report["lacks"].items()]
    for step in report["steps"]:
        detail = step.get("reason") or ", ".join(f"{k} {v}" for k, v in step["figures"].items())
        lines.append(f"{step['status']:8}{step['name']}: {detail}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

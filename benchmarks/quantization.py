#!/usr/bin/env python3
"""Measures calibration and INT8: accuracy, cost, memory, latency, and the worst method.

Takes real trained networks and labelled images from a folder with the layout of its README
(--shared). Every choice is made on calibration images; validation images only count. Times are
ratios within one interleaved run. Other quantizers are compared where --peer names them: each is installed into an environment of its own, once.

Example:
  python -m benchmarks.quantization --shared ../shared --json quantization.json
  python -m benchmarks.quantization --shared ../shared --part cost --part memory
  python -m benchmarks.quantization --shared ../shared --part peers --peer nncf --peer openvino
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.corrections import corrections
from benchmarks.peer_quantizers import TOOLS, Stored
from benchmarks.peers import OWN, Limits, peer_rows
from benchmarks.results import CASES, Case, edgeres
from benchmarks.unseen import unseen
from edgeres.calibration.calibrate import calibrate
from edgeres.core.methods import Method
from edgeres.core.requests import CalibrationRequest
from edgeres.images import batches, load_dataset, select
from edgeres.machine import describe_machine
from edgeres.onnx_file import load_onnx
from edgeres.serialization import to_json
from edgeres.session import open_session, run_session

ROUNDS = 3
"""Repetitions of each side of a timed comparison; the fastest of each counts."""

BATCH_SIZES = (1, 2, 4, 8, 16)
METHODS = [method.value for method in Method]
RECOVERIES = ("none", "bias", "adaround")

Row = dict[str, Any]


Part = Callable[[dict[Case, Path], Path], Iterator[Row]]


def main() -> int:
    """Runs the requested parts and prints a table for each."""
    parser = arguments()
    options = parser.parse_args()
    if options.part and ("peers" in options.part) != bool(options.peer):
        parser.error("--part peers needs --peer, and --peer needs --part peers or no --part")
    cases = [case for case in CASES if not options.case or case.name in options.case]
    results: dict[str, Any] = {"environment": environment()}
    with tempfile.TemporaryDirectory() as folder:
        models = exported(cases, options.shared.resolve(), Path(folder))
        for name, part in parts_of(options).items():
            results[name] = list(part(models, options.shared.resolve()))
            show(name, results[name])
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def arguments() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quantization", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--shared", type=Path, required=True, help="folder that holds data/")
    parser.add_argument(
        "--part", action="append", choices=[*PARTS, "peers"], help="default: all, peers if named"
    )
    parser.add_argument("--case", action="append", choices=[c.name for c in CASES])
    parser.add_argument("--json", type=Path, help="where to write every row")
    peers = parser.add_argument_group("peers")
    names = [name for name in TOOLS if name != OWN]
    peers.add_argument("--peer", action="append", choices=names, help="quantizer to compare with")
    peers.add_argument("--samples", type=int, default=512, help="calibration images (512)")
    peers.add_argument(
        "--memory-gib", type=float, default=8, help="what a quantizer may allocate (8)"
    )
    return parser


def parts_of(options: argparse.Namespace) -> dict[str, Part]:
    """Returns the parts to run, in their order."""
    limits = Limits(samples=options.samples, memory_gib=options.memory_gib)
    peers = partial(peer_rows, peers=options.peer or (), limits=limits)
    known: dict[str, Part] = {**PARTS, "peers": peers}
    names = options.part or [*PARTS, *(["peers"] if options.peer else [])]
    return {name: known[name] for name in names}


def environment() -> Row:
    """Returns the machine and the versions that the figures depend on."""
    packages = ("edgeres", "onnx", "onnxruntime", "numpy")
    return {
        **to_json(describe_machine()),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def exported(cases: list[Case], shared: Path, folder: Path) -> dict[Case, Path]:
    """Exports every case's network and returns its ONNX file."""
    models = {case: folder / f"{case.name}.onnx" for case in cases}
    for case, model in models.items():
        edgeres(f"export {case.export.format(shared=shared)} -o {model}")
    return models


def accuracy(models: dict[Case, Path], shared: Path) -> Iterator[Row]:
    """Yields what method auto and each recovery keep of the accuracy, in both lowerings."""
    for case, model in models.items():
        for recovery in RECOVERIES:
            table = model.with_suffix(f".{recovery}.json")
            begin = time.perf_counter()
            edgeres(
                f"calibrate {model} --data {shared / case.calibration} --method auto "
                f"--recover {recovery} -o {table}"
            )
            seconds = time.perf_counter() - begin
            yield {
                "network": case.name,
                "recovery": recovery,
                "seconds": round(seconds, 1),
                **count_correct(model, table, "auto", shared / case.validation),
            }


def worst(models: dict[Case, Path], shared: Path) -> Iterator[Row]:
    """Yields the accuracy of every method on every network: none may collapse."""
    for case, model in models.items():
        table = model.with_suffix(".worst.json")
        edgeres(f"calibrate {model} --data {shared / case.calibration} --method auto -o {table}")
        for method in METHODS:
            row = count_correct(model, table, method, shared / case.validation)
            yield {"network": case.name, "method": method, **row}


def count_correct(model: Path, table: Path, method: str, data: Path) -> Row:
    """Returns how many images FP32 and each lowering of a table classify correctly."""
    chosen = table.with_suffix(f".{method}.json")
    raw = json.loads(table.read_text(encoding="utf-8"))
    chosen.write_text(json.dumps({**raw, "method": method}), encoding="utf-8")
    engine = table.with_suffix(".int8")
    edgeres(f"build-engine {model} --calibration {chosen} -o {engine}")
    bench = f"--reference {model} --data {data} --json"
    cpu = json.loads(edgeres(f"bench {engine} {bench} --iterations 20"))["accuracy"]
    simulated = json.loads(edgeres(f"bench {chosen} --simulate {bench}"))["accuracy"]
    return {
        "fp32": cpu["reference"]["correct"],
        "cpu": cpu["engine"]["correct"],
        "tensorrt": simulated["engine"]["correct"],
        "samples": cpu["samples"],
    }


def cost(models: dict[Case, Path], shared: Path) -> Iterator[Row]:
    """Yields the time of calibration by all methods over that of plain FP32 inference."""
    for case, path in models.items():
        model = load_onnx(path)
        contract = model.artifact.contract
        assert contract is not None
        dataset = select(load_dataset(shared / case.calibration, labelled=False), 512, 0)
        stored = [
            Stored(batch.images, batch.hashes)
            for batch in batches(dataset, contract, batch_size=CalibrationRequest().batch_size)
        ]
        images = np.concatenate([part.images for part in stored])
        session = open_session(path)
        best = min(
            BATCH_SIZES, key=lambda size: inference_time(session, model.artifact, images[:64], size)
        )
        plain, calibrated = [], []
        for _ in range(ROUNDS):
            plain.append(inference_time(session, model.artifact, images, best))
            begin = time.perf_counter()
            calibrate(model, stored, CalibrationRequest(), contract=contract, data="memory")
            calibrated.append(time.perf_counter() - begin)
        yield {
            "network": case.name,
            "images": len(images),
            "plain_batch": best,
            "plain_seconds": round(min(plain), 2),
            "calibrate_seconds": round(min(calibrated), 2),
            "ratio": round(min(calibrated) / min(plain), 3),
        }


def inference_time(session: Any, model: Any, images: NDArray[np.float32], size: int) -> float:
    """Returns the seconds that a session takes for all images at a batch size."""
    begin = time.perf_counter()
    for start in range(0, len(images), size):
        run_session(session, [model.output.name], {model.input.name: images[start : start + size]})
    return time.perf_counter() - begin


def search(models: dict[Case, Path], shared: Path) -> Iterator[Row]:
    """Yields what the whole command `calibrate --method auto` costs, beside plain FP32 inference.

    Time of the processor, start-up and decoding included, over that of inference alone on as many
    images: the machine may be in use meanwhile.
    """
    for case, path in models.items():
        model = load_onnx(path)
        contract = model.artifact.contract
        assert contract is not None
        dataset = select(load_dataset(shared / case.calibration, labelled=False), 512, 0)
        images = np.concatenate([b.images for b in batches(dataset, contract, batch_size=8)])
        session = open_session(path, threads=1)
        inference_time(session, model.artifact, images[:16], 1)
        begin = time.process_time()
        inference_time(session, model.artifact, images, 1)
        plain = time.process_time() - begin
        for method in ("mse", "auto"):
            table = path.with_suffix(".search.json")
            data = shared / case.calibration
            command = f"calibrate {path} --data {data} --method {method} -o {table}"
            peak, seconds = usage(["-m", "edgeres", *command.split()])
            yield {
                "network": case.name,
                "method": method,
                "images": len(images),
                "plain_cpu_seconds": round(plain, 1),
                "cpu_seconds": round(seconds, 1),
                "ratio": round(seconds / plain, 2),
                "peak_mib": peak,
            }


def memory(models: dict[Case, Path], shared: Path) -> Iterator[Row]:
    """Yields the peak memory of calibrate beyond that of a process with a loaded session."""
    for case, model in models.items():
        if not (shared / case.calibration).is_dir():
            continue
        loaded = peak_mib(["-c", LOADED, str(model)])
        for times in (1, 10):
            with tempfile.TemporaryDirectory() as folder:
                images = repeated(shared / case.calibration / "images", Path(folder), times)
                command = f"calibrate {model} --data {folder} --samples {images} -o {folder}/t.json"
                peak = peak_mib(["-m", "edgeres", *command.split()])
            yield {
                "network": case.name,
                "images": images,
                "session_mib": loaded,
                "calibrate_mib": peak,
                "beyond_mib": peak - loaded,
            }


LOADED = """
import sys
from pathlib import Path
import numpy, onnx
from edgeres.session import open_session, run_session
session = open_session(Path(sys.argv[1]))
source, target = session.get_inputs()[0], session.get_outputs()[0].name
images = numpy.zeros((4, *source.shape[1:]), numpy.float32)
run_session(session, [target], {source.name: images})
"""


def repeated(images: Path, folder: Path, times: int) -> int:
    """Links every image `times` over into one class folder and returns how many there are."""
    inside = folder / "all"
    inside.mkdir()
    for path in sorted(images.iterdir()):
        for copy in range(times):
            (inside / f"{copy}_{path.name}").symlink_to(path.resolve())
    return len(list(inside.iterdir()))


def peak_mib(arguments: list[str]) -> int:
    """Returns the largest resident size of a Python process, in MiB."""
    return usage(arguments)[0]


def usage(arguments: list[str]) -> tuple[int, float]:
    """Returns the largest resident size of a Python process, in MiB, and its processor's seconds."""
    command = [sys.executable, "-c", PEAK, sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{arguments} ended with {done.returncode}: {done.stderr}")
    peak, seconds = done.stdout.split()
    return int(peak), float(seconds)


PEAK = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_maxrss // 1024, used.ru_utime + used.ru_stime)
sys.exit(code)
"""
"""A small process between: what is counted for a child begins with what its parent holds."""


def latency(models: dict[Case, Path], shared: Path) -> Iterator[Row]:
    """Yields the median latency at batch 1 of the CPU's INT8 engine and of FP32, interleaved."""
    for case, model in models.items():
        table, engine = model.with_suffix(".json"), model.with_suffix(".int8")
        edgeres(f"calibrate {model} --data {shared / case.calibration} -o {table}")
        edgeres(f"build-engine {model} --calibration {table} -o {engine}")
        verdict = json.loads(
            edgeres(
                f"bench {engine} --reference {model} --data {shared / case.validation} "
                "--samples 50 --json"
            )
        )["latency"]
        yield {
            "network": case.name,
            "int8_ms": round(verdict["engine"]["p50_ms"], 3),
            "fp32_ms": round(verdict["reference"]["p50_ms"], 3),
            "speedup": round(verdict["speedup"], 2),
        }


PARTS: dict[str, Part] = {
    "accuracy": accuracy,
    "corrections": corrections,
    "unseen": unseen,
    "worst": worst,
    "cost": cost,
    "search": search,
    "memory": memory,
    "latency": latency,
}


def show(part: str, rows: list[Row]) -> None:
    """Prints a part as a Markdown table; versions are for the JSON."""
    print(f"\n{part}\n")
    if not rows:
        return
    names = [name for name in rows[0] if name != "versions"]
    print("| " + " | ".join(names) + " |")
    print("|" + " --- |" * len(names))
    for row in rows:
        print("| " + " | ".join(str(row[name]) for name in names) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())

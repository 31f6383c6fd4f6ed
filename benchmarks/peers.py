"""Other quantizers on the same model and images: cost, accuracy and latency.

Each works in an environment of its own, created once and kept, as a child running
peer_quantizers.py. What cannot be installed or fails becomes a row with the reason.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peer_networks import (
    LIMIT_S,
    THREADS,
    PeerError,
    PeerNetwork,
    Served,
    SessionNetwork,
    interleaved,
    last_words,
)
from benchmarks.peer_quantizers import TOOLS, Images
from benchmarks.results import Case
from edgeres.core.contract import Contract
from edgeres.errors import EdgeresError
from edgeres.images import Dataset, batches, check_labels, load_dataset, select
from edgeres.onnx_file import load_onnx
from edgeres.statistics import percentiles

SCRIPT = Path(__file__).with_name("peer_quantizers.py")

OWN = "edgeres"
"""The tool that runs in this environment."""

FLOAT = ("FP32", "")
"""Takes the place of tool and variant in the row to compare with."""

PINNED: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime==1.32.0 onnx==1.23.2",),
    "modelopt": (
        "torch==2.13.0 onnxruntime==1.24.* onnx==1.21.* onnx-graphsurgeon onnxconverter-common "
        "onnxscript onnxslim polygraphy cppimport lief ml_dtypes ninja nvidia-ml-py omegaconf "
        "packaging pulp<4 pydantic PyYAML regex rich safetensors scipy setuptools>=80 tqdm",
        # Its own list asks for GPU builds of ONNX Runtime and CuPy.
        "--no-deps nvidia-modelopt==0.47.0",
    ),
    "nncf": ("nncf==3.4.0 onnxruntime==1.32.0 onnx==1.23.2",),
    "openvino": ("openvino==2026.4.1 nncf==3.4.0",),
}
"""What pip installs into each peer's environment, one call after the other; CPU builds only."""

Row = dict[str, Any]

COLUMNS = (
    *("tool", "variant", "images", "seconds", "peak_mib", "beyond_mib", "right"),
    *("samples", "p10_ms", "p50_ms", "speedup", "note", "versions"),
)
"""Of every row, after the network; what an attempt lacks stays empty."""


@dataclass(frozen=True)
class Limits:
    """What a quantizer gets."""

    samples: int
    """Calibration images."""
    memory_gib: float
    """What it may allocate."""


@dataclass(frozen=True)
class Work:
    """One trained network with its images, ready for any tool."""

    model: Path
    """FP32."""
    calibration: Path
    """`.npy`, preprocessed, in the order in which edgeres samples them."""
    validation: Path
    labels: NDArray[np.int64]
    folder: Path
    limits: Limits

    @property
    def first(self) -> Images:
        """The image that is timed, (1, 3, H, W)."""
        stored: Images = np.load(self.validation, mmap_mode="r")
        return stored[:1].copy()

    def count_correct(self, network: PeerNetwork) -> int:
        """Returns how many validation images a network classifies correctly."""
        return int((network.classes(self.validation) == self.labels).sum())


@dataclass(frozen=True)
class Attempt:
    """The outcome of a tool's variant; without a network its row has the reason."""

    row: Row
    network: PeerNetwork | None

    def close(self) -> None:
        """Ends what the network started."""
        if self.network is not None:
            self.network.close()


def peer_rows(
    models: Mapping[Case, Path], shared: Path, *, peers: Sequence[str], limits: Limits
) -> Iterator[Row]:
    """Yields a row for FP32, edgeres and every variant of the peers on every network."""
    pythons, refused = environments(peers, cache_folder())
    for case, path in models.items():
        with tempfile.TemporaryDirectory() as folder:
            work = prepared(case, path, shared, limits, Path(folder))
            rows = (*compared(work, pythons), *refused)
            blank = {"network": case.name, **dict.fromkeys(COLUMNS, "")}
            yield from ({**blank, **row} for row in rows)


def prepared(case: Case, path: Path, shared: Path, limits: Limits, folder: Path) -> Work:
    """Writes a case's images as every tool reads them: decoded once, preprocessed, in one file."""
    model = load_onnx(path).artifact
    assert model.contract is not None
    drawn = load_dataset(shared / case.calibration, labelled=False)
    validation = load_dataset(shared / case.validation)
    check_labels(validation, len(model.classes) or (model.output.shape[1] or 0))
    assert validation.labels is not None
    return Work(
        model=path,
        calibration=stored(
            select(drawn, limits.samples, 0), model.contract, folder / "calibration.npy"
        ),
        validation=stored(validation, model.contract, folder / "validation.npy"),
        labels=validation.labels,
        folder=folder,
        limits=limits,
    )


def stored(dataset: Dataset, contract: Contract, path: Path) -> Path:
    """Writes a data set's preprocessed images, (N, 3, size, size) float32, without holding them."""
    shape = (len(dataset), *contract.shape)
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    for batch in batches(dataset, contract, batch_size=16):
        images[batch.indices] = batch.images
    images.flush()
    return path


def compared(work: Work, pythons: Mapping[str, Path]) -> Iterator[Row]:
    """Yields the row of FP32 and of every tool's variants, with interleaved latencies."""
    with ExitStack() as stack:
        attempts = {FLOAT: evaluated(work, {}, SessionNetwork(work.model, work.first))}
        for tool, python in pythons.items():
            for variant in TOOLS[tool].variants:
                print(f"{work.model.stem}: {tool} {variant}", file=sys.stderr, flush=True)
                attempts[tool, variant] = attempted(work, tool, variant, python)
                stack.callback(attempts[tool, variant].close)
        yield from timed(attempts)


def attempted(work: Work, tool: str, variant: str, python: Path) -> Attempt:
    """Quantizes with one tool and evaluates the result; a failure is an attempt with its reason."""
    try:
        return evaluated(work, *quantized(work, tool, variant, python))
    except (PeerError, EdgeresError) as error:
        return Attempt({"note": last_words(str(error))}, None)


def evaluated(work: Work, row: Row, network: PeerNetwork) -> Attempt:
    """Returns a network's attempt, with its accuracy added to the row."""
    accuracy = {"right": work.count_correct(network), "samples": len(work.labels)}
    return Attempt({**row, **accuracy}, network)


def quantized(work: Work, tool: str, variant: str, python: Path) -> tuple[Row, PeerNetwork]:
    """Runs a tool and returns what it cost and the network that it wrote, loaded.

    Raises:
        PeerError: the tool or OpenVINO failed.
        RunnerError: ONNX Runtime refused what the tool wrote.
    """
    # -I: neither PYTHONPATH nor the user's own packages reach into a peer's environment.
    script = [python, *([] if tool == OWN else ["-I"]), SCRIPT]
    output = work.folder / f"{tool} {variant}{TOOLS[tool].suffix}"
    files = ["--model", work.model, "--images", work.calibration, "-o", output]
    limit = ["--memory-gib", work.limits.memory_gib]
    cost = json.loads(ran([*script, "quantize", tool, variant, *files, *limit]))
    versions = ", ".join(f"{name} {number}" for name, number in cost["versions"].items())
    row = {**cost, "versions": versions}
    if output.suffix == ".onnx":
        return row, SessionNetwork(output, work.first)
    served = [*script, "serve", output, "--images", work.validation, "--threads", THREADS]
    return row, Served([str(word) for word in served])


def timed(attempts: Mapping[tuple[str, str], Attempt]) -> Iterator[Row]:
    """Yields every attempt's row with its network's latency; the speed-up is that of medians.

    The tenth percentile is beside the median because other work on the machine moves it less.
    """
    networks = {" ".join(key): a.network for key, a in attempts.items() if a.network is not None}
    samples, failures = interleaved(networks)
    latencies = {name: percentiles(ms, (10, 50)) for name, ms in samples.items()}
    for (tool, variant), attempt in attempts.items():
        name = f"{tool} {variant}"
        row = {"tool": tool, "variant": variant, **attempt.row}
        if name in failures:
            row["note"] = failures[name]
        if name in latencies:
            row["p10_ms"], row["p50_ms"] = (round(ms, 3) for ms in latencies[name])
            row["speedup"] = round(latencies[" ".join(FLOAT)][1] / latencies[name][1], 2)
        yield row


def environments(peers: Sequence[str], cache: Path) -> tuple[dict[str, Path], list[Row]]:
    """Returns the interpreter of edgeres and of each peer, and a row for each without one."""
    pythons_or_errors = {tool: environment_of(tool, cache) for tool in peers}
    pythons = {
        tool: python for tool, python in pythons_or_errors.items() if isinstance(python, Path)
    }
    refused = [
        {"tool": tool, "note": f"not installed: {error}"}
        for tool, error in pythons_or_errors.items()
        if isinstance(error, PeerError)
    ]
    return {OWN: Path(sys.executable), **pythons}, refused


def environment_of(tool: str, cache: Path) -> Path | PeerError:
    """Returns the Python of a peer's environment, made the first time and kept, or why not.

    An unfinished one is made anew the next time.
    """
    folder = cache / tool
    python, stamp = folder / "bin" / "python", folder / "installed.json"
    wanted = json.dumps({"python": platform.python_version(), "packages": PINNED[tool]})
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"installing {tool} into {folder}", file=sys.stderr, flush=True)
    try:
        ran([sys.executable, "-m", "venv", "--clear", folder])
        for words in PINNED[tool]:
            ran([python, "-m", "pip", "install", "--quiet", *words.split()])
    except PeerError as error:
        return error
    stamp.write_text(wanted, encoding="utf-8")
    return python


def cache_folder() -> Path:
    """Source: XDG Base Directory Specification; a relative path is to be ignored."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "edgeres" / "peers"


def ran(command: Sequence[object]) -> str:
    """Returns what a command printed.

    Raises:
        PeerError: it failed or took longer than `LIMIT_S`; the message ends with its last line.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"took more than {LIMIT_S} s") from error
    if done.returncode:
        raise PeerError(f"ended with {done.returncode}: {last_words(done.stderr)}")
    return done.stdout

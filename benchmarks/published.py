"""Rows of ResNet latency that others published, as workloads of the latency model.

Source: each row of `published_latency.csv` names its own.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeres.estimation.arithmetic import GENERATIONS, Arithmetic, default_fp32
from edgeres.estimation.kernels import Kernel, KernelKind, fused_kernels
from edgeres.estimation.model import EstimatedTiming, Load, Workload, arithmetic_of, workload
from edgeres.machine.boards import Board, find_board
from edgeres.networks.explain import network_from_spec
from edgeres.networks.outline import outline
from edgeres.networks.registry import ARCHITECTURES
from edgeres.quantization.graph import view
from edgeres.quantization.qdq.placement import place_for_tensorrt

FILE = Path(__file__).with_name("published_latency.csv")

_BOARDS: Mapping[str, tuple[str, str | None]] = {
    "T4": ("t4", None),
    "A10": ("a10", None),
    "A30": ("a30", None),
    "A100-PCIe-40GB": ("a100-pcie-40gb", None),
    "A100-PCIe-80GB": ("a100-pcie-80gb", None),
    "A100-SXM-80GB": ("a100-sxm-80gb", None),
    "A100": ("a100-sxm-80gb", None),
    "L4": ("l4", None),
    "H100-PCIe": ("h100-pcie", None),
    "H100-SXM": ("h100-sxm", None),
    "V100": ("v100-sxm", None),
    "AGX Orin 64 (devkit 32GB)": ("agx-orin-64", "MAXN"),
    "Xavier NX": ("xavier-nx", "15W"),
    "AGX Xavier 32GB": ("agx-xavier", "MAXN"),
    "AGX Xavier": ("agx-xavier", "MAXN"),
    "Jetson Nano 4GB": ("nano", "MAXN"),
    "Jetson Nano 2GB": ("nano", "MAXN"),
    "Jetson TX2": ("tx2", "MAXN"),
}

_MEMORY_MHZ = {"agx-orin-64": 3199, "agx-xavier": 2133, "xavier-nx": 1600}
"""Clock of the memory at which a board has its highest bandwidth, in those modes."""

_TIMINGS = (
    ("SingleStream", EstimatedTiming.SINGLE_STREAM),
    ("MultiStream", EstimatedTiming.SINGLE_STREAM),
    ("ffline", EstimatedTiming.OFFLINE),
    ("python loop", EstimatedTiming.LOOP),
    ("predictor.run", EstimatedTiming.LOOP),
    ("torch2trt", EstimatedTiming.LOOP),
    ("mean of 100", EstimatedTiming.LOOP),
    ("elapsed per batch", EstimatedTiming.LOOP),
    ("--useCudaGraph", EstimatedTiming.COMPUTE),
    ("same, ", EstimatedTiming.COMPUTE),
    ("trtexec, GPU compute", EstimatedTiming.COMPUTE),
)

_COMPARABLE = ("LoadGen", "NVIDIA config", "python loop", "trtexec", "same, ")
"""Beginnings of definitions of a timing that state what it covers and how it was taken."""

_ARCHITECTURES = {
    "resnet50 v1.5": "resnet50",
    "resnet50 (caffe)": "resnet50_v1",
    "resnet50 v1 (TF)": "resnet50_v1",
    "resnet101 v1 (TF)": "resnet101_v1",
}

_RECENT = 8.2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """One published latency."""

    number: int
    """In the file, counted from 1."""
    architecture: str
    precision: str
    """As published, FP32 and TF32 alike being `fp32`."""
    workload: Workload
    latency_ms: float
    """Of one batch; 0 where DLAs worked too."""
    offline_per_s: float
    """Images a second of an offline run; 0 for the others."""
    tensorrt: float
    """Version; 0 where none is stated."""
    is_tensorrt: bool
    is_comparable: bool
    is_custom: bool
    """Whether the clocks are none of a named power mode."""
    uses_dla: bool
    operations: NDArray[np.float64]
    rates: NDArray[np.float64]
    """Operations of a multiprocessor in a clock, by kernel."""
    tiles: NDArray[np.float64]
    """Tiles of 128 x 128, by kernel."""

    @property
    def is_recent(self) -> bool:
        """Whether TensorRT was 8.2 or later."""
        return self.tensorrt >= _RECENT

    @property
    def is_xavier(self) -> bool:
        """Whether the board is a Xavier, of which no recent rows are public."""
        return self.workload.board.compute_capability == "7.2"

    @property
    def card(self) -> str:
        """The board under all its names, which are left out together."""
        return self.workload.board.name

    @property
    def group(self) -> tuple[str, str, str]:
        """Board, timing and precision."""
        return (self.card, str(self.workload.load.timing), str(self.workload.load.arithmetic))


@functools.cache
def published_rows() -> tuple[Row, ...]:
    """Returns the rows whose board, network, precision and timing are known."""
    with FILE.open(encoding="utf-8", newline="") as file:
        rows = (_row(fields) for fields in csv.DictReader(file))
        return tuple(row for row in rows if row is not None)


@functools.cache
def kernels_of(architecture: str) -> tuple[Kernel, ...] | None:
    """Returns the fused kernels of an architecture as TensorRT quantizes it; None: not known."""
    spec = ARCHITECTURES.get(architecture)
    if match := re.fullmatch(r"resnext(\d+)_32x4d", architecture):
        spec = replace(ARCHITECTURES[f"resnet{match[1]}"], groups=32, width_per_group=4)
    if spec is None:
        return None
    graph = view(outline(network_from_spec(spec)))
    precisions = {layer.name: layer.precision for layer in place_for_tensorrt(graph).layers}
    return fused_kernels(graph, precisions)


def _row(fields: Mapping[str, str]) -> Row | None:
    definition, software = fields["timing_definition"], fields["software"]
    board = _board(fields["board"], fields["power_mode"])
    timing = next((timing for word, timing in _TIMINGS if word in definition), None)
    architecture = _ARCHITECTURES.get(fields["arch"], fields["arch"])
    kernels = kernels_of(architecture)
    uses_dla = "DLA (not GPU alone)" in definition
    batch = 64 if uses_dla else _batch(fields["batch"])
    if board is None or timing is None or kernels is None or batch is None:
        return None
    arithmetic = _arithmetic(fields["precision"], board)
    if arithmetic is None or not GENERATIONS[board.compute_capability].rate(arithmetic):
        return None
    per_s = float(fields["throughput_img_s"] or 0)
    published = float(fields["latency_ms"] or 0) or batch / per_s * 1e3
    load = Load(arithmetic=arithmetic, batch=batch, timing=timing)
    generation = GENERATIONS[board.compute_capability]
    return Row(
        number=int(fields["row"]),
        architecture=architecture,
        precision="fp32" if arithmetic is Arithmetic.TF32 else str(arithmetic),
        workload=workload(kernels, board, load),
        latency_ms=0.0 if uses_dla else published,
        offline_per_s=per_s if timing is EstimatedTiming.OFFLINE else 0.0,
        tensorrt=_version(software),
        is_tensorrt="NOT TensorRT" not in definition,
        is_comparable=definition.startswith(_COMPARABLE) and "defaults" not in definition,
        is_custom="custom" in fields["power_mode"],
        uses_dla=uses_dla,
        operations=np.array([2.0 * kernel.cost.macs * batch for kernel in kernels]),
        rates=np.array([float(generation.rate(arithmetic_of(each, load))) for each in kernels]),
        tiles=np.array([_tiles(each, batch) for each in kernels]),
    )


def _tiles(kernel: Kernel, batch: int) -> float:
    if kernel.kind not in {KernelKind.CONVOLUTION, KernelKind.CLASSIFIER}:
        return 0.0
    return float(
        np.ceil(batch * kernel.pixels / 128) * np.ceil(kernel.columns / 128) * kernel.groups
    )


def _board(name: str, power_mode: str) -> Board | None:
    if name not in _BOARDS:
        return None
    board = find_board(*_BOARDS[name])
    clocks = re.search(r"GPU ([\d.]+)MHz EMC (\d+)MHz", power_mode)
    if clocks is None:
        return board
    share = int(clocks[2]) / _MEMORY_MHZ[board.name]
    return replace(board, gpu_mhz=float(clocks[1]), memory_gbps=board.memory_gbps * share)


def _batch(text: str) -> int | None:
    # Of an offline run whose batch is not stated the throughput hardly depends on it.
    if text == "GPU only?":
        return 256
    match = re.fullmatch(r"(\d+)\??", text)
    return int(match[1]) if match else None


def _arithmetic(precision: str, board: Board) -> Arithmetic | None:
    if precision == "fp32":
        return default_fp32(board.compute_capability)
    names = {"tf32": Arithmetic.TF32, "fp16": Arithmetic.FP16, "int8": Arithmetic.INT8}
    return names.get(precision)


def _version(software: str) -> float:
    match = re.search(r"(?:TensorRT v?|TRT )(\d+\.\d+)", software)
    if match:
        return float(match[1])
    # The closed division of MLPerf v2.1 ran TensorRT 8.4 and 8.5.
    return 8.4 if "MLPerf v2.1" in software else 0.0

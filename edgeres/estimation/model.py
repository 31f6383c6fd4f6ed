"""The latency of fused kernels on a board: one kernel's arithmetic and memory, and a floor.

A convolution is a matrix product, (N Ho Wo, K) times (K, Cout), cut into tiles that the
multiprocessors take in waves. A tile lasts as long as its arithmetic or its loads from the L2
cache, whichever is longer; before Ampere, whose copies run beside the arithmetic, as long as both
together. The builder takes the fastest tile; where tiles are few, it splits K. A kernel
moreover waits for memory: activations that do not fit in the L2 cache, and the weights where all
of them do not. Both overlap, so the longer one dominates: t = (a^2 + b^2)^(1/2).

    latency = max(sum over kernels of t, energy / power limit) + kernels * floor + host

Source of the roofline: Williams et al. 2009; of tiles and waves: NVIDIA, "Matrix Multiplication
Background User's Guide". The constants are fitted to published rows by `benchmarks/latency.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeres.core.precision import Precision
from edgeres.estimation.arithmetic import GENERATIONS, Arithmetic, is_ampere_or_later
from edgeres.estimation.kernels import Kernel, KernelKind
from edgeres.machine.boards import Board
from edgeres.names import Name

_TILES = ((256, 128), (128, 128), (128, 64), (64, 64), (64, 32), (32, 32))
_SPLITS = (1, 2, 4, 8)
_SHAPES = np.array([(*tile, split) for tile in _TILES for split in _SPLITS], np.float64)
_ROWS, _COLUMNS, _SPLIT = (_SHAPES[:, [index]] for index in range(3))

_LEAST_DEPTH = 32
"""K of one step of a tensor core kernel's main loop."""

_PADDED_CHANNELS = 4
"""Channels that a first convolution's three are padded to. Source: NVIDIA TensorRT developer
guide, "Optimizing for Tensor Cores"."""

_OVERLAP = 2

Array = NDArray[np.float64]


class EstimatedTiming(Name):
    """What a latency covers."""

    COMPUTE = "compute"
    """The network alone as a CUDA graph, no copies: trtexec --useCudaGraph --noDataTransfers."""
    SINGLE_STREAM = "single-stream"
    """A query to its response with copies and the host's part, CUDA graph: MLPerf's LoadGen, its
    multi-stream scenario with a batch of 8."""
    OFFLINE = "offline"
    """The time between batches when the next one always waits: several streams overlap."""
    LOOP = "loop"
    """A framework's loop with copies, kernels launched one by one without a CUDA graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """The global constants of the model; none belongs to one board."""

    math_efficiency: float
    """Fraction of the dense peak that a tile's main loop reaches."""
    l2_bytes: float
    """Bytes that a multiprocessor reads from the L2 cache in a clock."""
    memory_efficiency: float
    """Fraction of the memory's bandwidth that a kernel reaches."""
    l2_share: float
    """Fraction of the L2 cache that keeps what the next kernel reads."""
    streams_gain: float
    """How much faster batches follow each other when several streams overlap."""
    energy_pj: float
    """Energy of an INT8 operation at 12 nm in pJ, all of the card's power included."""
    floor_cycles: float
    """Clocks of a kernel's start and end, before any arithmetic."""
    early_floor: float
    """Factor on it before Ampere."""
    host_soc_ms: float
    """The host's part of a query on a Jetson."""
    host_pcie_ms: float
    """The host's part beside a card."""
    pcie_gbps: float
    """10^9 bytes a second that a query's images are copied to a card at."""
    launch_us: float
    """What launching a kernel one by one takes longer than in a CUDA graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is estimated: precision, batch and timing."""

    arithmetic: Arithmetic
    """Of the kernels that the precision is requested for."""
    batch: int
    timing: EstimatedTiming


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Workload:
    """A network on a board as arrays, one entry a kernel: all that depends on no constant."""

    board: Board
    load: Load
    waves: Array
    """(shapes, kernels): waves of tiles."""
    math: Array
    """(shapes, kernels): clocks of a tile's arithmetic at the peak."""
    loads: Array
    """(shapes, kernels): bytes that a tile loads."""
    reduced: Array
    """(shapes, 1): bytes that partial sums of a split K add."""
    multiplies: NDArray[np.bool_]
    """(kernels,): whether it is a matrix product."""
    activations: Array
    """(kernels,): bytes read and written."""
    weights: Array
    """(kernels,): bytes of weights."""
    image: float
    """Bytes of the batch of images."""
    int8_operations: float
    """Operations of all, each counted by the bytes of its values: what energy grows with."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Latency:
    """Parts of a latency in ms; the entries of an array are the kernels."""

    compute: Array
    memory: Array
    """Waiting for the memory or the L2 cache."""
    busy: Array
    """Both, overlapped."""
    floor: float
    """Of each kernel."""
    energy: float
    """Least time in which the power limit allows the work."""
    host: float
    total: float


def arithmetic_of(kernel: Kernel, load: Load) -> Arithmetic:
    """Returns what a kernel runs in when the network is built in the load's precision."""
    low = load.arithmetic in {Arithmetic.INT8, Arithmetic.FP8}
    if not low or kernel.precision is Precision.INT8:
        return load.arithmetic
    # A pool takes the quantization behind it in front of it, and moves bytes of that width.
    if kernel.kind in {KernelKind.POOL, KernelKind.POINTWISE}:
        return load.arithmetic
    return Arithmetic.FP16


def workload(kernels: Sequence[Kernel], board: Board, load: Load) -> Workload:
    """Returns the arrays of a network on a board.

    Args:
        kernels: `Precision.INT8` where an INT8 or FP8 engine quantizes.
        board: its generation must have units for the load's arithmetic.
        load: precision, batch and timing.
    """
    generation = GENERATIONS[board.compute_capability]
    used = [arithmetic_of(kernel, load) for kernel in kernels]
    width = np.array([each.value_bytes for each in used], np.float64)
    rate = np.array([generation.rate(each) for each in used], np.float64)

    def column(name: str) -> Array:
        return np.array([getattr(kernel, name) for kernel in kernels], np.float64)

    def cost(name: str) -> Array:
        return np.array([getattr(kernel.cost, name) for kernel in kernels], np.float64)

    image = np.array([kernel.reads_image for kernel in kernels])
    depth = column("depth")
    depth = np.where(image, np.ceil(depth / 3 * _PADDED_CHANNELS), depth)
    tiles = (
        np.ceil(load.batch * column("pixels") / _ROWS)
        * np.ceil(column("columns") / _COLUMNS)
        * column("groups")
    )
    steps = np.maximum(np.ceil(depth / _SPLIT), _LEAST_DEPTH)
    # LoadGen's images come quantized; every other caller hands over FP32.
    queried = load.timing in {EstimatedTiming.SINGLE_STREAM, EstimatedTiming.OFFLINE}
    image_width = np.minimum(width, 4) if queried else 4.0
    read = np.where(image, image_width, width) * cost("inputs")
    operations = 2 * cost("macs") * load.batch
    return Workload(
        board=board,
        load=load,
        waves=np.ceil(tiles * _SPLIT / board.sms),
        math=2 * _ROWS * _COLUMNS * steps / rate,
        loads=(_ROWS + _COLUMNS) * steps * width,
        reduced=np.where(_SPLIT > 1, _ROWS * _COLUMNS * 8.0, 0.0),
        multiplies=operations > 0,
        activations=(read + width * cost("outputs")) * load.batch,
        weights=cost("weights") * width,
        image=float(np.where(image, read, 0).max()) * load.batch,
        int8_operations=float((operations * width).sum()),
    )


def latency(work: Workload, constants: Constants) -> Latency:
    """Returns the latency of a workload, in parts."""
    board, timing = work.board, work.load.timing
    clock = board.gpu_mhz * 1e3
    math, loads = work.math / constants.math_efficiency, work.loads / constants.l2_bytes
    modern = is_ampere_or_later(board.compute_capability)
    tile = np.maximum(math, loads) if modern else math + loads
    tile = tile + work.reduced / constants.l2_bytes
    compute = np.where(work.multiplies, (work.waves * tile).min(axis=0), 0) / clock
    generation = GENERATIONS[board.compute_capability]
    cache = board.l2_mib * 2**20 / generation.l2_partitions * constants.l2_share
    # What does not fit comes from memory: of the activations between two kernels, which are
    # counted written and read but kept once, and of the weights of a whole inference.
    missed = np.maximum(0, 1 - cache / 2 / np.maximum(work.activations, 1))
    weights_missed = max(0.0, 1 - cache / max(float(work.weights.sum()), 1.0))
    bandwidth = board.memory_gbps * 1e6 * constants.memory_efficiency
    memory = np.maximum(
        (work.activations * missed + work.weights * weights_missed) / bandwidth,
        (work.activations + work.weights) / (board.sms * clock * constants.l2_bytes),
    )
    busy = (compute**_OVERLAP + memory**_OVERLAP) ** (1 / _OVERLAP)
    if timing is EstimatedTiming.OFFLINE:
        busy = busy / constants.streams_gain
    energy = constants.energy_pj * generation.energy * work.int8_operations * 1e-9 / board.power_w
    floor = constants.floor_cycles * (1 if modern else constants.early_floor) / clock
    if timing is EstimatedTiming.LOOP:
        floor += constants.launch_us * 1e-3
    host = 0.0
    if timing is EstimatedTiming.SINGLE_STREAM and board.is_jetson:
        host = constants.host_soc_ms
    elif timing is EstimatedTiming.SINGLE_STREAM:
        host = constants.host_pcie_ms + work.image / constants.pcie_gbps * 1e-6
    limited = (busy.sum() ** _OVERLAP + energy**_OVERLAP) ** (1 / _OVERLAP)
    return Latency(
        compute=compute,
        memory=memory,
        busy=busy,
        floor=floor,
        energy=energy,
        host=host,
        total=float(limited) + len(busy) * floor + host,
    )

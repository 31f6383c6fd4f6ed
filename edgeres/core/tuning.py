"""Results of searches over calibration images: frozen values that travel with a table or engine.

Quality is the signal-to-quantization-noise ratio of the logits, in dB: ten times the logarithm
of an image's squared FP32 logits over their squared error, averaged over images. The logits are
centred first, because a constant added to all of them changes no label and no probability.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeres.core.methods import Method, WeightMethod


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The thresholds that method auto picked for one lowering, and why."""

    target: str
    """`onnxruntime` for the CPU's lowering, `tensorrt` for TensorRT's placement."""
    images: int
    """Calibration images held out of the ranges, on which the choice was evaluated."""
    method: Method
    """The method whose thresholds were best, and the start of the search."""
    sqnr_db: Mapping[Method, float]
    """Quality of the logits with the thresholds of each method; of one that was given up, what it
    lost on the images that were run, off the quality of mse on all."""
    factors: Mapping[str, float]
    """What the thresholds of each group were multiplied by, such as `7x7 signed`."""
    tuned_db: float
    """Quality of the logits with the thresholds that were picked; weights by max, or as requested."""
    weights_db: Mapping[WeightMethod, float] = field(default_factory=dict)
    """Quality with each way to scale the weights; empty where it was not auto's to choose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSensitivity:
    """What quantizing one residual block, or one layer, does to the logits."""

    unit: str
    kind: str
    """`block` or `layer`."""
    nodes: tuple[str, ...]
    """The operators that are integer in it."""
    alone_db: float
    """Quality of the logits when nothing else is quantized."""
    without_db: float
    """Quality of the logits when all else is quantized."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorSource:
    """What rounding one kind of tensors does to the logits, all else being float."""

    name: str
    """`weights`, `image`, `inside blocks` or `residual stream`."""
    tensors: int
    """How many of them are rounded."""
    alone_db: float
    """Quality of the logits when nothing else is rounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """The effect of each block and layer on the logits, in TensorRT's placement."""

    images: int
    method: Method
    all_db: float
    """Quality of the logits with everything quantized."""
    units: tuple[UnitSensitivity, ...]
    sources: tuple[ErrorSource, ...] = ()
    """The error by what is rounded; empty in tables of an earlier edgeres."""

    @property
    def gains_db(self) -> dict[str, float]:
        """What leaving a unit out of INT8 gains the logits, by a block's name or a layer's operator."""
        # A unit has one measurement and often several operators; who asks has an operator's name, or
        # a block's. Noise can make a gain slightly negative, and it is reported as it was measured.
        return {
            name: unit.without_db - self.all_db
            for unit in self.units
            for name in ((unit.unit,) if unit.kind == "block" else unit.nodes)
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPoint:
    """One engine that the search for mixed precision considered."""

    kept: tuple[str, ...]
    """Blocks and layers that are not INT8 in it."""
    drop_pp: float
    """Estimated drop of top-1 accuracy on the search's images, in percentage points."""
    sqnr_db: float
    """Quality of the logits."""
    latency: float
    """In milliseconds where it was measured, else the estimated ratio to the INT8 engine's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedSearch:
    """Which layers an engine of mixed precision keeps from INT8, and what else was considered."""

    max_drop_pp: float
    images: int
    labelled: bool
    """False: images had no labels, and every label that changed counted as lost."""
    measured: bool
    """Whether latencies are milliseconds on this machine, or estimates from MACs and bytes."""
    points: tuple[MixedPoint, ...]
    """From everything in INT8 on; the engine is the last."""
    pareto: tuple[int, ...] = field(default=())
    """Positions in `points` of those that no other dominates in drop and latency."""
    image_hashes: tuple[str, ...] = ()
    """Hashes of the images; empty in engines of an earlier edgeres."""

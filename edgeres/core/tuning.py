"""What searches over calibration images found: frozen values that travel with a table or engine.

Quality is the signal-to-quantization-noise ratio of the logits, in dB: ten times the logarithm
of an image's squared FP32 logits over their squared error, averaged over images. The logits are
centred first, because a constant added to all of them changes no label and no probability.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgeres.core.methods import Method, WeightMethod
from edgeres.core.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The thresholds that method auto picked for one lowering, and why."""

    target: Target
    """`onnxruntime` for the CPU's lowering, `tensorrt` for TensorRT's placement."""
    images: int
    """Calibration images that were held out of the ranges and judged the choice."""
    method: Method
    """The method whose thresholds were best, and the start of the search."""
    sqnr_db: Mapping[Method, float]
    """Quality of the logits with the thresholds of each method."""
    factors: Mapping[str, float]
    """What the thresholds of each group were multiplied by, such as `7x7 signed`."""
    tuned_db: float
    """Quality of the logits with the thresholds that were picked; weights by max, or as was asked for."""
    weights_db: Mapping[WeightMethod, float] = field(default_factory=dict)
    """Quality with each way to scale the weights; empty where it was not auto's to choose."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Choice:
        """Reads `to_dict`'s form; missing or malformed keys raise KeyError, TypeError, ValueError."""
        return cls(
            target=Target(raw["target"]),
            images=int(raw["images"]),
            method=Method(raw["method"]),
            sqnr_db={Method(m): float(v) for m, v in raw["sqnr_db"].items()},
            factors={str(g): float(v) for g, v in raw["factors"].items()},
            tuned_db=float(raw["tuned_db"]),
            weights_db={WeightMethod(m): float(v) for m, v in raw["weights_db"].items()},
        )


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

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> UnitSensitivity:
        """Reads `to_dict`'s form; missing or malformed keys raise KeyError, TypeError, ValueError."""
        return cls(
            unit=str(raw["unit"]),
            kind=str(raw["kind"]),
            nodes=tuple(str(name) for name in raw["nodes"]),
            alone_db=float(raw["alone_db"]),
            without_db=float(raw["without_db"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """The effect of each block and layer on the logits, in TensorRT's placement."""

    images: int
    method: Method
    all_db: float
    """Quality of the logits with everything quantized."""
    units: tuple[UnitSensitivity, ...]

    @property
    def gains_db(self) -> dict[str, float]:
        """What leaving a unit out of INT8 gains the logits, by a block's name or a layer's operator."""
        return {
            name: max(0.0, unit.without_db - self.all_db)
            for unit in self.units
            for name in ((unit.unit,) if unit.kind == "block" else unit.nodes)
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {**asdict(self), "units": [unit.to_dict() for unit in self.units]}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Sensitivity:
        """Reads `to_dict`'s form; missing or malformed keys raise KeyError, TypeError, ValueError."""
        return cls(
            images=int(raw["images"]),
            method=Method(raw["method"]),
            all_db=float(raw["all_db"]),
            units=tuple(UnitSensitivity.from_dict(unit) for unit in raw["units"]),
        )


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

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return asdict(self)


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
    """Positions in `points` of those that no other beats in both drop and latency."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {**asdict(self), "points": [point.to_dict() for point in self.points]}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> MixedSearch:
        """Reads `to_dict`'s form; missing or malformed keys raise KeyError, TypeError, ValueError."""
        points = (MixedPoint(**{**p, "kept": tuple(p["kept"])}) for p in raw["points"])
        return cls(
            **{**raw, "points": tuple(points), "pareto": tuple(int(i) for i in raw["pareto"])}
        )

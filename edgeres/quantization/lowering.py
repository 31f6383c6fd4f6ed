"""How a calibrated network becomes an integer one: what every lowering has, whichever its target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx

from edgeres.core.methods import Method
from edgeres.core.table import CalibrationTable
from edgeres.core.tuning import MixedSearch
from edgeres.quantization.graph import Graph


@dataclass(frozen=True, slots=True)
class Lowering:
    """One way in which a calibration table becomes an integer network."""

    name: str
    """As tables have it: the name of the first target that lowers so."""
    lower: Callable[[Graph, CalibrationTable, Method], onnx.ModelProto]
    """Returns a network that ONNX Runtime computes on the CPU as the target would."""
    has_cpu_kernels: bool
    """Whether ONNX Runtime computes it on integer kernels, so that its latency can be measured;
    else on rounded floats, which for signed activations are faster there and give the same values
    up to float32's rounding."""
    has_unsigned_grid: bool
    """Whether a tensor that is never negative has all levels above zero."""


@dataclass(frozen=True, slots=True)
class Mix:
    """What an engine of mixed precision keeps in float."""

    kept: Mapping[str, str] = field(default_factory=dict)
    """Names of operators, each with the reason."""
    search: MixedSearch | None = None
    """What it was chosen from."""


ALL_INTEGER = Mix()
"""Keeps nothing: INT8 wherever there is a kernel for it."""

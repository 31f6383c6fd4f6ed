"""The fitted constants with their errors, as `benchmarks/latency.py` wrote them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgeres.estimation.model import Constants
from edgeres.names import Name
from edgeres.serialization import load_document

FITTED_FILE = Path(__file__).with_name("fitted.json")


class Regime(Name):
    """Sizes of a batch by what decides the latency there: kernels' floors, both, throughput."""

    SMALL = "batch 1 to 4"
    MEDIUM = "batch 5 to 32"
    LARGE = "batch 33 and more"


def regime_of(batch: int) -> Regime:
    """Returns the regime of a batch."""
    if batch <= 4:
        return Regime.SMALL
    return Regime.MEDIUM if batch <= 32 else Regime.LARGE


@dataclass(frozen=True, slots=True, kw_only=True)
class RegimeError:
    """How far estimates of boards that were left out are from what was published."""

    rows: int
    half_width: float
    """Of the 80 % interval: latency * or / exp(half_width)."""
    coverage: float
    """Fraction of the left-out rows that it holds."""
    equal_hardware: float
    """What 80 % of the pairs of runs on nominally equal hardware differ by at most, as log ratio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitError:
    """Errors of left-out boards, as fractions of the published latency."""

    mean: float
    median: float
    p90: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedKind:
    """What published rows there are of a board; a row of another kind is an extrapolation."""

    board: str
    architecture: str
    precision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedModel:
    """Constants, what they were fitted to, and how well they predict boards left out."""

    kind: ClassVar[str] = "latency-model"
    schema_version: ClassVar[int] = 1
    json_keys: ClassVar[tuple[str, ...]] = ("kind", "schema_version", "*")

    command: str
    """That wrote this."""
    constants: Constants
    fitted_rows: tuple[int, ...]
    """Numbers of the rows of `benchmarks/published_latency.csv` that the constants come from."""
    evaluated_rows: tuple[int, ...]
    """Those that the errors are of: ResNet-50, TensorRT 8.2 and later, a defined timing."""
    error: FitError
    """Leaving out one board at a time."""
    first_model: FitError
    """Of a roofline with eight constants, fitted to the same rows in the same way."""
    regimes: Mapping[Regime, RegimeError]
    far_half_width: float
    """Of an extrapolation's interval: holds 95 % of all left-out rows."""
    coverage: float
    """Fraction of all left-out rows within their intervals."""
    published: tuple[PublishedKind, ...]
    dla_gain: Mapping[str, float]
    """Throughput with both DLAs over the GPU's alone, by board: ResNet-50, INT8, published."""


@functools.cache
def fitted_model() -> FittedModel:
    """Returns the constants that edgeres estimates with."""
    return load_document(FITTED_FILE, FittedModel, remedy="Install edgeres again.")

"""The verdict: all results, the limits on them, and the outcome that follows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from edgeres.core.artifacts import LayerPrecision
from edgeres.core.precision import Precision
from edgeres.core.verdict.accuracy import PairedAccuracy
from edgeres.core.verdict.latency import (
    LoadGenResult,
    MeasuredThroughput,
    PairedLatency,
    ProfileRow,
    Throughput,
    throughput_of,
)
from edgeres.core.verdict.outcome import EXIT_PASS, Check, Outcome, conclude
from edgeres.core.verdict.provenance import Environment, Provenance
from edgeres.core.verdict.regression import Regression
from edgeres.machine import Energy, Stability
from edgeres.serialization import SCHEMA_VERSION


class LikelyMistakes(Protocol):
    """What trying the usual mistakes in preprocessing and labels came to."""

    @property
    def sentence(self) -> str:
        """What is wrong, by what evidence, and which option repairs it."""
        ...


class BesideEstimate(Protocol):
    """A measured latency beside what was estimated for this board."""

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """Names, each with a sentence: estimate, measurement, and what would explain a difference."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Energies:
    """Energy of both networks, by the same meter."""

    engine: Energy
    reference: Energy


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPrecisions:
    """An engine's classes and operators, as its manifest has them."""

    classes: tuple[str, ...]
    precisions: Mapping[Precision, int]
    """Number of operators of each precision."""
    layers: tuple[LayerPrecision, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verdict on one engine."""

    kind: ClassVar[str] = "edgeres-verdict"
    schema_version: ClassVar[int] = SCHEMA_VERSION
    json_keys = (
        "schema_version",
        "kind",
        "outcome",
        "passed",
        "exit_code",
        "accuracy",
        "latency",
        "throughput",
        "estimate",
        "energy",
        "energy_reason",
        "loadgen",
        "profile",
        "stability",
        "environment",
        "network",
        "provenance",
        "baseline=regression",
        "diagnosis",
        "checks",
        "warnings",
    )

    accuracy: PairedAccuracy
    latency: PairedLatency | None
    """None where the engine was not run on its target, only simulated."""
    environment: Environment
    provenance: Provenance
    checks: tuple[Check, ...] = ()
    warnings: tuple[str, ...] = ()
    """Sentences on what weakens the verdict, such as calibration images among the test images."""
    stability: Stability | None = None
    """None where nothing was timed."""
    energy: Energies | None = None
    energy_reason: str | None = None
    """Why there is no energy; None where there is."""
    layers: tuple[LayerPrecision, ...] = ()
    """Every operator of the engine with its precision, from the manifest."""
    classes: tuple[str, ...] = ()
    """Names of the classes in the order of the logits; empty where they are not known."""
    loadgen: LoadGenResult | None = None
    """None where no scenario was requested."""
    regression: Regression | None = None
    """None where no earlier run was given to compare with."""
    diagnosis: LikelyMistakes | None = None
    """None where it was not requested and the reference is accurate enough."""
    profile: tuple[ProfileRow, ...] = ()
    """Time by residual block and layer; empty where it was not requested."""
    measured_throughput: MeasuredThroughput | None = None
    """With several inferences under way; None where it was not requested."""
    estimate: BesideEstimate | None = None
    """Beside the latency, where the board is known; else None."""

    @property
    def throughput(self) -> Throughput | None:
        """Images a second, measured or else derived from the latency; None without either."""
        return throughput_of(self.latency, self.measured_throughput)

    @property
    def outcome(self) -> Outcome:
        """What the checks together come to."""
        return conclude(self.checks).outcome

    @property
    def exit_code(self) -> int:
        """Exit code of bench: of the gravest check that failed or is undecided, else 0."""
        return conclude(self.checks).exit_code

    @property
    def passed(self) -> bool:
        """Whether the exit code is 0: nothing failed and nothing is undecided."""
        return self.exit_code == EXIT_PASS

    @property
    def network(self) -> NetworkPrecisions:
        """The engine's operators, and how many there are of each precision."""
        counts = Counter(layer.precision for layer in self.layers)
        return NetworkPrecisions(classes=self.classes, precisions=counts, layers=self.layers)

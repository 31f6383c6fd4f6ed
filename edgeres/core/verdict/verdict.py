"""The verdict: what was found, the limits on it, and the exit code that follows."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from edgeres.core.artifacts import LayerPrecision
from edgeres.core.verdict.accuracy import PairedAccuracy
from edgeres.core.verdict.latency import LatencyStats, PairedLatency
from edgeres.core.verdict.loadgen import LoadGenResult
from edgeres.core.verdict.past import VERDICT_KIND, PastLatency, PastRun, Series, processors_of
from edgeres.core.verdict.provenance import Environment, Provenance
from edgeres.core.verdict.regression import Regression
from edgeres.files import SCHEMA_VERSION
from edgeres.machine import Energy, Stability

EXIT_PASS = 0
EXIT_ACCURACY = 3
EXIT_SPEED = 4
EXIT_COVERAGE = 5
EXIT_MISMATCH = 6
EXIT_UNSTABLE = 7

_FIRST_APPLIES = (EXIT_MISMATCH, EXIT_UNSTABLE, EXIT_COVERAGE, EXIT_ACCURACY, EXIT_SPEED)


class Diagnosis(Protocol):
    """What trying the usual mistakes in preprocessing and labels came to."""

    @property
    def sentence(self) -> str:
        """What is wrong, by what evidence, and which option repairs it."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Energies:
    """Energy of both networks, by the same meter."""

    engine: Energy
    reference: Energy

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {"engine": self.engine.to_dict(), "reference": self.reference.to_dict()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One limit and whether the engine keeps it."""

    name: str
    limit: float
    value: float
    """What the limit is held against; for a gate by the bound, the bound."""
    passed: bool
    exit_code: int
    """Exit code of bench when this check fails."""
    reason: str = ""
    """The outcome in a sentence, with its figures and, where it failed, what to do."""
    rule: str | None = None
    """How it was decided, where there is a choice: `bound` or `point`."""
    images_needed: int | None = None
    """Images in all that would decide; None where these did, or no number would."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        names = ("name", "limit", "value", "passed", "reason", "rule", "images_needed")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verdict on one engine."""

    accuracy: PairedAccuracy
    latency: PairedLatency | None
    """None where the engine was not run on its target, only simulated."""
    environment: Environment
    provenance: Provenance
    checks: tuple[Check, ...]
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
    """None where no scenario was asked for."""
    regression: Regression | None = None
    """None where no earlier run was given to compare with."""
    diagnosis: Diagnosis | None = None
    """None where it was not asked for and the reference is right often enough."""

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def exit_code(self) -> int:
        """Exit code of the gravest failed check: 6, 7, 5, 3, 4 in this order; 0 when all passed."""
        failed = {check.exit_code for check in self.checks if not check.passed}
        return next((code for code in _FIRST_APPLIES if code in failed), EXIT_PASS)

    def as_run(self, name: str) -> PastRun:
        """Returns the verdict in the form that later runs are compared with it."""
        accuracy, latency, machine = self.accuracy, self.latency, self.environment.machine
        if accuracy.images is None:
            raise ValueError("the verdict has no record of its images")
        return PastRun(
            name=name,
            engine=Path(self.provenance.engine.path).name,
            target=self.provenance.target,
            precision=self.provenance.precision,
            passed=self.passed,
            samples=accuracy.engine.samples,
            top1=accuracy.engine.top1,
            drop_pp=accuracy.drop_pp,
            ci95_pp=accuracy.ci95_pp,
            images=accuracy.images,
            reference_sha256=self.provenance.reference.sha256,
            machine=processors_of(machine.cpu, machine.gpus),
            latency=None
            if latency is None
            else PastLatency(
                batch_size=latency.batch_size,
                engine=_series(latency.engine),
                reference=_series(latency.reference),
                images_per_s=latency.images_per_s(latency.engine),
            ),
            joules_per_image=None if self.energy is None else self.energy.engine.joules_per_image,
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object of `bench --json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": VERDICT_KIND,
            "passed": self.passed,
            "exit_code": self.exit_code,
            "accuracy": self.accuracy.to_dict(),
            "latency": self.latency and self.latency.to_dict(),
            "throughput": self._throughput(),
            "energy": self.energy and self.energy.to_dict(),
            "energy_reason": self.energy_reason,
            "loadgen": self.loadgen and self.loadgen.to_dict(),
            "stability": self.stability and self.stability.to_dict(),
            "environment": self.environment.to_dict(),
            "network": self._network(),
            "provenance": self.provenance.to_dict(),
            "baseline": self.regression and self.regression.to_dict(),
            "diagnosis": self.diagnosis and self.diagnosis.to_dict(),
            "checks": [check.to_dict() for check in self.checks],
            "warnings": list(self.warnings),
        }

    def _throughput(self) -> dict[str, float] | None:
        latency = self.latency
        if latency is None:
            return None
        return {
            "engine_images_per_s": latency.images_per_s(latency.engine),
            "reference_images_per_s": latency.images_per_s(latency.reference),
        }

    def _network(self) -> dict[str, Any]:
        return {
            "classes": list(self.classes),
            "precisions": dict(Counter(layer.precision.value for layer in self.layers)),
            "layers": [
                {**asdict(layer), "precision": layer.precision.value} for layer in self.layers
            ],
        }


def _series(stats: LatencyStats) -> Series:
    return Series(
        p50_ms=stats.p50_ms,
        samples_ms=stats.samples_ms,
        blocks=stats.blocks,
        p50_ci95_ms=None if stats.intervals is None else stats.intervals.p50_ms,
    )

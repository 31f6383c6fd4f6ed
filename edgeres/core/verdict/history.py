"""The course of accuracy and latency over runs of bench, with the changes that a test found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgeres.core.verdict.past import PastRun, RunGroup
from edgeres.names import Name
from edgeres.serialization import SCHEMA_VERSION


class Series(Name):
    """What is followed over the runs."""

    ACCURACY = "accuracy"
    """Top-1 of the engine."""
    LATENCY = "latency"
    """Median of the engine over that of the reference in the same run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CourseRun:
    """One run in a course."""

    json_keys = (
        "run.name",
        "run.started",
        "run.engine",
        "run.engine_sha256",
        "run.top1",
        "p50_ms=run.latency.engine.p50_ms",
        "relative_latency",
    )

    run: PastRun

    @property
    def relative_latency(self) -> float | None:
        """Median of the engine over that of the reference; None where it was only simulated."""
        return None if self.run.latency is None else 1 / self.run.latency.speedup


@dataclass(frozen=True, slots=True, kw_only=True)
class CourseChange:
    """A change of level that the test found."""

    series: Series
    run: str
    """Name of the first run of the new level."""
    before: float
    """Median of the level before, in the unit of the series."""
    after: float
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Runs of one group in the order of time."""

    group: RunGroup
    runs: tuple[CourseRun, ...]
    tested: bool
    """Whether there are enough runs for a test."""
    changes: tuple[CourseChange, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The courses of a history, in the order of their first runs."""

    kind: ClassVar[str] = "edgeres-history"
    schema_version: ClassVar[int] = SCHEMA_VERSION
    json_keys: ClassVar[tuple[str, ...]] = ("kind", "schema_version", "*")

    courses: tuple[Course, ...]

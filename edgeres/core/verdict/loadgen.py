"""What MLPerf's LoadGen reported of an engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadGenResult:
    """The outcome of one scenario, in LoadGen's own words."""

    json_keys = ("*", "result")

    scenario: str
    valid: bool
    """LoadGen's verdict on the run: VALID or INVALID."""
    metric: str
    """What `value` is, such as `90th percentile latency, early stopping`."""
    value: float | None
    """None where LoadGen does not report it."""
    unit: str
    queries: int
    seconds: float
    """Requested duration. A submission to MLPerf takes 600."""
    reasons: tuple[str, ...]
    """Why it is invalid; empty where it is valid."""
    logs: str | None
    """Folder of LoadGen's own logs; None where they were not kept."""

    @property
    def result(self) -> str:
        """`VALID` or `INVALID`."""
        return "VALID" if self.valid else "INVALID"

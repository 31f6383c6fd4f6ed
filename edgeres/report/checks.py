"""A check in words: what was asked, what was found, and the sentence that says how it came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeres.core.bench_requests import Decision
from edgeres.core.verdict import Check, Verdict
from edgeres.evaluation.compare import told_apart

_UNITS: Mapping[str, tuple[str, str]] = {
    Decision.BOUND.value: ("bound below ", " pp"),
    Decision.POINT.value: ("at most ", " pp"),
    "speedup": ("at least ", " x"),
    "stability": ("at most ", " disturbances"),
    "loadgen": ("at least ", " valid run"),
    "baseline_accuracy": ("not surely over ", " pp"),
    "baseline_latency": ("not surely over ", " x"),
}
"""How the limit of a check binds, by its rule or name, and the unit of its value."""

NO_LIMIT = "No limit was set, so none could be missed."


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckWords:
    """One check as a row of a table."""

    title: str
    limit: str
    value: str
    passed: bool
    sentence: str


def check_words(check: Check) -> CheckWords:
    """Returns a check in words."""
    relation, unit = _UNITS.get(check.rule or check.name, ("", ""))
    return CheckWords(
        title=check.name.replace("_", " "),
        limit=f"{relation}{check.limit:g}{unit}",
        value=told_apart(check.value, check.limit) + unit,
        passed=check.passed,
        sentence=_sentence(
            check.reason or f"{check.name} {'passed' if check.passed else 'failed'}"
        ),
    )


def reasons(comparison: Verdict) -> tuple[str, ...]:
    """Returns why the verdict is what it is: the checks that failed, or else all that passed."""
    told = [check for check in comparison.checks if check.passed == comparison.passed]
    return tuple(check_words(check).sentence for check in told) or (NO_LIMIT,)


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:].rstrip(".") + "."

"""A check in words: what was asked, what was found, and the sentence that says how it came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeres.compare import told_apart
from edgeres.results import Check, Comparison

_UNITS: Mapping[str, tuple[str, str]] = {
    "accuracy_drop": ("at most ", " pp"),
    "speedup": ("at least ", " x"),
    "stability": ("at most ", " disturbances"),
}
"""How the limit of a check binds, and the unit of its value."""

_RULES: Mapping[str, str] = {"bound": "upper bound", "point": "as measured"}
"""What the value of a check is, by the rule that decided it."""

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
    relation, unit = _UNITS.get(check.name, ("", ""))
    rule = _RULES.get(check.rule or "")
    return CheckWords(
        title=check.name.replace("_", " ") + (f" ({rule})" if rule else ""),
        limit=f"{relation}{check.limit:g}{unit}",
        value=told_apart(check.value, check.limit) + unit,
        passed=check.passed,
        sentence=_sentence(
            check.reason or f"{check.name} {'passed' if check.passed else 'failed'}"
        ),
    )


def reasons(comparison: Comparison) -> tuple[str, ...]:
    """Returns why the verdict is what it is: the checks that failed, or else all that passed."""
    told = [check for check in comparison.checks if check.passed == comparison.passed]
    return tuple(check_words(check).sentence for check in told) or (NO_LIMIT,)


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:].rstrip(".") + "."

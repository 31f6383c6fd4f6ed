"""What a verdict came to in words: each check, why, and what would decide it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeres.core.bench_requests import Decision
from edgeres.core.verdict import EXIT_ACCURACY, Check, Outcome, Verdict
from edgeres.evaluation.checks import format_against_limit
from edgeres.report.words import as_sentence

NO_LIMIT = "no limit was set: the figures stand for themselves"

_CHECK_UNITS: Mapping[str, tuple[str, str]] = {
    Decision.BOUND.value: ("bound below ", " pp"),
    Decision.POINT.value: ("at most ", " pp"),
    "speedup": ("at least ", " x"),
    "reference_top1": ("not significantly below ", " %"),
    "stability": ("at most ", " disturbances"),
    "loadgen": ("at least ", " valid run"),
    "baseline_accuracy": ("not significantly above ", " pp"),
    "baseline_latency": ("not significantly above ", " x"),
    "baseline_throughput": ("not significantly above ", " x"),
}
"""How the limit of a check binds, by its rule or name, and the unit of its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckWords:
    """One check as a row of a table."""

    title: str
    limit: str
    value: str
    outcome: Outcome
    is_limit: bool
    """Whether it limits the engine; what only checks the measurement passes without colour."""
    reason: str
    """Why it came out so, to be joined with others."""
    next_step: str
    """What would decide it, to be joined with others; empty where there is nothing to report."""

    @property
    def sentence(self) -> str:
        """The reason as a sentence of its own."""
        return as_sentence(self.reason)


def check_words(check: Check) -> CheckWords:
    """Returns a check in words."""
    # The rule is how the limit binds where there is a choice of rules, else the check's name.
    relation, unit = _CHECK_UNITS.get(check.rule or check.name, ("", ""))
    return CheckWords(
        title=check.name.replace("_", " "),
        limit=f"{relation}{check.limit:g}{unit}",
        value=format_against_limit(check.value, check.limit) + unit,
        outcome=check.outcome,
        is_limit=check.is_limit,
        reason=check.reason or f"{check.name}: {check.outcome}",
        next_step=check.next_step,
    )


def reasons(verdict: Verdict) -> tuple[str, ...]:
    """Returns why the outcome is what it is: the checks that have it, or that there is no limit."""
    # Where one check failed, that others passed explains nothing; nor does a sound measurement
    # explain why an engine passed.
    decisive = (check for check in verdict.checks if check.outcome is verdict.outcome)
    passed = verdict.outcome is Outcome.PASS
    words = [check_words(check).reason for check in decisive if check.is_limit or not passed]
    return tuple(words) or (NO_LIMIT,)


def headline(verdict: Verdict) -> str:
    """Returns the outcome in one short sentence, without figures."""
    decisive = [
        check
        for check in verdict.checks
        if check.outcome is verdict.outcome
        and (check.is_limit or verdict.outcome is not Outcome.PASS)
    ]
    titles = [check_words(check).title for check in decisive]
    several = len(titles) > 1
    listed = f"{', '.join(titles[:-1])} and {titles[-1]}" if several else "".join(titles)
    if verdict.outcome is Outcome.PASS:
        return as_sentence(f"{listed} {'keep their limits' if several else 'keeps its limit'}")
    if verdict.outcome is Outcome.FAIL:
        return as_sentence(f"{listed} {'miss their limits' if several else 'misses its limit'}")
    if verdict.outcome is Outcome.INCONCLUSIVE:
        what = {"images" if c.exit_code == EXIT_ACCURACY else "machine" for c in decisive}
        return as_sentence(f"the {' and the '.join(sorted(what))} cannot decide on {listed}")
    return "No limit was set."


def next_steps(verdict: Verdict) -> tuple[str, ...]:
    """Returns what would decide the checks that are undecided, as far as that is known."""
    return tuple(check.next_step for check in verdict.checks if check.next_step)

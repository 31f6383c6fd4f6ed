"""What a verdict comes to: the outcome of each check, of all of them together, and the exit code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgeres.names import Name

EXIT_PASS = 0
EXIT_ACCURACY = 3
EXIT_SPEED = 4
EXIT_COVERAGE = 5
EXIT_MISMATCH = 6
EXIT_UNSTABLE = 7

# A wrong engine makes every figure meaningless; what was lowered to another precision explains what
# accuracy and speed then show.
_FIRST_FAILED = (EXIT_MISMATCH, EXIT_COVERAGE, EXIT_ACCURACY, EXIT_SPEED)

_LIMITS = frozenset({EXIT_ACCURACY, EXIT_SPEED, EXIT_COVERAGE})
"""Exit codes of checks that limit the engine; the others check that the measurement is sound."""


class Outcome(Name):
    """What a check, or a verdict, comes to."""

    PASS = "PASS"
    """Every limit was kept, and there was one."""
    FAIL = "FAIL"
    """A check failed."""
    INCONCLUSIVE = "INCONCLUSIVE"
    """No check failed, and the images or the machine cannot decide one of them."""
    MEASURED = "MEASURED"
    """No limit was set: figures alone. Only of a verdict."""

    @classmethod
    def of(cls, kept: bool) -> Outcome:
        """Returns the outcome of a check that was decided."""
        return cls.PASS if kept else cls.FAIL


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One limit and whether the engine keeps it."""

    # Without the exit code: CI reads the verdict's, which has the failed checks in their order.
    json_keys = (
        "name",
        "limit",
        "value",
        "passed",
        "outcome",
        "reason",
        "next_step",
        "rule",
        "images_needed",
    )

    name: str
    limit: float
    value: float
    """What is compared with the limit; where the bound decides, the bound."""
    outcome: Outcome
    """`MEASURED` is none: a check has a limit."""
    exit_code: int
    """Exit code of bench when this check fails; `EXIT_UNSTABLE` where it can only be undecided."""
    reason: str = ""
    """The outcome in words, with its figures and, where it failed, what to do."""
    next_step: str = ""
    """What would decide a check that is undecided, in words; empty where the reason has it."""
    rule: str | None = None
    """How it was decided, where there is a choice: `bound` or `point`."""
    images_needed: int | None = None
    """Images in all that would decide; None where these did, or no number would."""

    def __post_init__(self) -> None:
        if self.outcome is Outcome.MEASURED:
            raise ValueError(f"check {self.name} is {self.outcome}; expected an outcome of a limit")
        if self.outcome is Outcome.FAIL and self.exit_code == EXIT_UNSTABLE:
            raise ValueError(f"check {self.name} is FAIL; what is unstable is INCONCLUSIVE")

    @property
    def passed(self) -> bool:
        """Whether it was decided that the limit is kept."""
        return self.outcome is Outcome.PASS

    @property
    def is_limit(self) -> bool:
        """Whether it limits the engine; otherwise it checks that the measurement is sound."""
        return self.exit_code in _LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """What all checks together come to."""

    outcome: Outcome
    exit_code: int


def conclude(checks: Iterable[Check]) -> Conclusion:
    """Returns the outcome of checks taken together, of one verdict or of several."""
    checks = tuple(checks)
    failed = {check.exit_code for check in checks if check.outcome is Outcome.FAIL}
    if failed:
        code = next(code for code in _FIRST_FAILED if code in failed)
        return Conclusion(outcome=Outcome.FAIL, exit_code=code)
    undecided = {check.exit_code for check in checks if check.outcome is Outcome.INCONCLUSIVE}
    if undecided:
        # Images decide accuracy and nothing else; what remains open is a matter of time.
        code = EXIT_ACCURACY if undecided == {EXIT_ACCURACY} else EXIT_UNSTABLE
        return Conclusion(outcome=Outcome.INCONCLUSIVE, exit_code=code)
    # A sound measurement of an engine without limits shows nothing about it that could pass.
    limited = any(check.is_limit for check in checks)
    outcome = Outcome.PASS if limited else Outcome.MEASURED
    return Conclusion(outcome=outcome, exit_code=EXIT_PASS)

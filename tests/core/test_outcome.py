"""The four outcomes: what any set of checks comes to, by the rule in words."""

from __future__ import annotations

from itertools import combinations, permutations

import pytest

from edgeres.core.verdict import (
    EXIT_ACCURACY,
    EXIT_COVERAGE,
    EXIT_MISMATCH,
    EXIT_PASS,
    EXIT_SPEED,
    EXIT_UNSTABLE,
    Check,
    Outcome,
    conclude,
)

PASS, FAIL, INCONCLUSIVE, MEASURED = Outcome


def check(code: int, outcome: Outcome) -> Check:
    """Returns a check with this exit code that came out so."""
    return Check(name="x", limit=1, value=1, outcome=outcome, exit_code=code)


POSSIBLE = (
    *(check(code, outcome) for code in (EXIT_ACCURACY, EXIT_SPEED) for outcome in (PASS, FAIL)),
    check(EXIT_ACCURACY, INCONCLUSIVE),
    check(EXIT_SPEED, INCONCLUSIVE),
    check(EXIT_COVERAGE, FAIL),
    check(EXIT_MISMATCH, PASS),
    check(EXIT_MISMATCH, FAIL),
    check(EXIT_UNSTABLE, PASS),
    check(EXIT_UNSTABLE, INCONCLUSIVE),
)
"""Every check that bench makes, by what it limits and how it can come out."""


def by_the_rule(checks: tuple[Check, ...]) -> tuple[Outcome, int]:
    """Returns outcome and exit code, written down as the documentation has them."""
    found = {(one.outcome, one.exit_code) for one in checks}
    for code in (6, 5, 3, 4):
        if (FAIL, code) in found:
            return FAIL, code
    if (INCONCLUSIVE, 4) in found or (INCONCLUSIVE, 7) in found:
        return INCONCLUSIVE, 7
    if (INCONCLUSIVE, 3) in found:
        return INCONCLUSIVE, 3
    if (PASS, 3) in found or (PASS, 4) in found or (PASS, 5) in found:
        return PASS, 0
    return MEASURED, 0


def test_every_set_of_checks_comes_to_what_the_rule_says() -> None:
    """All sets of up to four of the checks that there can be."""
    for size in range(5):
        for checks in combinations(POSSIBLE, size):
            found = conclude(checks)
            assert (found.outcome, found.exit_code) == by_the_rule(checks), checks


def test_their_order_does_not_matter() -> None:
    """The gravest decides, wherever it stands."""
    checks = (POSSIBLE[3], POSSIBLE[4], POSSIBLE[8], POSSIBLE[10])
    assert {conclude(order).exit_code for order in permutations(checks)} == {EXIT_MISMATCH}


def test_nothing_passes_that_no_limit_passed() -> None:
    """No check, a sound measurement and sound preprocessing show nothing about the engine."""
    for sound in ((), (POSSIBLE[9],), (POSSIBLE[7], POSSIBLE[9])):
        found = conclude(sound)
        assert (found.outcome, found.exit_code) == (MEASURED, EXIT_PASS)
    assert conclude((POSSIBLE[0], POSSIBLE[9])).outcome is PASS


@pytest.mark.parametrize(("code", "outcome"), [(EXIT_SPEED, MEASURED), (EXIT_UNSTABLE, FAIL)])
def test_a_check_that_cannot_be_is_refused(code: int, outcome: Outcome) -> None:
    """A limit that is only measured, and a disturbance that is held against the engine."""
    with pytest.raises(ValueError, match=f"^check x is {outcome}"):
        check(code, outcome)

"""Few rows that together have every pair of values: most faults need no more than two options."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import combinations

Pair = tuple[tuple[int, Hashable], ...]


def pairs(row: Sequence[Hashable]) -> list[Pair]:
    """Returns every two of a row's values, each with its position."""
    return list(combinations(enumerate(row), 2))


def covering(rows: Iterable[Sequence[Hashable]]) -> list[int]:
    """Returns the positions of rows that have every pair of values that any of the rows has.

    Greedy: the row with the most pairs that are missing comes next. Of random rows that takes
    little more than n * m of them, for the two positions with the most values, n and m.
    """
    numbers: dict[Pair, int] = {}
    # A row's pairs are the bits of one number: that makes thousands of rows a matter of a second.
    candidates = {
        position: sum(1 << numbers.setdefault(pair, len(numbers)) for pair in pairs(row))
        for position, row in enumerate(rows)
    }
    missing = (1 << len(numbers)) - 1
    chosen = []
    while missing:
        best = max(candidates, key=lambda position: (candidates[position] & missing).bit_count())
        chosen.append(best)
        missing &= ~candidates.pop(best)
    return chosen

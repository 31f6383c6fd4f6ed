"""Numbers with what they count, in the form that English has for one and for several; percent."""

from __future__ import annotations

import re


def plural(noun: str, number: int) -> str:
    """Returns a noun in the form that goes with a number."""
    if number == 1:
        return noun
    if noun.endswith(("s", "ch", "x")):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if re.search("[^aeo]y$", noun) else f"{noun}s"


def counted(number: int, noun: str) -> str:
    """Returns a number and its noun: `1 image`, `3 images`, `0 classes`."""
    return f"{number} {plural(noun, number)}"


def percent(fraction: float, digits: int = 1) -> str:
    """Returns a fraction in percent, with a space before the sign as SI has it: `8.4 %`."""
    return f"{100 * fraction:.{digits}f} %"

"""Text from files, made fit to be shown: the one escaper of terminals, logs and pages.

A file name or a class name may hold what a terminal obeys: colours, a new window title, a line
that overwrites the one before. It may be a lone surrogate, or turn the reading direction of what
follows. Such characters are written as Python writes them, ESC as a backslash and `x1b`.
"""

from __future__ import annotations

import re

_OBEYED = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # controls, among them ESC and the 8-bit CSI
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction of writing
    "\u2028\u2029\ufeff"  # separators of lines and paragraphs, byte order mark
    "\ud800-\udfff]"  # what no UTF-8 has: the bytes of a file name that is none
)

LONGEST = 4000
"""Characters of a message that are shown: some 50 lines of a terminal."""

_END_SHOWN = 800
"""Of them at its end, where what to do next stands."""


def printable(text: str, *, keep: str = "") -> str:
    """Returns text in which no character does anything but stand there, except those in `keep`."""
    return _OBEYED.sub(lambda match: _written(match[0]) if match[0] not in keep else match[0], text)


def shortened(message: str) -> str:
    """Returns a message without its middle where it is longer than `LONGEST`."""
    if len(message) <= LONGEST:
        return message
    left_out = len(message) - LONGEST
    start, end = message[: LONGEST - _END_SHOWN], message[-_END_SHOWN:]
    return f"{start} [... {left_out} characters left out ...] {end}"


def _written(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")

"""Names that a user types: enumerations that print as their value, and the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import Enum
from typing import TypeVar

from edgeres.errors import ConfigError

N = TypeVar("N", bound="Name")


class Name(str, Enum):
    """A string enumeration that prints as its value (`enum.StrEnum` needs Python 3.11)."""

    __str__ = str.__str__


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns the sentence ` Did you mean 'x'?` for the closest known name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def known(names: type[N], name: str) -> N:
    """Returns the member of an enumeration that a name spells.

    Raises:
        ConfigError: there is none.
    """
    members = [str(member) for member in names]
    if name not in members:
        raise ConfigError(
            f"'{name}' is none of {', '.join(members)}.{nearest(name, members)} Pass one of them."
        )
    return names(name)

"""Text form of protocol buffers, as far as Triton's config.pbtxt uses it, written.

Source: "Text Format Language Specification", protobuf.dev.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Literal:
    """A name of an enumeration, which stands without quotes."""

    name: str


Message = Mapping[str, Sequence[object]]
"""Fields of a message: each has the values that are set, none, one or several."""


def render(message: Message, indent: str = "") -> str:
    """Returns the text of a message."""
    lines = []
    for name, values in message.items():
        for value in values:
            if isinstance(value, Mapping):
                lines += [f"{indent}{name} {{", render(value, indent + "  "), f"{indent}}}"]
            else:
                lines.append(f"{indent}{name}: {_scalar(value)}")
    return "\n".join(lines)


def _scalar(value: object) -> str:
    if isinstance(value, Literal):
        return value.name
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)

"""Text form of protocol buffers, as far as Triton's config.pbtxt uses it: written and read.

Source: "Text Format Language Specification", protobuf.dev.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgeres.errors import ArtifactError

_SKIPPED = re.compile(r"(?:\s+|#[^\n]*\n)*")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[A-Za-z_]\w*|-?\d+|[{}\[\]:,;]')
_DEEPEST = 100
"""Messages and lists within each other. Source: protobuf's limit of recursion."""


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


def parse(text: str, source: str) -> Message:
    """Returns the message of a text.

    Args:
        text: of the file.
        source: what a message calls it.

    Raises:
        ArtifactError: it is none.
    """
    tokens = list(_tokens(text, source))
    message, end = _message(tokens, 0, source)
    if end != len(tokens):
        raise ArtifactError(f"{source} has '{tokens[end]}' where a field is expected. Correct it.")
    return message


def _scalar(value: object) -> str:
    if isinstance(value, Literal):
        return value.name
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def _tokens(text: str, source: str) -> Iterator[str]:
    place, depth, text = 0, 0, text.rstrip() + "\n"
    while True:
        if skipped := _SKIPPED.match(text, place):
            place = skipped.end()
        if place == len(text):
            return
        match = _TOKEN.match(text, place)
        if match is None:
            found = text[place : place + 30].strip()
            raise ArtifactError(f"{source} cannot be read at {found!r}. Correct it.")
        depth += (match[0] in "[{") - (match[0] in "]}")
        if depth > _DEEPEST:
            raise ArtifactError(
                f"{source} is nested deeper than {_DEEPEST} brackets and braces. Correct it."
            )
        yield match[0]
        place = match.end()


def _message(tokens: Sequence[str], place: int, source: str) -> tuple[Message, int]:
    fields: dict[str, list[object]] = {}
    while place < len(tokens) and tokens[place] != "}":
        name, place = tokens[place], place + 1
        if not name[0].isalpha() or place >= len(tokens):
            raise ArtifactError(f"{source} has '{name}' where a field is expected. Correct it.")
        if tokens[place] == ":":
            place += 1
        values, place = _values(tokens, place, source)
        fields.setdefault(name, []).extend(values)
        if place < len(tokens) and tokens[place] in ",;":
            place += 1
    return fields, place


def _values(tokens: Sequence[str], place: int, source: str) -> tuple[list[object], int]:
    if place >= len(tokens):
        raise ArtifactError(f"{source} ends where a value is expected. Complete it.")
    if tokens[place] == "[":
        values: list[object] = []
        place += 1
        while place < len(tokens) and tokens[place] != "]":
            inner, place = _values(tokens, place, source)
            values += inner
            if place < len(tokens) and tokens[place] == ",":
                place += 1
        if place >= len(tokens):
            raise ArtifactError(f"{source} ends within brackets. Complete it.")
        return values, place + 1
    if tokens[place] == "{":
        message, place = _message(tokens, place + 1, source)
        if place >= len(tokens):
            raise ArtifactError(f"{source} ends within braces. Complete it.")
        return [message], place + 1
    return [_value(tokens[place], source)], place + 1


def _value(token: str, source: str) -> object:
    if token in {"true", "false"}:
        return token == "true"
    try:
        if token.startswith('"'):
            return json.loads(token)
        return int(token) if token.lstrip("-").isdecimal() else Literal(token)
    # An escape that JSON has not, or a number of thousands of digits.
    except ValueError as error:
        raise ArtifactError(
            f"{source} has {token[:30]} where a value is expected: {error}. Correct it."
        ) from error

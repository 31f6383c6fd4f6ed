"""One mechanism between frozen dataclasses and JSON: every file and every `--json` goes through it.

A dataclass is an object with its fields in their order; enumerations are their value, bytes are
base64, paths are text. Where the object has other keys, the class lists them all, in order::

    json_keys: ClassVar[tuple[str, ...]] = ("*", "coverage", "name=spec.name", "machine.*")

`*` stands for the fields that no other entry names; `coverage` is an attribute, field or property;
`name=spec.name` follows attributes, to null where one of them is None; `machine.*` spreads the
keys of another value. A class that is a file of its own names its `kind` and `schema_version` so.

Reading is by type, with msgspec, and strict: what is written again must be what was read. A key
that nobody reads, or a derived figure that does not follow from the others, is damage.

A class inside a file may have a `version` of its own among its keys, and `older_versions`: by
number the classes that read its earlier forms, each with a method `current`. JSON without that key
is of version 1.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path, PurePath
from typing import Any, ClassVar, Protocol, TypeVar, get_args, get_type_hints

import msgspec

from edgeres.errors import ArtifactError
from edgeres.files import atomic_write
from edgeres.input_files import JSON, read_bytes

SCHEMA_VERSION = 1
"""Version of the JSON forms written here; a file of another version is refused."""

_INT64 = 1 << 63

T = TypeVar("T")


class Document(Protocol):
    """A value that is a JSON file of its own."""

    kind: ClassVar[str]
    schema_version: ClassVar[int]


D = TypeVar("D", bound=Document)


def to_json(value: Any) -> Any:
    """Returns a value as JSON's own types.

    Raises:
        TypeError: it holds something that has no JSON form.
    """
    # Enumerations first: a `Name` is a str too.
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, str | int | float):
        return value
    if is_dataclass(value):
        return {key: to_json(part) for key, part in _items(value)}
    if isinstance(value, Mapping):
        return {to_json(key): to_json(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(part) for part in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    """Yields the keys of a dataclass's JSON object with the attributes that they stand for."""
    entries = getattr(value, "json_keys", ("*",))
    for entry in entries:
        key, _, path = entry.partition("=")
        *owners, name = (path or key).split(".")
        owner = value
        for each in owners:
            owner = None if owner is None else getattr(owner, each)
        if name != "*":
            yield key.rpartition(".")[2], None if owner is None else getattr(owner, name)
        elif owners:
            yield from _items(owner)
        else:
            names = (field.name for field in fields(value) if field.name not in entries)
            yield from ((name, getattr(value, name)) for name in names)


def from_json(
    raw: object,
    cls: type[T],
    *,
    source: str,
    remedy: str,
    damage: str = "is damaged",
    partial: bool = False,
) -> T:
    """Returns the value of JSON's own types, as `to_json` made them, now or in an older version.

    Args:
        raw: of `parse_json`.
        cls: the dataclass that it is of.
        source: what a message calls the JSON, such as `x.json`.
        remedy: a sentence on what to do where it is damaged.
        damage: what is wrong with it then, in a message: `is a damaged manifest`.
        partial: whether `cls` reads some of the keys only.

    Raises:
        ArtifactError: a key is missing or unknown, a value is of another type or impossible, or a
            part is of a version that is not known here.
    """
    kind: Any = cls
    if isinstance(raw, dict) and (versioned := _versioned_keys(kind)):
        raw = {
            key: _current(part, versioned[key], key, source=source, remedy=remedy)
            if key in versioned
            else part
            for key, part in raw.items()
        }
    try:
        value = msgspec.convert(raw, cls)
    # Half of a surrogate pair, which JSON can escape and UTF-8 cannot hold.
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        # msgspec's words: "Expected `int`, got `str` - at `$.data.samples`".
        fact, _, place = str(error).replace("`", "").partition(" - at ")
        place = place.replace("$.", "")
        if missing := re.fullmatch("Object missing required field (.*)", fact):
            place, fact = f"{place}.{missing[1]}".lstrip("."), "missing"
        message = f"{place}: {fact}" if place else fact
        raise ArtifactError(f"{source} {damage} ({message}). {remedy}") from error
    if not partial and (difference := _difference(raw, to_json(value), "")):
        # What may be left out in Python came with a later version than what may not.
        kinds = {
            "missing": ", as in files of an earlier edgeres",
            "unknown": ", or of a later edgeres",
        }
        difference += kinds.get(difference.rpartition(": ")[2], "")
        raise ArtifactError(f"{source} {damage} ({difference}). {remedy}")
    return value


@cache
def _versioned_keys(cls: type) -> Mapping[str, type]:
    """Returns the keys of a dataclass whose values have a version of their own, with their class."""
    hints = get_type_hints(cls) if is_dataclass(cls) else {}
    return {
        key: kind
        for key, hint in hints.items()
        for kind in (hint, *get_args(hint))
        if hasattr(kind, "older_versions")
    }


def _current(raw: Any, cls: Any, key: str, *, source: str, remedy: str) -> Any:
    """Returns JSON of any version of a class as JSON of its present one."""
    version = raw.get("version", 1) if isinstance(raw, dict) else cls.version
    if version == cls.version:
        return raw
    # A list: what stands there may have no hash.
    if version not in list(cls.older_versions):
        known = " and ".join(map(str, [*cls.older_versions, cls.version]))
        raise ArtifactError(
            f"{source} has a {key} of version {version!r:.60}, and this edgeres reads {known}. Use "
            f"the edgeres that wrote it. Otherwise: {remedy[:1].lower()}{remedy[1:]}"
        )
    damage, older = f"has a damaged {key}", cls.older_versions[version]
    read = from_json(raw, older, source=source, remedy=remedy, damage=damage)
    try:
        return to_json(read.current())
    except ValueError as error:
        raise ArtifactError(f"{source} {damage} ({error}). {remedy}") from error


def _difference(raw: Any, read: Any, place: str) -> str | None:
    """Returns where JSON differs from what was read of it, and how; None where it does not."""
    if isinstance(raw, dict) and isinstance(read, dict):
        if raw.keys() != read.keys():
            odd = sorted(map(str, raw.keys() ^ read.keys()))[0]
            return f"{place}{odd}: {'unknown' if odd in raw else 'missing'}"
        pairs = [(f"{place}{key}.", raw[key], read[key]) for key in raw]
    elif isinstance(raw, list) and isinstance(read, list) and len(raw) == len(read):
        pairs = [(f"{place}{i}.", *pair) for i, pair in enumerate(zip(raw, read, strict=True))]
    else:
        # 1 and 1.0 are one number, but True is none.
        same = raw == read and isinstance(raw, bool) is isinstance(read, bool)
        return None if same else f"{place.removesuffix('.')}: {raw!r:.60}, expected {read!r:.60}"
    differences = (_difference(raw_part, read_part, at) for at, raw_part, read_part in pairs)
    return next(filter(None, differences), None)


def json_text(value: Any) -> str:
    """Returns the text that `save_json` writes of a dataclass or a mapping."""
    return json.dumps(to_json(value), indent=1, allow_nan=False) + "\n"


def json_line(value: Any) -> str:
    """Returns a dataclass or a mapping as JSON on one line, without its end."""
    return json.dumps(to_json(value), separators=(",", ":"), allow_nan=False)


def save_json(path: Path, value: Any) -> None:
    """Writes one JSON object atomically.

    Raises:
        ArtifactError: the file cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(json_text(value), encoding="utf-8")


def parse_json(text: str | bytes) -> Any:
    """Returns JSON's own types.

    Raises:
        ValueError: it is not JSON, nests too deep, or has a number that is not finite or too large.
    """
    # json, not msgspec: a file name of no valid UTF-8 is a lone surrogate, which msgspec refuses.
    try:
        return json.loads(text, parse_constant=_number, parse_float=_number, parse_int=_integer)
    except RecursionError as error:
        raise ValueError("it nests too deep") from error


def _number(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return value


def _integer(text: str) -> int:
    # By length first: Python itself refuses integers of more than 4300 digits.
    if len(text) > 20 or not -_INT64 <= (value := int(text)) < _INT64:
        raise ValueError(f"{text:.25} has more than 64 bits")
    return value


def load_json(path: Path, kind: str) -> dict[str, Any]:
    """Reads a JSON object that `save_json` wrote, and checks its kind and schema version.

    Raises:
        ArtifactError: unreadable, not JSON, another kind of file or another schema version.
    """
    return _checked_kind(read_bytes(path, JSON), kind, source=str(path))


def _checked_kind(content: bytes, kind: str, *, source: str) -> dict[str, Any]:
    try:
        # Windows' editors put a byte order mark before the text.
        raw = parse_json(content.decode("utf-8-sig"))
    except ValueError as error:
        raise ArtifactError(f"{source} is not JSON ({error}); expected an {kind} file.") from error
    if not isinstance(raw, dict) or raw.get("kind") != kind:
        actual = raw.get("kind") if isinstance(raw, dict) else type(raw).__name__
        raise ArtifactError(
            f"{source} is no {kind} file: its kind is {actual!r:.60}. Check the path."
        )
    if raw.get("schema_version") != SCHEMA_VERSION:
        raise ArtifactError(
            f"{source} has schema version {raw.get('schema_version')!r:.60}, this edgeres reads "
            f"{SCHEMA_VERSION}. Make the file again with this version."
        )
    return raw


def read_document(content: bytes, cls: type[D], *, source: str, remedy: str) -> D:
    """Reads some of the keys of one of a file's JSON objects; see `from_json`.

    Args:
        content: the object's text.
        cls: of the keys that are read.
        source: what a message calls it, such as `runs.jsonl, line 3`.
        remedy: a sentence on what to do where it is damaged.

    Raises:
        ArtifactError: it is no JSON, another kind of object or version, or damaged.
    """
    raw = _checked_kind(content, cls.kind, source=source)
    damage = f"is a damaged {cls.kind}"
    return from_json(raw, cls, source=source, remedy=remedy, damage=damage, partial=True)


def load_document(path: Path, cls: type[D], *, remedy: str, partial: bool = False) -> D:
    """Reads a JSON file of the class's kind and schema version; see `from_json`.

    Raises:
        ArtifactError: unreadable, another kind of file or version, or damaged.
    """
    raw = load_json(path, cls.kind)
    damage = f"is a damaged {cls.kind} file"
    return from_json(raw, cls, source=str(path), remedy=remedy, damage=damage, partial=partial)

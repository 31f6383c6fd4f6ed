"""The one way between values and JSON: which keys an object has, and what is refused on reading."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import pytest

from edgeres.core.methods import Method
from edgeres.errors import ArtifactError
from edgeres.serialization import (
    from_json,
    json_text,
    load_document,
    parse_json,
    save_json,
    to_json,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    """Two fields and a figure that follows from them."""

    json_keys = ("*", "total")

    first: int
    second: int = 0

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ValueError(f"first is {self.first}")

    @property
    def total(self) -> int:
        """Derived."""
        return self.first + self.second


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    """A file of its own with keys of every kind."""

    kind: ClassVar[str] = "test-outer"
    schema_version: ClassVar[int] = 1
    json_keys = ("schema_version", "kind", "inner.*", "count=other.total", "*")

    inner: Inner
    other: Inner | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """No keys are declared: the fields are."""

    method: Method
    by_method: Mapping[Method, float]
    names: tuple[str, ...] = ()
    pair: tuple[int, int] | None = None
    bits: bytes = b""
    inner: Inner | None = None


PLAIN = Plain(
    method=Method.MSE,
    by_method={Method.MAX: 0.5},
    names=("a", "\udcff"),
    pair=(1, 2),
    bits=b"\x80\x01",
    inner=Inner(first=1),
)


def read(raw: object, cls: type[Any] = Plain, *, partial: bool = False) -> Any:
    """Returns a value of JSON's types."""
    return from_json(raw, cls, source="x.json", remedy="Make it again.", partial=partial)


def test_fields_are_keys_in_their_order() -> None:
    """Enumerations are their value, as keys too, bytes base64, tuples arrays."""
    found = to_json(PLAIN)
    assert list(found) == ["method", "by_method", "names", "pair", "bits", "inner"]
    assert found == {
        "method": "mse",
        "by_method": {"max": 0.5},
        "names": ["a", "\udcff"],
        "pair": [1, 2],
        "bits": "gAE=",
        "inner": {"first": 1, "second": 0, "total": 1},
    }
    assert type(found["method"]) is str


def test_keys_that_are_declared() -> None:
    """Spread, renamed, followed to null, and the fields that no entry names."""
    found = to_json(Outer(inner=Inner(first=1, second=2)))
    assert found == {
        "schema_version": 1,
        "kind": "test-outer",
        "first": 1,
        "second": 2,
        "total": 3,
        "count": None,
        "inner": {"first": 1, "second": 2, "total": 3},
        "other": None,
    }
    assert list(found)[2:] == ["first", "second", "total", "count", "inner", "other"]


def test_what_has_no_form_is_an_error() -> None:
    """A set has no order; a path is its text."""
    assert to_json({"path": PurePosixPath("a/b")}) == {"path": "a/b"}
    with pytest.raises(TypeError, match="set has no JSON form"):
        to_json({"a": {1}})


def test_what_is_written_is_read() -> None:
    """By way of text, a file name that is no Unicode included."""
    assert read(json.loads(json_text(PLAIN))) == PLAIN


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "guess"}, "method: Invalid enum value 'guess'"),
        ({"names": "a"}, "names: Expected array, got str"),
        ({"names": ["a", 1]}, "names[1]: Expected str, got int"),
        ({"pair": [1]}, "pair: Expected array of length 2, got 1"),
        ({"pair": [1, True]}, "pair[1]: Expected int, got bool"),
        ({"bits": "gA!="}, "bits: Invalid base64 encoded string"),
        ({"bits": "gAF="}, "bits: 'gAF=', expected 'gAE='"),
        ({"inner": {"second": 1}}, "inner.first: missing"),
        (
            {"inner": {"first": 1, "total": 1}},
            "inner.second: missing, as in files of an earlier edgeres",
        ),
        ({"inner": {"first": 1, "second": 0, "total": 2}}, "inner.total: 2, expected 1"),
        ({"inner": {"first": 1, "second": 0, "total": True}}, "inner.total: True, expected 1"),
        ({"inner": {"first": -1}}, "inner: first is -1"),
        ({"extra": 1}, "extra: unknown, or of a later edgeres"),
    ],
)
def test_damage_is_named_with_its_place(change: dict[str, Any], said: str) -> None:
    """The file, the place, the fact and the remedy."""
    with pytest.raises(ArtifactError) as refused:
        read({**to_json(PLAIN), **change})
    assert str(refused.value) == f"x.json is damaged ({said}). Make it again."


def test_a_part_may_be_read() -> None:
    """Keys that the class does not have are let be, those that it has are still needed."""
    assert read({"first": 1, "second": 2, "more": 3}, Inner, partial=True).total == 3
    with pytest.raises(ArtifactError, match="first: missing"):
        read({"second": 2}, Inner, partial=True)


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e400", "-1e999"])
def test_a_number_is_finite(text: str) -> None:
    """Words that Python's own json takes, and what overflows a float."""
    with pytest.raises(ValueError, match=f"{text} is not a finite number"):
        parse_json(f'{{"a": {text}}}')


@pytest.mark.parametrize("text", [str(2**63), str(-(2**63) - 1), "9" * 5000])
def test_an_integer_has_64_bits(text: str) -> None:
    """Beyond them neither NumPy nor ONNX can hold it."""
    with pytest.raises(ValueError, match=f"{text[:25]} has more than 64 bits"):
        parse_json(text)


def test_the_largest_integers_are_read() -> None:
    """Both ends of 64 bits."""
    assert parse_json(f"[{2**63 - 1}, {-(2**63)}]") == [2**63 - 1, -(2**63)]


def test_what_nests_too_deep_is_no_json() -> None:
    """An error, not a RecursionError."""
    with pytest.raises(ValueError, match="it nests too deep"):
        parse_json("[" * 100_000)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"kind": "test-inner"},
            "is no test-outer file: its kind is 'test-inner'. Check the path.",
        ),
        ({"schema_version": 2}, "has schema version 2, this edgeres reads 1. Make the file again"),
        (
            {"inner": None},
            "is a damaged test-outer file (inner: Expected object, got null). Again.",
        ),
    ],
)
def test_a_document_is_known_by_kind_and_version(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """Then its fields are read."""
    path = tmp_path / "x.json"
    value = Outer(inner=Inner(first=1))
    save_json(path, value)
    assert load_document(path, Outer, remedy="Again.") == value
    save_json(path, {**to_json(value), **change})
    with pytest.raises(ArtifactError) as refused:
        load_document(path, Outer, remedy="Again.")
    assert said in str(refused.value)


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_half_of_a_surrogate_pair_is_damage(text: str) -> None:
    """JSON can escape it, and no text of UTF-8 has it."""
    raw = parse_json(json.dumps({"first": text, "second": 0, "total": 0}))
    with pytest.raises(ArtifactError, match=r"^x is damaged .*surrogates not allowed"):
        from_json(raw, Inner, source="x", damage="is damaged", remedy="Write it again.")

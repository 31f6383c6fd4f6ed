"""A command reads each file once, however many of its steps need what is in it."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import passed
from digits import QUICK, Digits

COMMANDS = {
    "bench": "bench {engine} --reference {model} --data {few} " + QUICK,
    "bench of a simulation": "bench {table} --simulate --reference {model} --data {few}",
    "mixed build": (
        "build-engine {model} --calibration {table} --precision mixed --max-drop 50 "
        "--judge-data {few} -o {out}/mixed.onnx"
    ),
    "build that calibrates": "build-engine {model} --calib-data {few} -o {out}/int8.onnx",
    "calibration": ("calibrate {model} --data {few} --emit-trt-cache {out}/cache -o {out}/t.json"),
}

_counts: list[Counter[str]] = []
"""Opened paths with how often, while a test counts; Python's audit hooks cannot be removed."""


def _count_opened(event: str, arguments: tuple[object, ...]) -> None:
    if _counts and event == "open" and isinstance(arguments[0], str | os.PathLike):
        _counts[-1][os.fspath(arguments[0])] += 1


sys.addaudithook(_count_opened)


@pytest.fixture
def opened() -> Iterator[Counter[str]]:
    """How often Python opened each path since the test began."""
    _counts.append(Counter())
    yield _counts[-1]
    _counts.pop()


@pytest.fixture(scope="module")
def few(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty labelled digits."""
    path = tmp_path_factory.mktemp("few") / "few.npz"
    with np.load(digits.test) as data:
        np.savez(path, images=data["images"][:40], labels=data["labels"][:40])
    return path


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_reads_each_file_once(
    name: str, digits: Digits, few: Path, opened: Counter[str], tmp_path: Path
) -> None:
    """Model, table and engine: what is hashed is what is used."""
    line = COMMANDS[name]
    passed(*digits.words(line, few=few, out=tmp_path))
    files = {"{model}": digits.model, "{table}": digits.table, "{engine}": digits.engine}
    expected = {str(path): 1 for key, path in files.items() if key in line}
    assert {path: opened[path] for path in expected} == expected


def test_a_second_read_is_counted(digits: Digits, opened: Counter[str]) -> None:
    """By whatever function of Python."""
    digits.model.read_bytes()
    with digits.model.open("rb"):
        assert opened[str(digits.model)] == 2

"""Hostile and broken inputs, generated: every reader with every fault, every number with every text.

A fault is a way in which a file can be wrong; a reader is a command line that reads one. Each pair
ends with an exit code and one sentence, or is taken as it is where the fault leaves a valid file;
never with a traceback, a hang or a file that was not there. A new reader or fault is one line.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from commands import passed, run
from digits import QUICK, Digits
from PIL import Image

from edgeres.cli import main
from edgeres.core.artifacts import manifest_path
from edgeres.core.table import load_table
from edgeres.onnx_file import load_onnx
from edgeres.targets.tensorrt.calibration_cache import trt_cache

LONG = "9" * 5000


def kept(part: float) -> Callable[[Path], object]:
    """Returns a fault that cuts a file off."""
    return lambda path: os.truncate(path, int(path.stat().st_size * part))


def content(made: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Returns a fault of a file's content."""
    return lambda path: path.write_bytes(made(path.read_bytes()))


def noise(seed: int) -> Callable[[Path], object]:
    """Returns a fault that changes, takes out or puts in a few bytes."""

    def change(data: bytes) -> bytes:
        random, changed = np.random.default_rng(seed), bytearray(data)
        for _ in range(4):
            at, length = int(random.integers(max(1, len(changed)))), int(random.integers(1, 9))
            changed[at : at + length] = random.bytes(int(random.integers(0, 2 * length)))
        return bytes(changed)

    return content(change)


def replaced(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Returns a fault that puts something else in a file's place."""

    def fault(path: Path) -> None:
        path.unlink()
        make(path)

    return fault


PLACES: dict[str, Callable[[Path], object]] = {
    "absent": Path.unlink,
    "a folder": replaced(Path.mkdir),
    "a pipe": replaced(os.mkfifo),
    "a device without end": replaced(lambda path: path.symlink_to("/dev/zero")),
    "a full device": replaced(lambda path: path.symlink_to("/dev/full")),
    "a link to itself": replaced(lambda path: path.symlink_to(path)),
    "a link to nowhere": replaced(lambda path: path.symlink_to("nowhere")),
    "a process's memory": replaced(lambda path: path.symlink_to("/proc/self/mem")),
    "a terabyte of holes": lambda path: os.truncate(path, 1 << 40),
}
"""Faults of what stands at a path."""

CONTENTS: dict[str, Callable[[Path], object]] = {
    "empty": kept(0),
    **{f"cut at {part}": kept(part) for part in (0.01, 0.3, 0.6, 0.9, 0.999)},
    "one byte": content(lambda _: b"\x80"),
    "zeros": content(lambda data: bytes(len(data))),
    "no text": content(lambda _: b"\xff\xfe\x00\x81" * 99),
    "text": content(lambda _: b"learning rate 0.1\n"),
    "brackets": content(lambda _: b"[" * 100_000),
    "an object": content(lambda _: b"{}"),
    "a pickle": content(lambda _: b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00."),
    "an archive": content(lambda _: b"PK\x05\x06" + bytes(18)),
    "a PNG's start": content(lambda _: b"\x89PNG\r\n\x1a\n" + bytes(30)),
    "a script": content(lambda _: b"#!/bin/sh\nrm -rf /\n"),
    "a header that claims": content(lambda data: (1 << 60).to_bytes(8, "little") + data[8:]),
    "backwards": content(lambda data: data[::-1]),
    **{f"noise {seed}": noise(seed) for seed in range(6)},
}
"""Faults of what a file holds."""

READERS: dict[str, tuple[str, str]] = {
    "model.onnx": ("inspect {file}", "places contents"),
    "foreign.onnx": ("build-engine {file} --precision fp32 --preset digits -o {out}/x", "places"),
    "table.json": ("inspect {file}", "places contents"),
    "calib.cache": ("calibrate {model} --import-trt-cache {file} -o {out}/x", "places contents"),
    "verdict.json": ("compare {file}", "places contents"),
    "engine.onnx": ("bench {file} --reference {model} --data {test} " + QUICK, "places contents"),
    "engine.onnx.json": (
        "bench {dir}/engine.onnx --reference {model} --data {test} " + QUICK,
        "contents",
    ),
    "weights.pth": (
        "export resnet20 --weights {file} --preset digits -o {out}/x",
        "places contents",
    ),
    "weights.safetensors": (
        "export resnet20 --weights {file} --preset digits -o {out}/x",
        "places contents",
    ),
    "names.txt": (
        "export resnet20 --weights {weights} --labels {file} --preset digits -o {out}/x",
        "places",
    ),
    "data.npz": ("calibrate {model} --data {file} --method max -o {out}/x", "places contents"),
    "images/a.png": ("calibrate {model} --data {dir}/images --method max -o {out}/x", "contents"),
    "photo.png": ("predict {engine} {file} --top 1", "places contents"),
    "set/labels.csv": ("calibrate {model} --data {dir}/set --method max -o {out}/x", "contents"),
}
"""A good file's name, the line that reads it, and the faults that it is given."""

PAIRS = [
    (name, fault)
    for name, (_, kinds) in READERS.items()
    for fault in (
        *(PLACES if "places" in kinds else ()),
        *(CONTENTS if "contents" in kinds else ()),
    )
    # Damaged weights are weights: these would be exported, which takes seconds.
    if not (name.startswith("weights") and fault.startswith("noise"))
]


@pytest.fixture(scope="module")
def good(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good file for each reader."""
    import torch
    from safetensors.torch import load_file

    folder = tmp_path_factory.mktemp("good")
    shutil.copy(digits.model, folder / "model.onnx")
    shutil.copy(digits.model, folder / "foreign.onnx")
    shutil.copy(digits.table, folder / "table.json")
    cache = trt_cache(load_onnx(digits.model), load_table(digits.table), "8.6.2")
    (folder / "calib.cache").write_text(cache)
    shutil.copy(digits.engine, folder / "engine.onnx")
    shutil.copy(manifest_path(digits.engine), folder / "engine.onnx.json")
    shutil.copy(digits.weights, folder / "weights.safetensors")
    torch.save(load_file(digits.weights), folder / "weights.pth")
    (folder / "names.txt").write_text("\n".join("abcdefghij"))
    image = Image.linear_gradient("L").resize((32, 32)).convert("RGB")
    np.savez_compressed(folder / "data.npz", images=np.stack([np.asarray(image)] * 4))
    for name in ("images/a.png", "set/a.png", "photo.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        image.save(folder / name)
    (folder / "set" / "labels.csv").write_text("file,class_index\na.png,0\n")
    line = "bench {engine} --reference {model} --data {test} --json " + QUICK
    (folder / "verdict.json").write_text(passed(*digits.words(line)))
    return folder


def said(words: list[str], out: Path) -> tuple[int, str]:
    """Returns exit code and sentence of a line, checked as every refusal is."""
    result = run(*words)
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    if result.exit_code:
        assert result.exit_code in (1, 2, 6), result.output
        assert len(errors) == 1 or '"failed"' in result.stdout, result.output
        assert list(out.iterdir()) == []
    sentence = errors[0] if errors else ""
    assert len(sentence) < 5000
    assert "\x1b" not in result.stderr
    return result.exit_code, sentence


@pytest.mark.parametrize(("name", "fault"), PAIRS)
def test_a_broken_file_ends_in_a_sentence(
    name: str, fault: str, good: Path, digits: Digits, tmp_path: Path
) -> None:
    """Every reader with every fault; a place that is no file is never taken."""
    folder, out = tmp_path / "in", tmp_path / "out"
    # What stands together is copied together: an engine and its manifest, a folder of images.
    together = name.split("/")[0].removesuffix(".json") if "engine" in name else name.split("/")[0]
    folder.mkdir()
    for path in good.glob(f"{together}*"):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / path.name)
    out.mkdir()
    ({**PLACES, **CONTENTS}[fault])(folder / name)
    words = digits.words(READERS[name][0], file=folder / name, dir=folder, out=out)
    code, sentence = said(words, out)
    if fault in PLACES:
        assert code != 0
        assert sentence.endswith((".", "?")) or not sentence


VALUES: Mapping[str, Any] = {
    "missing": ...,
    "null": None,
    "text": "x",
    "a list": [],
    "an object": {"a": 1},
    "below 0": -1,
    "yes": True,
    "65 bits": 1 << 65,
    "huge": 1e308,
}

DOCUMENTS: dict[str, tuple[str, ...]] = {
    "table.json": (
        "schema_version",
        "kind",
        "model_sha256",
        "data",
        "tensors",
        "method",
        "recovery",
    ),
    "engine.onnx.json": (
        "target",
        "precision",
        "engine_sha256",
        "contract",
        "classes",
        "input",
        "batch",
    ),
    "verdict.json": ("engine", "accuracy", "latency", "provenance", "checks", "schema_version"),
}


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        (name, key, value)
        for name, keys in DOCUMENTS.items()
        for key, value in product(keys, VALUES)
    ],
)
def test_a_wrong_value_ends_in_a_sentence(
    name: str, key: str, value: str, good: Path, digits: Digits, tmp_path: Path
) -> None:
    """Each key of a document with a value of every other type."""
    for each in ("table.json", "engine.onnx", "engine.onnx.json", "verdict.json"):
        shutil.copy(good / each, tmp_path / each)
    raw = copy.deepcopy(json.loads((good / name).read_text()))
    if VALUES[value] is ...:
        raw.pop(key, None)
    else:
        raw[key] = VALUES[value]
    (tmp_path / name).write_text(json.dumps(raw))
    (out := tmp_path / "out").mkdir()
    words = digits.words(READERS[name][0], file=tmp_path / name, dir=tmp_path, out=out)
    said(words, out)


TEXTS = ("", " ", "nan", "inf", "-inf", "-1", "0", "1e400", "1e999999999", LONG, "0x10", "½", "\uff11\uff12",
         "\x1b[31m1", "1/0", "1,2", "--", "../..")  # fmt: skip
"""What a user or a script may put where a number is expected."""


PARSED = {"--scale", "--mean", "--std", "--resize", "--batch"}
"""Options of texts that are read as numbers."""

NUMBERS = [
    (name, parameter.opts[-1])
    for name in ("calibrate", "build-engine", "bench", "predict")
    for parameter in main.commands[name].params
    if isinstance(parameter, click.Option)
    and not (parameter.is_flag or parameter.count)
    and (
        isinstance(parameter.type, click.types.IntParamType | click.types.FloatParamType)
        or parameter.opts[-1] in PARSED
    )
]
"""Command and option wherever a number is expected."""


@pytest.mark.parametrize(("command", "option"), NUMBERS)
def test_a_text_for_a_number_ends_in_a_sentence(
    command: str, option: str, digits: Digits, tmp_path: Path
) -> None:
    """Every numeric option with every text, at once: no file is there, so nothing runs for long."""
    arguments = {
        "calibrate": "calibrate {gone} --data {gone} -o {out}/x",
        "build-engine": "build-engine {gone} --calibration {gone} -o {out}/x",
        "bench": "bench {gone} --reference {gone} --data {gone}",
        "predict": "predict {gone} {gone}",
    }[command]
    for text in TEXTS:
        words = digits.words(arguments, gone=tmp_path / "gone", out=tmp_path)
        result = run(*words, f"{option}={text}")
        assert result.exit_code in (1, 2), text
        assert "Error: " in result.stderr
        assert len(result.stderr) < 12_000
    assert list(tmp_path.iterdir()) == []


def test_there_are_as_many_as_promised() -> None:
    """400 at least, whatever is taken out of the tables above."""
    values = sum(len(keys) for keys in DOCUMENTS.values()) * len(VALUES)
    assert len(PAIRS) + values + len(NUMBERS) * len(TEXTS) >= 400

"""No option of any command lets an output replace what is read, or another output."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from string import Formatter
from typing import Any

import click
import pytest
from commands import refusal
from digits import Digits

from edgeres import files
from edgeres.cli import main
from edgeres.cli.options import PATH
from edgeres.core.artifacts import manifest_path
from edgeres.files import check_outputs

LINES = (
    "export resnet20 --weights {weights} --labels {labels} --preset digits -o {output}",
    "calibrate {model} --data {data} -o {output} --emit-trt-cache {emit_trt_cache}",
    "build-engine {model} --calibration {calibration} --precision mixed --max-drop 1 "
    "--judge-data {judge_data} -o {output}",
    "build-engine {model} --calib-data {calib_data} --target tensorrt -o {output} "
    "--timing-cache {timing_cache}",
    "bench {engine} --reference {reference} --data {data} --baseline {baseline} --dump {dump} --image {image} --report {html} "
    "--markdown {markdown} --junit {junit} --history {history}",
    "predict {engine} {images} --reference {reference} --csv {csv}",
    "deploy {engine} --to python --image {image} --verdict {verdict} --reference {reference}",
    "sweep {model} --data {data} --calibration {table} -o out",
    "sweep {model} --data {data} --calib-data {calibration_data} --precision mixed --max-drop 1 "
    "--judge-data {selection_data} -o out",
    "calibrate {model} --import-trt-cache {import_trt_cache} -o {output}",
    "compare {verdicts}",
    "compare --history {history} --report {html}",
    "inspect {path}",
    "explain resnet18 --svg {svg}",
)
"""Command lines that have every option which takes a file, under the name of its parameter."""

OUTPUTS = frozenset(
    {"output", "emit_trt_cache", "timing_cache", "html", "markdown", "junit", "svg", "csv"}
)

FOLDERS = frozenset(
    {("bench", "loadgen_logs"), ("demo", "keep"), ("deploy", "output"), ("sweep", "output")}
)
"""Outputs of which only a folder is named."""

DATA = frozenset({"data", "calib_data", "judge_data", "calibration_data", "selection_data"})
"""Inputs that may be folders."""


def fields(line: str) -> list[str]:
    """Returns the parameters of a command line that are files."""
    return [name for _, name, _, _ in Formatter().parse(line) if name]


def files_of(command: click.Command) -> Iterator[str]:
    """Yields the parameters of a command that take a file or folder, but those of programs."""
    for parameter in (p for p in command.params if not getattr(p, "hidden", False)):
        label = str(parameter.metavar)
        if parameter.type is PATH or any(word in label for word in ("FILE", "DIR", "OUT", "PATH")):
            yield str(parameter.name)


def test_every_option_that_takes_a_file_is_here() -> None:
    """A new one joins a line above, and so the tests below."""
    known = {(line.split()[0], name) for line in LINES for name in fields(line)} | FOLDERS
    taken = {(name, of) for name, command in main.commands.items() for of in files_of(command)}
    assert taken == known


@pytest.fixture
def inputs(digits: Digits, tmp_path: Path) -> dict[str, Path]:
    """A file of its own for each input."""
    sources = {
        "model": digits.model,
        "reference": digits.model,
        "path": digits.model,
        "weights": digits.weights,
        "calibration": digits.table,
        "table": digits.table,
        "engine": digits.engine,
    }
    made = {}
    for name in {name for line in LINES for name in fields(line)} - OUTPUTS:
        made[name] = tmp_path / f"in.{name}{'.npz' if name in DATA else '.onnx'}"
        shutil.copy(sources.get(name, digits.test), made[name])
    shutil.copy(manifest_path(digits.engine), manifest_path(made["engine"]))
    return made


def filled(line: str, inputs: dict[str, Path], **outputs: Path) -> list[str]:
    """Returns the words of a line; outputs that are not given are new files."""
    folder = inputs["model"].parent
    new = {name: folder / f"out.{name}" for name in OUTPUTS}
    return [word.format(**{**inputs, **new, **outputs}) for word in line.split()]


def contents(folder: Path) -> dict[str, bytes]:
    """Returns all files below a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def relative(path: Path) -> Path:
    """Returns another way to write a path."""
    return path.parent / ".." / path.parent.name / path.name


def hard_link(path: Path) -> Path:
    """Returns another name of a file."""
    os.link(path, name := path.with_name(f"hard.{path.name}"))
    return name


def soft_link(path: Path) -> Path:
    """Returns a link to a file."""
    (name := path.with_name(f"soft.{path.name}")).symlink_to(path)
    return name


ALIASES: tuple[Callable[[Path], Path], ...] = (Path, relative, hard_link, soft_link)
"""Ways to name a file."""

OVER_INPUTS = [
    (line, output, name)
    for line in LINES
    for output in fields(line)
    for name in fields(line)
    if output in OUTPUTS and name not in OUTPUTS
]


@pytest.mark.parametrize("alias", ALIASES, ids=lambda alias: alias.__name__)
@pytest.mark.parametrize(("line", "output", "name"), OVER_INPUTS, ids=lambda text: text.split()[0])
def test_no_output_replaces_an_input(
    line: str, output: str, name: str, alias: Callable[[Path], Path], inputs: dict[str, Path]
) -> None:
    """By its own name, another way to write it, a hard link or a link; before any work."""
    over = alias(inputs[name])
    before = contents(over.parent)
    said = refusal(*filled(line, inputs, **{output: over}), code=2)
    assert f"{over} is what is read here" in said
    assert "and would be lost. Pass another path." in said
    assert contents(over.parent) == before


TWO_OUTPUTS = [
    (line, pair)
    for line in LINES
    for pair in combinations([name for name in fields(line) if name in OUTPUTS], 2)
]


@pytest.mark.parametrize("alias", [Path, relative, soft_link], ids=lambda alias: alias.__name__)
@pytest.mark.parametrize("exists", [False, True], ids=["new", "old"])
@pytest.mark.parametrize(("line", "pair"), TWO_OUTPUTS, ids=str)
def test_no_two_outputs_are_one_file(
    line: str,
    pair: tuple[str, str],
    exists: bool,
    alias: Callable[[Path], Path],
    inputs: dict[str, Path],
    tmp_path: Path,
) -> None:
    """Where it is there already, and where both would be new."""
    one = tmp_path / "one"
    if exists:
        one.write_text("old")
    other = alias(one)
    before = contents(tmp_path)
    said = refusal(*filled(line, inputs, **dict(zip(pair, (one, other), strict=True))), code=2)
    assert said.startswith("Two outputs would be the same file: ")
    assert contents(tmp_path) == before


def test_what_is_written_beside_an_output_counts(inputs: dict[str, Path], tmp_path: Path) -> None:
    """The manifest of an engine, as an output and as what is read with it."""
    build, bench = LINES[3], LINES[4]
    engine = tmp_path / "new"
    words = filled(build, inputs, output=engine, timing_cache=manifest_path(engine))
    assert "Two outputs would be the same file" in refusal(*words, code=2)
    manifest = manifest_path(inputs["engine"])
    for report in ("html", "markdown", "junit"):
        said = refusal(*filled(bench, inputs, **{report: manifest}), code=2)
        assert f"{manifest} is what is read here" in said
    model = inputs["model"].rename(tmp_path / "x.json")
    words = filled(build, {**inputs, "model": model}, output=tmp_path / "x")
    assert f"{model} is what is read here" in refusal(*words, code=2)


INTO_DATA = [
    (line, output, data)
    for line in LINES
    for output in fields(line)
    for data in fields(line)
    if output in OUTPUTS and data in DATA
]


@pytest.mark.parametrize("name", ["labels.csv", "LABELS.CSV", "cat.png", "cat/1.JPEG"])
@pytest.mark.parametrize(("line", "output", "data"), INTO_DATA, ids=lambda text: text.split()[0])
def test_no_output_becomes_data(
    line: str, output: str, data: str, name: str, inputs: dict[str, Path], tmp_path: Path
) -> None:
    """Labels and images in a folder of images are read by the next command."""
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    path = tmp_path / "photos" / name
    words = filled(line, {**inputs, data: tmp_path / "photos"}, **{output: path})
    said = refusal(*words, code=2)
    assert f"{path} would become part of the data in {tmp_path / 'photos'}" in said


def test_other_files_may_lie_beside_the_data(tmp_path: Path) -> None:
    """`--data . -o table.json` is what many type."""
    check_outputs([tmp_path / "table.json"], [tmp_path])
    (tmp_path / "photos").mkdir()
    check_outputs([tmp_path / "labels.csv"], [tmp_path / "photos"])
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_names_that_the_file_system_takes_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a Mac's disk, where case does not count."""
    create = os.open

    def create_lower(path: Path, *args: Any) -> int:
        return create(path.with_name(path.name.lower()), *args)

    def same(self: Path, other: Path) -> bool:
        self.with_name(self.name.lower()).stat()
        return str(self).lower() == str(other).lower()

    monkeypatch.setattr(os, "open", create_lower)
    monkeypatch.setattr(Path, "samefile", same)
    with pytest.raises(
        ValueError, match=r"Two outputs would be the same file: .*a\.md and .*A\.MD"
    ):
        check_outputs([tmp_path / "a.md", tmp_path / "A.MD"])


def test_by_names_alone_a_link_would_be_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tests above rest on."""
    (tmp_path / "a").touch()
    other = hard_link(tmp_path / "a")
    with pytest.raises(ValueError, match="would be lost"):
        check_outputs([other], [tmp_path / "a"])
    monkeypatch.setattr(files, "_is_same_file", lambda path, other: path == other)
    check_outputs([other], [tmp_path / "a"])

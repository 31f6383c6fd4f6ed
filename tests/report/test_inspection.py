"""What `inspect` prints of an engine."""

from __future__ import annotations

from dataclasses import replace

import pytest
from digits import Digits
from rich.console import Console

from edgeres.core.artifacts import OnnxArtifact, load_engine
from edgeres.report.inspection import render_artifact
from edgeres.workflows import inspect_artifact


@pytest.mark.parametrize("joined", ["", "/layer2/layer2.0/Add"])
def test_a_layer_names_the_one_that_computes_it(digits: Digits, joined: str) -> None:
    """Where it is part of another layer's convolution, and nowhere else."""
    engine = load_engine(digits.engine)
    first, *others = engine.manifest.layers
    layers = (replace(first, joined=joined), *others)
    changed = replace(engine, manifest=replace(engine.manifest, layers=layers))
    console = Console(width=200)
    with console.capture() as printed:
        console.print(render_artifact(changed))
    lines = [line for line in printed.get().splitlines() if "(in " in line]
    assert len(lines) == bool(joined)
    assert all(line.startswith(first.name) and f"int8 (in {joined})" in line for line in lines)


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "without names"),
        (2, "c0, c1"),
        (10, "c0, c1, c2, c3, c4, c5, c6, c7, c8, c9"),
        (11, "c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, and 1 more"),
    ],
)
def test_classes_are_named(number: int, shown: str, digits: Digits) -> None:
    """The first ten of a model and of its engine, and how many there are besides."""
    names = tuple(f"c{index}" for index in range(number))
    engine = load_engine(digits.engine)
    model = inspect_artifact(digits.model)
    assert isinstance(model, OnnxArtifact)
    for one in (
        replace(engine, manifest=replace(engine.manifest, classes=names)),
        replace(model, classes=names),
    ):
        console = Console(width=200)
        with console.capture() as printed:
            console.print(render_artifact(one))
        (line,) = [row for row in printed.get().splitlines() if row.startswith("classes ")]
        assert " ".join(line.split()[1:]) == shown

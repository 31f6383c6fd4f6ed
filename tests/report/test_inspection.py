"""What `inspect` prints of an engine."""

from __future__ import annotations

from dataclasses import replace

import pytest
from digits import Digits
from rich.console import Console

from edgeres.core.artifacts import load_engine
from edgeres.report.inspection import render_artifact


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

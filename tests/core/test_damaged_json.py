"""Every JSON that edgeres reads, damaged in every place: taken as it is, or refused with a sentence."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from networks import network
from onnx import ModelProto
from rich.console import Console
from test_artifacts import MANIFEST
from test_audit import AUDIT
from test_onnx_file import DESCRIBED
from test_recovery import with_recovery
from test_results import COMPARISON
from test_results import ENGINE as ENGINE_STATS

from edgeres.core.artifacts import load_engine, manifest_path
from edgeres.core.builder_options import TensorRTOptions
from edgeres.core.methods import Method, WeightMethod
from edgeres.core.table import load_table
from edgeres.core.tuning import (
    Choice,
    ErrorSource,
    MixedPoint,
    MixedSearch,
    Sensitivity,
    UnitSensitivity,
)
from edgeres.core.verdict import Energies, PairedLatency, load_run
from edgeres.errors import EdgeresError
from edgeres.evaluation.regression import against_baseline, rank
from edgeres.machine import Energy, Severity, StabilityFinding
from edgeres.onnx_file import load_onnx, save_model
from edgeres.report import render_artifact
from edgeres.serialization import json_text, to_json

UNIT = UnitSensitivity(
    unit="layer1.0", kind="block", nodes=("conv1",), alone_db=30.0, without_db=21.0
)
SENSITIVITY = Sensitivity(
    images=2,
    method=Method.MSE,
    all_db=20.0,
    units=(UNIT,),
    sources=(ErrorSource(name="image", tensors=1, alone_db=37.0),),
)
TABLE = replace(
    with_recovery(),
    choices=(
        Choice(
            target="onnxruntime",
            images=2,
            method=Method.MSE,
            sqnr_db={Method.MSE: 20.0},
            factors={"7x7 signed": 1.1},
            tuned_db=21.0,
            weights_db={WeightMethod.MAX: 21.0},
        ),
    ),
    sensitivity=SENSITIVITY,
)
ENGINE = replace(
    MANIFEST,
    batch=(1, 1, 16),
    options=TensorRTOptions(),
    required_coverage=90.0,
    audit=AUDIT,
    search=MixedSearch(
        max_drop_pp=0.5,
        images=8,
        labelled=True,
        measured=False,
        points=(MixedPoint(kept=(), drop_pp=0.1, sqnr_db=20.0, latency=1.0),),
        pareto=(0,),
    ),
    sensitivity=SENSITIVITY,
    ranges={"relu": 6.0},
)
ENERGY = Energy(
    meter="rapl", scope=("package-0",), images=8, seconds=1.0, total_joules=9.0, idle_watts=5.0
)
RECORD = replace(COMPARISON.accuracy.images, reference="11011011", engine="10101011")
VERDICT = replace(
    COMPARISON,
    accuracy=replace(COMPARISON.accuracy, images=RECORD),
    latency=PairedLatency(mode="m", batch_size=1, engine=ENGINE_STATS, reference=ENGINE_STATS),
    energy=Energies(engine=ENERGY, reference=ENERGY),
)

Place = tuple[str | int, ...]

GONE, TWICE = object(), object()
HUGE = "\x00huge"
"""Stands in a damaged value for text that Python's json would not write; see `RAW`."""

RAW = ("NaN", "1e400", "9" * 25, "[" * 3000 + "]" * 3000)
"""What else stands where a value belongs: no JSON numbers, and those that fit no machine type."""

VALUES: tuple[Any, ...] = (None, True, "x", -1, 0, 1 << 40, 1.5, [], {}, ["x"], [[1.0]])


def places(tree: Any, at: Place = ()) -> Iterator[Place]:
    """Yields where each value stands, below the top."""
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in entries:
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from places(value, (*at, key))


def damaged(tree: Any) -> Iterator[str]:
    """Yields the text with one value gone, another or once more; and with one key too many."""
    for place in places(tree):
        for value in (GONE, TWICE, HUGE, *VALUES):
            found = copy.deepcopy(tree)
            owner: Any = found
            key: Any = place[-1]
            for step in place[:-1]:
                owner = owner[step]
            if value is GONE:
                del owner[key]
            elif value is not TWICE:
                owner[key] = value
            elif isinstance(key, int):
                owner.append(owner[key])
            else:
                owner["extra"] = owner[key]
            text = json.dumps(found)
            yield from (
                (text.replace(json.dumps(HUGE), raw) for raw in RAW) if value is HUGE else (text,)
            )


def used(text: str, use: Callable[[str], Any]) -> bool:
    """Returns whether the text is taken, and then as it stands; a refusal says what is wrong."""
    try:
        taken = use(text)
    except EdgeresError as error:
        refusal = str(error)
    else:
        assert taken is None or to_json(taken) == json.loads(text)
        return True
    assert len(refusal) > 40
    assert refusal.endswith((".", ".json"))
    return False


def printed(artifact: object) -> None:
    """Lays an artifact out for people."""
    Console(file=io.StringIO(), width=80).print(render_artifact(artifact))


def check(document: Any, use: Callable[[str], Any]) -> None:
    """Checks that a document is taken, and each damage of it taken or refused."""
    assert used(json.dumps(document), use)
    taken = [used(text, use) for text in damaged(document)]
    assert False in taken


def test_a_damaged_table(tmp_path: Path) -> None:
    """Of calibration, with a search, a sensitivity and a recovery in it."""
    path = tmp_path / "table.json"

    def use(text: str) -> Any:
        path.write_text(text)
        table = load_table(path)
        if '"x"' not in text:
            printed(table)
        return table

    check(to_json(TABLE), use)


def test_a_damaged_manifest(tmp_path: Path) -> None:
    """Of an engine, with an audit, a search and the builder's options in it."""
    engine = tmp_path / "net.plan"
    engine.write_bytes(b"plan")

    def use(text: str) -> Any:
        manifest_path(engine).write_text(text)
        found = load_engine(engine)
        if '"x"' not in text:
            printed(found)
        return found.manifest

    check(to_json(ENGINE), use)


READ = (
    *("schema_version", "kind", "outcome", "passed", "accuracy", "latency", "energy"),
    *("environment", "provenance"),
)
"""Keys of a verdict that a later run is compared with, beside the findings on its stability."""

FINDING = StabilityFinding(name="steal", severity=Severity.UNSTABLE, sentence="It was shared.")


def test_a_damaged_verdict(tmp_path: Path) -> None:
    """Read as far as a later run is compared with it; the other keys may be absent."""
    path, other = tmp_path / "old.json", tmp_path / "other.json"
    other.write_text(json_text(VERDICT))
    before = load_run(other)

    def use(text: str) -> None:
        path.write_text(text)
        run = load_run(path)
        against_baseline(
            before,
            run.images,
            run.latency,
            machine=run.machine,
            reference_sha256=run.reference_sha256,
        )
        rank((before, run))

    document = {key: to_json(VERDICT)[key] for key in READ}
    check(document | {"stability": {"findings": [to_json(FINDING)]}}, use)


def test_damaged_metadata(tmp_path: Path) -> None:
    """Of an ONNX file: contract, classes and lineage, each an entry of its own."""
    path = tmp_path / "model.onnx"
    save_model(path, network("identity"), DESCRIBED)
    model = ModelProto.FromString(path.read_bytes())
    entries = {prop.key: prop for prop in model.metadata_props}
    for name in ("contract", "classes", "architecture", "checkpoint_sha256"):
        entry = entries[f"edgeres.{name}"]
        intact = entry.value

        def use(text: str, name: str = name, entry: Any = entry) -> Any:
            entry.value = text.removeprefix('{"": ').removesuffix("}")
            path.write_bytes(model.SerializeToString())
            found = load_onnx(path).artifact
            return {"": getattr(found, name)}

        check({"": json.loads(intact)}, use)
        entry.value = intact

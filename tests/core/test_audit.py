"""An audit's figures and its JSON."""

from __future__ import annotations

import json

import pytest

from edgeres.core.audit import (
    Audit,
    AuditedNode,
    EngineLayer,
    Source,
    describe_coverage,
    describe_missed,
)
from edgeres.core.precision import Precision
from edgeres.errors import ArtifactError
from edgeres.serialization import from_json, to_json

NODES = (
    AuditedNode(name="a", op_type="Conv", asked=Precision.INT8, ran=Precision.INT8, layer="a + b"),
    AuditedNode(name="b", op_type="Add", asked=Precision.INT8, ran=Precision.INT8, layer="a + b"),
    AuditedNode(name="c", op_type="Conv", asked=Precision.INT8, ran=Precision.FP16, layer="c"),
    AuditedNode(name="d", op_type="Conv", asked=Precision.INT8, ran=None),
)

AUDIT = Audit(
    source=Source.INSPECTOR,
    layers=(
        EngineLayer(name="r", kind="Reformat", precision=None, is_reformat=True),
        EngineLayer(
            name="a + b", kind="Conv", precision=Precision.INT8, nodes=("a", "b"), tactic="i8i8"
        ),
        EngineLayer(name="c", kind="Conv", precision=Precision.FP16, nodes=("c",)),
    ),
    nodes=NODES,
    note="noted",
)


def test_the_figures() -> None:
    """Half is covered, two are missed, one layer is fused and one a reformat."""
    assert AUDIT.coverage == 50
    assert AUDIT.missed == NODES[2:]
    assert (AUDIT.fused, AUDIT.reformats) == (1, 1)


def read(raw: object) -> Audit:
    """Returns the audit of a JSON form."""
    return from_json(raw, Audit, source="it", remedy="Build again.")


def test_no_convolution_is_wholly_covered() -> None:
    """There is nothing to miss."""
    assert Audit(source=Source.PARSED, layers=(), nodes=()).coverage == 100


def test_the_json_form_is_read_back() -> None:
    """The coverage in it is for readers, and derived again."""
    raw = json.loads(json.dumps(to_json(AUDIT)))
    assert raw["coverage"] == 50
    assert read(raw) == AUDIT


@pytest.mark.parametrize("key", ["source", "layers", "nodes", "note"])
def test_a_missing_key_is_an_error(key: str) -> None:
    """For whoever loads the manifest to explain."""
    raw = to_json(AUDIT)
    del raw[key]
    with pytest.raises(ArtifactError, match=rf"^it is damaged \(.*{key}.*\)\. Build again\.$"):
        read(raw)


@pytest.mark.parametrize("source", ["guesswork", 3])
def test_an_unknown_source_is_an_error(source: object) -> None:
    """As an unknown precision is."""
    with pytest.raises(ArtifactError, match=r"^it is damaged \(source: "):
        read({**to_json(AUDIT), "source": source})


def test_a_coverage_that_does_not_follow_from_the_nodes_is_an_error() -> None:
    """The figure that people read is the one that counts."""
    with pytest.raises(ArtifactError, match=r"^it is damaged \(coverage: 100, expected 50\.0\)"):
        read({**to_json(AUDIT), "coverage": 100})


def test_the_sentences() -> None:
    """One on the whole, and one on each that was missed."""
    assert describe_coverage(AUDIT, Precision.INT8) == (
        "2 of 4 convolutions and additions run as requested in int8: coverage 50.0 %, by the "
        "engine inspector"
    )
    assert [describe_missed(node) for node in AUDIT.missed] == [
        "Conv c (ran in fp16)",
        "Conv d (not found among the engine's layers)",
    ]

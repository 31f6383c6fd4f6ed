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


def test_no_convolution_is_wholly_covered() -> None:
    """There is nothing to miss."""
    assert Audit(source=Source.PARSED, layers=(), nodes=()).coverage == 100


def test_the_json_form_is_read_back() -> None:
    """The coverage in it is for readers, and derived again."""
    raw = json.loads(json.dumps(AUDIT.to_dict()))
    assert raw["coverage"] == 50
    assert Audit.from_dict(raw) == AUDIT


@pytest.mark.parametrize("key", ["source", "layers", "nodes", "note"])
def test_a_missing_key_is_an_error(key: str) -> None:
    """For whoever loads the manifest to explain."""
    raw = AUDIT.to_dict()
    del raw[key]
    with pytest.raises(KeyError):
        Audit.from_dict(raw)


@pytest.mark.parametrize("source", ["guesswork", 3])
def test_an_unknown_source_is_an_error(source: object) -> None:
    """As an unknown precision is."""
    with pytest.raises(ValueError, match="is not a valid Source"):
        Audit.from_dict({**AUDIT.to_dict(), "source": source})


def test_the_sentences() -> None:
    """One on the whole, and one on each that was missed."""
    assert describe_coverage(AUDIT, Precision.INT8) == (
        "2 of 4 convolutions and additions run as asked for in int8: coverage 50.0 %, by the "
        "engine inspector"
    )
    assert [describe_missed(node) for node in AUDIT.missed] == [
        "Conv c (ran in fp16)",
        "Conv d (not found among the engine's layers)",
    ]

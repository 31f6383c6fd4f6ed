"""An audit for people, block by block."""

from __future__ import annotations

import io

from rich.console import Console, Group

from edgeres.core.audit import Audit, AuditedNode, EngineLayer, Source
from edgeres.core.precision import Precision
from edgeres.report.inspection import blocks, render_audit


def node(name: str, kind: str = "Conv", ran: Precision | None = Precision.INT8) -> AuditedNode:
    """Returns an operator that was requested in INT8, in a layer of its own name."""
    return AuditedNode(name=name, op_type=kind, asked=Precision.INT8, ran=ran, layer=name)


def text(audit: Audit) -> str:
    """Returns what a terminal of 100 columns shows."""
    console = Console(width=100, file=io.StringIO())
    with console.capture() as shown:
        console.print(Group(*render_audit(audit, Precision.INT8)))
    return shown.get()


def test_blocks_by_the_exporters_paths() -> None:
    """A stem, two blocks of which one has a projection, and a head."""
    nodes = [
        node("/conv1/Conv"),
        node("/layer1/layer1.0/conv1/Conv"),
        node("/layer1/layer1.0/downsample/downsample.0/Conv"),
        node("/layer1/layer1.0/Add", "Add"),
        node("/layer1/layer1.1/conv1/Conv"),
        node("/layer1/layer1.1/Add", "Add"),
    ]
    assert [(b.name, b.ran("Conv"), b.ran("Add")) for b in blocks(nodes)] == [
        ("conv1", "1 int8", "-"),
        ("layer1.0", "2 int8", "1 int8"),
        ("layer1.1", "1 int8", "1 int8"),
    ]


def test_blocks_by_a_state_dicts_names() -> None:
    """The same blocks as the HTML page's; a wrapped network's are not lost in its wrapper."""
    nodes = [
        node("layer1.0.conv1"),
        node("layer1.1.conv1"),
        node("/net/layer2/layer2.0/conv1/Conv"),
    ]
    assert [block.name for block in blocks(nodes)] == ["layer1.0", "layer1.1", "layer2.0"]


def test_blocks_of_a_network_without_paths() -> None:
    """Each ends with its addition."""
    nodes = [node("Conv_0"), node("Add_1", "Add"), node("Conv_2"), node("Add_3", "Add")]
    assert [(b.name, len(b.nodes)) for b in blocks(nodes)] == [("block 1", 2), ("block 2", 2)]


def test_a_block_in_two_precisions_tells_both() -> None:
    """And what nobody knows."""
    (block,) = blocks(
        [node("Conv_0"), node("Conv_1", ran=Precision.FP16), node("Conv_2", ran=None)]
    )
    assert block.ran("Conv") == "1 int8, 1 fp16, 1 unknown"


def test_what_is_printed() -> None:
    """Coverage, counts, the source's limits, a row for each block, and what was missed."""
    audit = Audit(
        source=Source.PARSED,
        layers=(EngineLayer(name="Conv_0", kind="", precision=None, nodes=("Conv_0", "Add_1")),),
        nodes=(node("Conv_0"), node("Add_1", "Add", Precision.FP16)),
        note="a note",
    )
    lines = [line.rstrip() for line in text(audit).strip().splitlines()]
    assert lines[0].startswith(
        "1 of 2 convolutions and additions run as requested in int8: coverage"
    )
    assert "1 of them fused from several operators, 0 reformats" in " ".join(lines[:3])
    assert "a note" in lines
    assert [line.split() for line in lines if line.startswith("block 1")] == [
        ["block", "1", "1", "int8", "1", "fp16", "2"]
    ]
    assert lines[-2:] == ["not in the requested precision", "Add Add_1 (ran in fp16)"]
    complete = Audit(source=Source.PARSED, layers=(), nodes=(node("Conv_0"),))
    assert "not in the requested" not in text(complete)

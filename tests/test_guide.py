"""docs/guide.md: its marked commands run, and the figures that it quotes are those of explain."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from test_readme import EDGERES, run_block, runnable_blocks

from edgeres.core.precision import Precision
from edgeres.networks.explain import Example, example_block, explain_architecture

DOCS = Path(__file__).resolve().parents[1] / "docs"
TEXT = (DOCS / "guide.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not EDGERES.exists(), reason="edgeres is not installed beside this Python")
def test_the_commands_of_the_guide_succeed(tmp_path: Path) -> None:
    """Those that are marked; the figures' own take minutes."""
    for block in runnable_blocks(TEXT):
        run_block(block, tmp_path)


def row(label: str) -> list[str]:
    """Returns the cells of the table's row that begins with this label."""
    (found,) = re.findall(rf"^\| {re.escape(label)} \| (.*) \|$", TEXT, re.MULTILINE)
    return [cell.strip() for cell in str(found).split("|")]


def test_wide_against_deep_is_what_explain_counts() -> None:
    """MACs, parameters, convolutions, activations and intensity of both networks."""
    networks = [explain_architecture(name) for name in ("wide_resnet50_2", "resnet152")]
    costs = [network.cost for network in networks]
    assert row("MACs") == [f"{cost.macs / 1e9:.2f} G" for cost in costs]
    assert row("parameters") == [f"{cost.parameters / 1e6:.1f} M" for cost in costs]
    assert row("convolutions") == [str(len(network.convolutions)) for network in networks]
    assert row("activations written") == [f"{cost.activations / 1e6:.1f} M" for cost in costs]
    intensity = [f"{cost.intensity(Precision.INT8):.1f}" for cost in costs]
    assert row("MACs per byte, INT8, batch 1") == intensity


def test_the_block_s_weights_are_what_explain_counts() -> None:
    """73,728 and 69,632."""
    for example in Example:
        assert f"= {example_block(example).cost.weights:,}`" in TEXT


def test_every_picture_and_link_is_there() -> None:
    """Pictures are SVG; a link stays within the repository."""
    targets = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert targets
    for target in targets:
        assert (DOCS / target).is_file()
        if target.endswith(".svg"):
            ElementTree.parse(DOCS / target)

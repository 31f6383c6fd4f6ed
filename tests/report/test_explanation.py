"""A network on a terminal and as a drawing: words, width, golden file and the SVG's soundness."""

from __future__ import annotations

import io
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console, RenderableType

from edgeres.networks import ARCHITECTURES
from edgeres.networks.explain import Example, example_block, explain_architecture
from edgeres.networks.network import BuildingBlock
from edgeres.report import (
    draw_network_svg,
    render_example,
    render_network,
    render_side_by_side,
)
from edgeres.report.explanation import draw_block, in_units, run_name

GOLDEN = Path(__file__).parent / "golden" / "resnet50.txt"
SVG = "{http://www.w3.org/2000/svg}"


def rendered(part: RenderableType, encoding: str = "utf-8") -> str:
    """Returns what a pipe of 80 columns gets, without the spaces that fill lines."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=stream, width=80, highlight=False).print(part)
    stream.seek(0)
    return "".join(f"{line.rstrip()}\n" for line in stream.read().splitlines())


def block_named(architecture: str, name: str) -> BuildingBlock:
    """Returns one block of a registered network."""
    blocks = explain_architecture(architecture).blocks
    return next(block for block in blocks if block.name == name)


def outside(svg: str) -> list[str]:
    """Returns whatever in an SVG would be fetched or run: links, scripts, styles, foreign parts."""
    elements = [*ElementTree.fromstring(svg).iter()]
    strangers = [e.tag for e in elements if not e.tag.startswith(SVG)]
    active = [e.tag for e in elements if re.search(r"script|style|image|use|foreign|\ba$", e.tag)]
    values = [value for e in elements for value in e.attrib.values()]
    links = [v for v in values if re.search(r"url\(|//|data:|javascript:|@import", v)]
    return strangers + active + links


def test_a_network_is_the_golden_file() -> None:
    """Facts, stages, blocks and a drawing, to the letter."""
    assert rendered(render_network(explain_architecture("resnet50"))) == GOLDEN.read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_cell_is_cut_or_folded_in_80_columns(name: str) -> None:
    """Each run of blocks has one line, with its channels whole."""
    network = explain_architecture(name)
    text = rendered(render_network(network))
    assert max(map(len, text.splitlines())) <= 80
    assert "\u2026" not in text
    for block in network.blocks:
        assert f" {'-'.join(map(str, block.channels))} " in text


def test_an_ascii_terminal_is_served() -> None:
    """Lines are drawn with the characters that it has."""
    text = rendered(render_network(explain_architecture("wrn_16_4")), encoding="ascii")
    assert text.isascii()
    assert "16 layers deep (all convolutions)" in text


def test_the_worked_bottleneck() -> None:
    """Every product, their sum, and what two 3x3 would cost instead."""
    blocks = example_block(Example.BOTTLENECK), example_block(Example.PLAIN)
    text = rendered(render_example(*blocks))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "conv1 1 * 1 * 256 * 64 = 16,384" in lines
    assert "conv2 3 * 3 * 64 * 64 = 36,864" in lines
    assert "conv3 1 * 1 * 64 * 256 = 16,384" in lines
    assert "weights sum = 69,632" in lines
    assert "MACs 69,632 * 56 * 56 = 218,365,952" in lines
    assert "BN 2 * (64 + 64 + 256) = 768 parameters more" in lines
    assert "2 * 3 * 3 * 256 * 256 = 1,179,648, 16.9 times the bottleneck's." in " ".join(lines)


def test_the_worked_plain_block() -> None:
    """Two equal products."""
    text = rendered(render_example(example_block(Example.PLAIN), example_block(Example.BOTTLENECK)))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines.count("conv1 3 * 3 * 64 * 64 = 36,864") == 1
    assert "weights sum = 73,728" in lines
    assert "MACs 73,728 * 56 * 56 = 231,211,008" in lines


@pytest.mark.parametrize("example", Example)
def test_the_products_are_true(example: Example) -> None:
    """Each printed line, computed again."""
    text = rendered(render_example(example_block(example), example_block(example)))
    sums = re.findall(r"^(?:conv\d|MACs) +([\d,* ]+) = +([\d,]+)$", text, re.MULTILINE)
    assert len(sums) == len(example_block(example).layers) + 1
    for product, result in sums:
        factors = [int(factor.replace(",", "")) for factor in product.split("*")]
        value = 1
        for factor in factors:
            value *= factor
        assert value == int(result.replace(",", ""))


def test_a_projection_is_drawn_around_the_path() -> None:
    """Fork, the projection's shape and the Add, with the strided convolution between."""
    assert draw_block(block_named("resnet18", "layer2.0")).splitlines() == [
        "        x: 64 x 56 x 56",
        "               |",
        "               +---------------.",
        "               |               |",
        "      3x3 conv, 64 -> 128      |",
        "           stride 2            |",
        "           BN, ReLU            |",
        "               |               | 1x1 conv, 64 -> 128, stride 2, BN",
        "     3x3 conv, 128 -> 128      |",
        "              BN               |",
        "               |               |",
        "              (+)<-------------'",
        "               |",
        "             ReLU",
        "               |",
        "         128 x 28 x 28",
    ]


def test_a_plain_block_has_no_way_around() -> None:
    """Neither a fork nor an Add."""
    drawn = draw_block(block_named("plain20", "layer1.0"))
    assert "+" not in drawn
    assert drawn.count("3x3 conv") == 2


@pytest.mark.parametrize(
    ("architecture", "name", "before_fork", "label"),
    [
        ("wrn_16_4", "layer1.0", "BN, ReLU", "1x1 conv, 16 -> 64"),
        ("wrn_16_4", "layer1.1", "x: 64 x 32 x 32", "identity: x as it is"),
        ("resnet20", "layer2.0", "x: 16 x 32 x 32", "padding: pixels in steps of 2, 16 zero"),
    ],
)
def test_the_fork_stands_where_the_network_forks(
    architecture: str, name: str, before_fork: str, label: str
) -> None:
    """A pre-activation block projects what is activated, and adds x itself otherwise."""
    lines = draw_block(block_named(architecture, name)).splitlines()
    fork = next(number for number, line in enumerate(lines) if "+--" in line)
    assert lines[fork - 2].strip() == before_fork
    assert sum(f"| {label}" in line for line in lines) == 1


def test_side_by_side_has_both_and_the_ratio() -> None:
    """Residual against plain: what differs is in a line of its own."""
    plain, residual = (explain_architecture(name) for name in ("plain34", "resnet34"))
    lines = rendered(render_side_by_side(residual, plain)).splitlines()
    cells = {line[:21].strip(): line[21:].split() for line in lines}
    assert lines[0].split() == ["resnet34", "plain34", "ratio"]
    assert cells["skip connections"] == ["13", "identity,", "3", "projection", "none"]
    assert cells["depth"] == ["34", "34", "1"]
    assert cells["parameters"] == ["21,797,672", "21,623,848", "1.01"]
    assert cells["MACs"] == ["3,663,761,408", "3,644,493,824", "1.01"]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (9994, "9.99 k"),
        (9995, "10.0 k"),
        (99_949, "99.9 k"),
        (99_950, "100 k"),
        (999_499, "999 k"),
        (999_500, "1.00 M"),
        (25_557_032, "25.6 M"),
        (11_513_626_624, "11.5 G"),
    ],
)
def test_counts_have_three_digits(count: int, text: str) -> None:
    """Rounded up into the next unit where three digits would not hold it."""
    assert in_units(count) == text


def test_a_run_is_named_by_its_first_and_last_block() -> None:
    """A single block by its own name."""
    blocks = explain_architecture("resnet50").stages[0].blocks
    assert run_name(blocks) == "layer1.0-2"
    assert run_name(blocks[:1]) == "layer1.0"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_svg_is_xml_and_stands_alone(name: str) -> None:
    """It parses, fetches nothing, and everything in it lies inside its frame."""
    svg = draw_network_svg(explain_architecture(name))
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert outside(svg) == []
    height = int(root.attrib["height"])
    assert root.attrib["viewBox"] == f"0 0 760 {height}"
    tops = [int(g.attrib["transform"][12:-1]) for g in root.iter(f"{SVG}g")]
    boxes = [g[0].attrib for g in root.iter(f"{SVG}g")]
    ends = [top + int(box["height"]) for top, box in zip(tops, boxes, strict=True)]
    assert ends[-1] < height
    assert all(end < top for end, top in zip(ends, tops[1:], strict=False))


@pytest.mark.parametrize(
    "part",
    [
        '<image href="http://a.b/c.png"/>',
        "<script>x()</script>",
        '<rect fill="url(http://a.b)"/>',
        "<style>@import 'a'</style>",
        '<x xmlns="http://a.b/c"/>',
    ],
)
def test_an_svg_that_would_fetch_is_found(part: str) -> None:
    """The check above sees links, scripts, styles and foreign elements."""
    assert outside(f'<svg xmlns="http://www.w3.org/2000/svg">{part}</svg>')


def test_the_svg_has_a_way_around_each_residual_box() -> None:
    """A circle an Add, dashed where the shape changes; a plain net has neither."""
    svg = draw_network_svg(explain_architecture("resnet50"))
    assert (svg.count("<circle"), svg.count("stroke-dasharray")) == (8, 4)
    assert ">projection<" in svg
    assert "<circle" not in draw_network_svg(explain_architecture("plain34"))


def test_the_svg_names_what_a_reader_looks_for() -> None:
    """The network's size, each run of blocks and its convolutions."""
    words = [e.text for e in ElementTree.fromstring(svg_of("resnext50_32x4d")).iter()]
    assert "resnext50_32x4d: 50 layers" in words
    assert "layer3.1-5" in words
    assert "3x3, 128, stride 2, 32 groups" not in words
    assert "3x3, 512, stride 2, 32 groups" in words


def svg_of(name: str) -> str:
    """Returns a registered network's drawing."""
    return draw_network_svg(explain_architecture(name))

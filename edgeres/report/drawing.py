"""A network as one SVG drawing: from the image down to the logits, skip connections at the side.

Blocks of one shape in a row are one box. As in the paper's figure 3, a skip connection that
changes the shape is dashed. Self-contained: no style sheet, font file or script.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from xml.sax.saxutils import escape

from edgeres.networks.network import BuildingBlock, Cost, Layer, Network, Skip, runs, total
from edgeres.report.explanation import in_units, run_name

_WIDTH = 760
_MARGIN = 24
_TITLE = 76
"""Height in pixels of the two lines above the drawing."""

_LEFT, _BOX = 150, 250
_SPINE = _LEFT + _BOX // 2
_RAIL = _LEFT + _BOX + 34
_FIGURES = _RAIL + 40
_LINE, _PAD, _GAP = 20, 8, 22
"""Height of a line of text, space around text in a box, and the path between boxes, in pixels."""

_RADIUS = 9
"""Of the circle that marks an Add."""

_COLOURS = ("#dbeafe", "#dcfce7", "#fef3c7", "#fae8ff")
"""Fill of the boxes by stage."""

_GREY = "#f1f5f9"
_INK, _FAINT, _ACCENT = "#0f172a", "#475569", "#b91c1c"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One box and what is written beside it."""

    name: str
    lines: tuple[str, ...]
    """Text in the box."""
    figures: tuple[str, ...]
    """Text to its right."""
    fill: str = _GREY
    skip: Skip = Skip.NONE
    skip_label: str = ""

    @property
    def box_height(self) -> int:
        return _LINE * max(len(self.lines), len(self.figures)) + 2 * _PAD

    @property
    def height(self) -> int:
        """Height with the path below, where a skip connection adds its circle."""
        return self.box_height + (_GAP if self.skip is Skip.NONE else 3 * _GAP)


def draw_network_svg(network: Network) -> str:
    """Returns the network as the text of an SVG file."""
    rows = tuple(_rows(network))
    tops = list(accumulate((row.height for row in rows), initial=_TITLE))
    height = tops.pop() - _GAP + _MARGIN
    title = f"{network.spec.name}: {network.depth} layers"
    drawn = "\n".join(
        f'<g transform="translate(0,{top})">{"".join(_draw(row, row is not rows[-1]))}</g>'
        for row, top in zip(rows, tops, strict=True)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" role="img" '
        'font-family="DejaVu Sans, Verdana, Arial, sans-serif" font-size="13">\n'
        f"<title>{escape(title)}</title>\n"
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>\n'
        f"{_text(_MARGIN, 34, title, size=20, weight='bold')}\n"
        f"{_text(_MARGIN, 56, _subtitle(network), fill=_FAINT)}\n"
        f"{drawn}\n</svg>\n"
    )


def _subtitle(network: Network) -> str:
    cost, spec = network.cost, network.spec
    return (
        f"{cost.parameters:,} parameters, {in_units(cost.macs)} MACs, "
        f"{in_units(cost.activations)} activations; "
        f"input 3 x {spec.input_size} x {spec.input_size}, {spec.num_classes} classes"
    )


def _rows(network: Network) -> Iterator[_Row]:
    stem, pool, costs = network.stem, network.pool, dict(network.parts)
    figures = _figures(stem.out_channels, stem.output_size, costs["stem"])
    yield _Row(name=stem.name, lines=(_conv(stem),), figures=figures)
    if pool is not None:
        size = _figures(pool.out_channels, pool.output_size)
        yield _Row(name=pool.name, lines=("3x3 max pooling, stride 2",), figures=size)
    for index, stage in enumerate(network.stages):
        fill = _COLOURS[index % len(_COLOURS)]
        yield from (_block_row(run, fill) for run in runs(stage.blocks))
    head = network.classifier
    yield _Row(
        name="avgpool",
        lines=("global average pooling",),
        figures=_figures(head.in_channels, 1),
    )
    yield _Row(
        name=head.name,
        lines=(f"linear, {head.in_channels} to {head.out_channels}",),
        figures=_figures(head.out_channels, 1, costs["head"]),
    )


def _block_row(run: tuple[BuildingBlock, ...], fill: str) -> _Row:
    block, cost = run[0], total(each.cost for each in run)
    count = (f"{len(run)} blocks of this shape",) if len(run) > 1 else ()
    return _Row(
        name=run_name(run),
        lines=tuple(_conv(layer) for layer in block.layers),
        figures=(
            *count,
            *_figures(block.channels[-1], block.output_size, cost),
        ),
        fill=fill,
        skip=block.skip,
        skip_label="" if block.skip is Skip.IDENTITY else block.skip.value,
    )


def _conv(layer: Layer) -> str:
    stride = f", stride {layer.stride}" if layer.stride > 1 else ""
    groups = f", {layer.groups} groups" if layer.groups > 1 else ""
    return f"{layer.kernel}x{layer.kernel}, {layer.out_channels}{stride}{groups}"


def _figures(channels: int, size: int, cost: Cost | None = None) -> tuple[str, ...]:
    """Returns the output's shape, and parameters and MACs where there are any."""
    shape = f"{channels} x {size} x {size}"
    if cost is None:
        return (shape,)
    return shape, f"{in_units(cost.parameters)} parameters, {in_units(cost.macs)} MACs"


def _draw(row: _Row, goes_on: bool) -> Iterator[str]:
    height, middle = row.box_height, row.box_height // 2
    yield (
        f'<rect x="{_LEFT}" y="0" width="{_BOX}" height="{height}" rx="6" '
        f'fill="{row.fill}" stroke="{_FAINT}"/>'
    )
    yield _text(_MARGIN, middle + 5, row.name, weight="bold")
    yield from _lines(_SPINE, middle, row.lines, "middle")
    yield from _lines(_FIGURES, middle, row.figures, "start")
    if row.skip is not Skip.NONE:
        yield from _skip(row)
    if goes_on:
        start = height if row.skip is Skip.NONE else height + _GAP + _RADIUS
        yield _arrow_down(start, row.height)


def _skip(row: _Row) -> Iterator[str]:
    """Yields the way around the box: from the path above it to the Add below."""
    add = row.box_height + _GAP
    dashes = "" if row.skip is Skip.IDENTITY else ' stroke-dasharray="6 4"'
    end = _SPINE + _RADIUS
    yield _path(f"M{_SPINE} {-_GAP // 2}H{_RAIL}V{add}H{end}", _ACCENT, dashes)
    yield _path(f"M{end + 7} {add - 4}L{end} {add}L{end + 7} {add + 4}", _ACCENT)
    yield _path(f"M{_SPINE} {row.box_height}V{add - _RADIUS}")
    yield f'<circle cx="{_SPINE}" cy="{add}" r="{_RADIUS}" fill="white" stroke="{_INK}"/>'
    yield _path(f"M{_SPINE - 5} {add}h10M{_SPINE} {add - 5}v10")
    if row.skip_label:
        yield _text(_SPINE + 26, add - 5, row.skip_label, fill=_ACCENT, size=11)


def _arrow_down(start: int, end: int) -> str:
    head = f"M{_SPINE - 4} {end - 7}L{_SPINE} {end}L{_SPINE + 4} {end - 7}"
    return _path(f"M{_SPINE} {start}V{end}{head}")


def _path(steps: str, stroke: str = _INK, more: str = "") -> str:
    return f'<path d="{steps}" fill="none" stroke="{stroke}" stroke-width="1.4"{more}/>'


def _lines(x: int, middle: int, lines: tuple[str, ...], anchor: str) -> Iterator[str]:
    """Yields lines of text, centred about the height `middle`."""
    first = middle + 5 - _LINE * (len(lines) - 1) // 2
    for number, line in enumerate(lines):
        yield _text(x, first + _LINE * number, line, anchor=anchor)


def _text(x: int, y: int, text: str, **style: str | int) -> str:
    """Returns a line of text; `style` may have fill, size, weight and anchor."""
    names = {"size": "font-size", "weight": "font-weight", "anchor": "text-anchor"}
    merged = {"fill": _INK, **style}
    attributes = "".join(f' {names.get(key, key)}="{value}"' for key, value in merged.items())
    return f'<text x="{x}" y="{y}"{attributes}>{escape(text)}</text>'

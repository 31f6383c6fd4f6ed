"""A network as one SVG drawing: from the image down to the logits, skip connections at the side.

Blocks of one shape in a row are one box. As in the paper's figure 3, a skip connection that
changes the shape is dashed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from edgeres.networks.network import Cost, LayerShape, Network, Skip, runs, total
from edgeres.plurals import counted
from edgeres.report.explanation import in_units, run_name
from edgeres.report.svg import FAINT, INK, element, label, sheet

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

_GREY, _ACCENT = "#f1f5f9", "#b91c1c"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One box and what is written beside it."""

    name: str
    lines: tuple[str, ...]
    """Text in the box."""
    figures: tuple[str, ...]
    """Text beside it."""
    fill: str = _GREY
    skip: Skip = Skip.NONE

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
    # The last top is the height of all rows, with a path below the last box that is not drawn.
    tops = list(accumulate((row.height for row in rows), initial=_TITLE))
    height = tops.pop() - _GAP + _MARGIN
    cost, spec = network.cost, network.spec
    return sheet(
        (
            element("g", *_draw(row, row is not rows[-1]), transform=f"translate(0,{top})")
            for row, top in zip(rows, tops, strict=True)
        ),
        width=_WIDTH,
        height=height,
        title=f"{spec.name}: {counted(network.depth, 'layer')}",
        subtitle=f"{cost.parameters:,} parameters, {in_units(cost.macs)} MACs, "
        f"{in_units(cost.activations)} activations; input 3 x {spec.input_size} x "
        f"{spec.input_size}, {counted(spec.num_classes, 'class')}",
        title_size=20,
    )


def _rows(network: Network) -> Iterator[_Row]:
    stem, pool, head, costs = network.stem, network.pool, network.classifier, dict(network.parts)
    figures = _figures(stem.out_channels, stem.output_size, costs["stem"])
    yield _Row(name=stem.name, lines=(_conv(stem),), figures=figures)
    if pool is not None:
        size = _figures(pool.out_channels, pool.output_size)
        yield _Row(name=pool.name, lines=("3x3 max pooling, stride 2",), figures=size)
    for index, stage in enumerate(network.stages):
        for run in runs(stage.blocks):
            block, cost = run[0], total(each.cost for each in run)
            count = (f"{counted(len(run), 'block')} of this shape",) if len(run) > 1 else ()
            yield _Row(
                name=run_name(run),
                lines=tuple(_conv(layer) for layer in block.layers),
                figures=(*count, *_figures(block.channels[-1], block.output_size, cost)),
                fill=_COLOURS[index % len(_COLOURS)],
                skip=block.skip,
            )
    pooled = _figures(head.in_channels, 1)
    yield _Row(name="avgpool", lines=("global average pooling",), figures=pooled)
    linear = f"linear, {head.in_channels} to {head.out_channels}"
    figures = _figures(head.out_channels, 1, costs["head"])
    yield _Row(name=head.name, lines=(linear,), figures=figures)


def _conv(layer: LayerShape) -> str:
    stride = f", stride {layer.stride}" if layer.stride > 1 else ""
    groups = f", {counted(layer.groups, 'group')}" if layer.groups > 1 else ""
    return f"{layer.kernel}x{layer.kernel}, {layer.out_channels}{stride}{groups}"


def _figures(channels: int, size: int, cost: Cost | None = None) -> tuple[str, ...]:
    """Returns the output's shape, and parameters and MACs where there are any."""
    shape = f"{channels} x {size} x {size}"
    if cost is None:
        return (shape,)
    return shape, f"{in_units(cost.parameters)} parameters, {in_units(cost.macs)} MACs"


def _draw(row: _Row, goes_on: bool) -> Iterator[str]:
    """Yields a box with its words, the way around it, and the path to the next box."""
    height, middle = row.box_height, row.box_height // 2
    box = {"x": _LEFT, "y": 0, "width": _BOX, "height": height, "rx": 6}
    yield element("rect", **box, fill=row.fill, stroke=FAINT)
    yield label(_MARGIN, middle + 5, row.name, font_weight="bold")
    for x, lines, anchor in ((_SPINE, row.lines, "middle"), (_FIGURES, row.figures, "start")):
        # Text stands on its baseline: 5 below the middle of a line of 13 pixels.
        first = middle + 5 - _LINE * (len(lines) - 1) // 2
        for number, words in enumerate(lines):
            yield label(x, first + _LINE * number, words, text_anchor=anchor)
    start = height
    if row.skip is not Skip.NONE:
        # From the path above the box, along the rail, to the Add below. The path above belongs to
        # the row before, so its middle has a negative height.
        add, side = height + _GAP, _SPINE + _RADIUS
        changes_shape = row.skip is not Skip.IDENTITY
        dashes = {"stroke_dasharray": "6 4"} if changes_shape else {}
        yield _path(f"M{_SPINE} {-_GAP // 2}H{_RAIL}V{add}H{side}", _ACCENT, **dashes)
        yield _path(f"M{side + 7} {add - 4}L{side} {add}L{side + 7} {add + 4}", _ACCENT)
        yield _path(f"M{_SPINE} {height}V{add - _RADIUS}")
        yield element("circle", cx=_SPINE, cy=add, r=_RADIUS, fill="white", stroke=INK)
        yield _path(f"M{_SPINE - 5} {add}h10M{_SPINE} {add - 5}v10")
        if changes_shape:
            yield label(_SPINE + 26, add - 5, row.skip.value, _ACCENT, font_size=11)
        # The path to the next box begins below the circle.
        start = add + _RADIUS
    if goes_on:
        end = row.height
        head = f"M{_SPINE - 4} {end - 7}L{_SPINE} {end}L{_SPINE + 4} {end - 7}"
        yield _path(f"M{_SPINE} {start}V{end}{head}")


def _path(steps: str, stroke: str = INK, **more: object) -> str:
    return element("path", d=steps, fill="none", stroke=stroke, stroke_width=1.4, **more)

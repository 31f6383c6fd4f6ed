"""A network for people: facts, stages and blocks as tables, one block as a drawing in text.

Tables keep to 80 columns, and blocks of one shape in a row share a line. SVG is in `drawing`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from edgeres.core.cost import VALUE_BYTES
from edgeres.core.precision import Precision
from edgeres.networks.network import (
    BuildingBlock,
    Cost,
    LayerShape,
    Network,
    Skip,
    measures,
    ratios,
    runs,
    total,
)
from edgeres.networks.specification import BlockKind

_LABEL = "bold"
_WIDTH = 31
"""Columns of a drawing left of the skip connection, with the main path in the middle."""

_HALF = _WIDTH // 2
_SPINE = f"{'':{_HALF}}|"

_SKIPS = {Skip.PROJECTION: "1x1 conv", Skip.NONE: "none"}
"""Words for a table's cell where a skip connection's own name is too long."""

_MEASURES = {
    "depth": "depth",
    "convolutions": "convolutions",
    "parameters": "parameters",
    "convolution_parameters": "  of convolutions",
    "norm_parameters": "  of batch norms",
    "classifier_parameters": "  of the classifier",
    "macs": "MACs",
    "activations": "activations",
    "weight_bytes_fp32": "weight bytes, FP32",
    "weight_bytes_int8": "weight bytes, INT8",
    "macs_per_byte_fp32": "MACs per byte, FP32",
    "macs_per_byte_int8": "MACs per byte, INT8",
}


def render_network(network: Network) -> Group:
    """Returns what a rich Console prints of a network: facts, stages, blocks and a drawing."""
    most = max(runs(network.blocks), key=len)
    return Group(
        _facts(dict(_network_facts(network))),
        Text(),
        _stage_table(network),
        Text(),
        _block_table(network),
        Text(),
        Text(f"{run_name(most)}, the shape of most blocks in a row:", _LABEL),
        Text(draw_block(most[0])),
    )


def render_side_by_side(network: Network, other: Network) -> Group:
    """Returns two networks in two columns, and how many times the second's figures the first's are."""
    table = _table("", network.spec.name, other.spec.name, "ratio")
    for label, describe in (("input", _input), ("blocks", _blocks), ("skip connections", _skips)):
        table.add_row(label, describe(network), describe(other), "")
    ours, theirs, times = measures(network), measures(other), ratios(network, other)
    for name, label in _MEASURES.items():
        cells = (_figure(ours[name]), _figure(theirs[name]), f"{times[name]:.3g}")
        table.add_row(label, *cells)
    return Group(table)


def render_example(block: BuildingBlock, other: BuildingBlock) -> Group:
    """Returns a block drawn and its weights worked out, held against the other kind of block."""
    return Group(
        Text(draw_block(block)),
        Text(),
        Text("\n".join(_arithmetic(block))),
        Text(),
        Text(_held_against(block, other)),
    )


def draw_block(block: BuildingBlock) -> str:
    """Returns a block as text, top to bottom, its skip connection on the right; ASCII only."""
    before, inside, after = (_column(steps) for steps in _steps(block))
    if block.skip is Skip.NONE:
        return "\n".join([*before[1:], *inside, *after])
    rail = [f"{line:{_WIDTH}}|" for line in (*inside, _SPINE)]
    rail[len(rail) // 2] += f" {_skip_label(block)}"
    gap = _WIDTH - _HALF
    fork = f"{'':{_HALF}}+{'':-<{gap - 1}}."
    add = f"{'':{_HALF - 1}}(+)<{'':-<{gap - 3}}'"
    return "\n".join([*before[1:], _SPINE, fork, *rail, add, *after])


def run_name(run: tuple[BuildingBlock, ...]) -> str:
    """Returns `layer1.1-2` for the blocks `layer1.1` and `layer1.2`."""
    first, last = run[0].name, run[-1].name.rpartition(".")[2]
    return first if len(run) == 1 else f"{first}-{last}"


def in_units(count: float) -> str:
    """Returns three digits with k, M or G for thousands, millions or thousand millions."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= 0.9995 * size:
            return f"{_three_digits(count / size)} {unit}"
    return _three_digits(count)


def _three_digits(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f}"


def _network_facts(network: Network) -> Iterator[tuple[str, str]]:
    cost = network.cost
    yield "network", f"{network.spec.name}, {network.depth} layers deep ({_counting(network)})"
    yield "input", f"{_input(network)}, {network.spec.num_classes} classes"
    yield "blocks", f"{_blocks(network)} in stages of {', '.join(map(str, network.spec.layers))}"
    yield "skips", _skips(network)
    yield (
        "parameters",
        f"{cost.parameters:,}: convolutions {cost.convolution_parameters:,}, "
        f"batch norms {cost.norm_parameters:,}, classifier {cost.classifier_parameters:,}",
    )
    yield "MACs", f"{in_units(cost.macs)} for one image, convolutions and classifier"
    yield "activations", f"{in_units(cost.activations)}: {_sizes(cost.activation_bytes)}"
    yield "weights", f"{_sizes(cost.weight_bytes)}, batch norms folded"
    intensity = (f"{p.value.upper()} {cost.intensity(p):.1f}" for p in VALUE_BYTES)
    yield "intensity", f"{', '.join(intensity)} MACs per byte moved, batch 1"


def _counting(network: Network) -> str:
    if network.spec.block is BlockKind.PREACTIVATION:
        return "all convolutions"
    return "convolutions and classifier on the main path"


def _input(network: Network) -> str:
    return _map(network.stem.in_channels, network.spec.input_size)


def _map(channels: int, size: int) -> str:
    return f"{channels} x {size} x {size}"


def _blocks(network: Network) -> str:
    return f"{len(network.blocks)} {network.spec.block}"


def _skips(network: Network) -> str:
    kinds = Counter(block.skip for block in network.blocks)
    return ", ".join(s.value if s is Skip.NONE else f"{n} {s}" for s, n in kinds.items())


def _sizes(bytes_in: Callable[[Precision], int]) -> str:
    return ", ".join(f"{p.value.upper()} {bytes_in(p) / 1e6:.3g} MB" for p in VALUE_BYTES)


def _stage_table(network: Network) -> Table:
    table = _table("part", "blocks", "parameters", "MACs", "activations", "MACs/byte", "in INT8")
    counts = {stage.name: str(len(stage.blocks)) for stage in network.stages}
    for name, cost in (*network.parts, ("total", network.cost)):
        table.add_row(name, counts.get(name, ""), *_cost_cells(cost))
    return table


def _cost_cells(cost: Cost) -> tuple[str, ...]:
    counts = in_units(cost.macs), in_units(cost.activations)
    intensities = (f"{cost.intensity(p):.1f}" for p in (Precision.FP32, Precision.INT8))
    return f"{cost.parameters:,}", *counts, *intensities


def _block_table(network: Network) -> Table:
    names = ("kernels", "channels", "stride", "skip", "size", "params", "MACs")
    table = _table("layers", *names, gap=0)
    costs = dict(network.parts)
    table.add_row(*_layer_cells(network.stem), *_counts(costs["stem"]))
    if network.pool is not None:
        table.add_row(*_layer_cells(network.pool), "", "")
    for run in runs(network.blocks):
        table.add_row(*_run_cells(run))
    table.add_row(*_layer_cells(network.classifier), *_counts(costs["head"]))
    return table


def _layer_cells(layer: LayerShape) -> tuple[str, ...]:
    channels = f"{layer.in_channels}-{layer.out_channels}"
    return layer.name, str(layer.kernel), channels, str(layer.stride), "", str(layer.output_size)


def _counts(cost: Cost) -> tuple[str, str]:
    return in_units(cost.parameters), in_units(cost.macs)


def _run_cells(run: tuple[BuildingBlock, ...]) -> tuple[str, ...]:
    block = run[0]
    return (
        run_name(run),
        "-".join(map(str, block.kernels)),
        "-".join(map(str, block.channels)),
        str(block.stride),
        _SKIPS.get(block.skip, block.skip.value),
        str(block.output_size),
        *_counts(total(each.cost for each in run)),
    )


Steps = tuple[tuple[str, ...], ...]
"""Lines of each step of the main path."""


def _steps(block: BuildingBlock) -> tuple[Steps, Steps, Steps]:
    """Returns what stands before the fork, between fork and Add, and behind the Add."""
    start = (f"x: {_map(block.channels[0], block.layers[0].input_size)}",)
    end = (_map(block.channels[-1], block.output_size),)
    convs = tuple(_conv_lines(layer) for layer in block.layers)
    if block.kind is not BlockKind.PREACTIVATION:
        inside = (*((*conv, "BN, ReLU") for conv in convs[:-1]), (*convs[-1], "BN"))
        return (start,), inside, (("ReLU",), end)
    rest = tuple(("BN, ReLU", *conv) for conv in convs[1:])
    if block.skip is Skip.PROJECTION:
        return (start, ("BN, ReLU",)), (convs[0], *rest), (end,)
    return (start,), (("BN, ReLU", *convs[0]), *rest), (end,)


def _conv_lines(layer: LayerShape) -> tuple[str, ...]:
    first = f"{_kernel(layer)} conv, {layer.in_channels} -> {layer.out_channels}"
    extra = [f"stride {layer.stride}"] if layer.stride > 1 else []
    extra += [f"{layer.groups} groups"] if layer.groups > 1 else []
    return (first, ", ".join(extra)) if extra else (first,)


def _kernel(layer: LayerShape) -> str:
    return f"{layer.kernel}x{layer.kernel}"


def _column(steps: Steps) -> list[str]:
    """Returns the lines of steps, each with the path that leads to it above."""
    return [text for step in steps for text in (_SPINE, *map(_centred, step))]


def _centred(line: str) -> str:
    return f"{line:^{_WIDTH}}".rstrip()


def _skip_label(block: BuildingBlock) -> str:
    if block.skip is Skip.IDENTITY:
        return "identity: x as it is"
    if block.skip is Skip.PADDING:
        added = block.channels[-1] - block.channels[0]
        return f"padding: pixels in steps of {block.stride}, {added} zero channels"
    norm = "" if block.kind is BlockKind.PREACTIVATION else ", BN"
    strided = f", stride {block.stride}" if block.stride > 1 else ""
    return f"1x1 conv, {block.channels[0]} -> {block.channels[-1]}{strided}{norm}"


def _arithmetic(block: BuildingBlock) -> Iterator[str]:
    """Yields the weights of each convolution as a product, then their sum and the MACs."""
    products = [_product(layer) for layer in block.layers]
    width = max(map(len, products))
    for layer, product in zip(block.layers, products, strict=True):
        yield f"{layer.name.rpartition('.')[2]:10}{product:{width}} = {layer.weights:>10,}"
    weights, size = block.cost.weights, block.output_size
    yield f"{'weights':10}{'sum':{width}} = {weights:>10,}"
    yield f"{'MACs':10}{weights:,} * {size} * {size} = {block.cost.macs:,}"
    channels = " + ".join(str(layer.out_channels) for layer in block.layers)
    yield f"{'BN':10}2 * ({channels}) = {block.cost.norm_parameters:,} parameters more"


def _product(layer: LayerShape) -> str:
    return f"{layer.kernel} * {layer.kernel} * {layer.in_channels:>3} * {layer.out_channels:>3}"


def _held_against(block: BuildingBlock, other: BuildingBlock) -> str:
    """Says what the two kinds of block cost at the wider one's channels."""
    narrow, wide = sorted((block, other), key=lambda each: each.channels[0])
    channels = wide.channels[0]
    plain = len(narrow.layers) * 9 * channels**2
    return (
        f"The {_example_name(wide)} block has {wide.cost.weights:,} weights for {channels} "
        f"channels, the {_example_name(narrow)} one {narrow.cost.weights:,} for "
        f"{narrow.channels[0]}. Two 3x3 convolutions of {channels} channels would have "
        f"2 * 3 * 3 * {channels} * {channels} = {plain:,}, {plain / wide.cost.weights:.1f} times "
        f"the {_example_name(wide)}'s."
    )


def _example_name(block: BuildingBlock) -> str:
    return "bottleneck" if block.kind is BlockKind.BOTTLENECK else "plain"


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.1f}"


def _table(first: str, *others: str, gap: int = 1) -> Table:
    """Returns an empty table: a column of names, then columns of shapes and numbers.

    A gap of 0 columns, besides the box's own, is for blocks of four-digit channels in 80.
    """
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 0, 0, gap),
        pad_edge=False,
        show_edge=False,
        header_style=_LABEL,
    )
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _facts(facts: dict[str, str]) -> Table:
    """Returns names and sentences side by side; a long sentence stays in its column."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for name, sentence in facts.items():
        grid.add_row(Text(name, _LABEL), Text(sentence))
    return grid

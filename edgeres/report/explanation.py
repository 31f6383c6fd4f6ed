"""A network for people: facts, stages and blocks as tables, one block as a drawing in text.

Tables keep to 80 columns, and blocks of one shape in a row share a line. SVG is in `drawing`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from rich.console import Group
from rich.text import Text

from edgeres.core.cost import VALUE_BYTES
from edgeres.core.precision import Precision
from edgeres.networks.compared import ILSVRC, ComparedNetwork
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
from edgeres.plurals import counted
from edgeres.report.tables import fact_grid, ruled_table

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
    parts = ruled_table(
        *("part", "blocks", "parameters", "MACs", "activations", "MACs/byte", "in INT8"),
        gap=1,
    )
    counts = {stage.name: str(len(stage.blocks)) for stage in network.stages}
    for name, cost in (*network.parts, ("total", network.cost)):
        units = in_units(cost.macs), in_units(cost.activations)
        intensities = (f"{cost.intensity(p):.1f}" for p in (Precision.FP32, Precision.INT8))
        parts.add_row(name, counts.get(name, ""), f"{cost.parameters:,}", *units, *intensities)
    # Without a gap, for blocks of four-digit channels in 80 columns.
    layers = ruled_table(
        *("layers", "kernels", "channels", "stride", "skip", "size", "params", "MACs"),
        gap=0,
    )
    costs = dict(network.parts)
    layers.add_row(*_layer_cells(network.stem), *_totals(costs["stem"]))
    if network.pool is not None:
        layers.add_row(*_layer_cells(network.pool), "", "")
    for run in runs(network.blocks):
        layers.add_row(
            run_name(run),
            "-".join(map(str, run[0].kernels)),
            "-".join(map(str, run[0].channels)),
            str(run[0].stride),
            _SKIPS.get(run[0].skip, run[0].skip.value),
            str(run[0].output_size),
            *_totals(total(block.cost for block in run)),
        )
    layers.add_row(*_layer_cells(network.classifier), *_totals(costs["head"]))
    longest = max(runs(network.blocks), key=len)
    return Group(
        fact_grid(_network_facts(network), name_style=_LABEL),
        Text(),
        parts,
        Text(),
        layers,
        Text(),
        Text(f"{run_name(longest)}, the shape of most blocks in a row:", _LABEL),
        Text(draw_block(longest[0])),
    )


def render_side_by_side(network: Network, other: Network | ComparedNetwork) -> Group:
    """Returns two networks in two columns, and how many times the second's figures the first's are."""
    table = ruled_table("", network.name, other.name, "ratio", gap=1)
    for label, describe in (("input", _input), ("blocks", _blocks), ("skip connections", _skips)):
        words = describe(other) if isinstance(other, Network) else _compared(other)[label]
        table.add_row(label, describe(network), words, "")
    ours, theirs, times = measures(network), measures(other), ratios(network, other)
    for name, label in _MEASURES.items():
        ratio = times[name]
        cells = (_figure(ours[name]), _figure(theirs[name]))
        table.add_row(label, *cells, "-" if ratio is None else f"{ratio:.3g}")
    return Group(table)


def _compared(network: ComparedNetwork) -> dict[str, str]:
    """Returns what another family has in the place of a ResNet's facts, by their labels."""
    side = network.input_size
    return {
        "input": f"3 x {side} x {side}",
        "blocks": network.structure,
        "skip connections": "none",
    }


def render_ilsvrc() -> Group:
    """Returns the published top-5 errors of ILSVRC, with their sources below."""
    table = ruled_table("network", "year", "depth", "top-5 error %", "of")
    for one in ILSVRC:
        table.add_row(one.network, str(one.year), str(one.depth), f"{one.top5_error:g}", one.what)
    sources = dict.fromkeys(one.source for one in ILSVRC)
    notes = ("Errors on the test set and on validation images do not compare.", *sources)
    return Group(table, Text(), *map(Text, notes))


def render_example(block: BuildingBlock, other: BuildingBlock) -> Group:
    """Returns a block drawn and its weights worked out, compared with the other kind of block."""
    products = [
        f"{each.kernel} * {each.kernel} * {each.in_channels:>3} * {each.out_channels:>3}"
        for each in block.layers
    ]
    width = max(map(len, products))
    lines = [
        f"{layer.name.rpartition('.')[2]:10}{product:{width}} = {layer.weights:>10,}"
        for layer, product in zip(block.layers, products, strict=True)
    ]
    cost, size = block.cost, block.output_size
    lines.append(f"{'weights':10}{'sum':{width}} = {cost.weights:>10,}")
    # A weight is multiplied once for each pixel of the output, whose size is one in a block.
    lines.append(f"{'MACs':10}{cost.weights:,} * {size} * {size} = {cost.macs:,}")
    channels = " + ".join(str(layer.out_channels) for layer in block.layers)
    lines.append(f"{'BN':10}2 * ({channels}) = {cost.norm_parameters:,} parameters more")

    narrow, wide = sorted((block, other), key=lambda each: each.channels[0])
    names = ["bottleneck" if b.kind is BlockKind.BOTTLENECK else "plain" for b in (narrow, wide)]
    wide_channels = wide.channels[0]
    # What the plain block's 3x3 convolutions would cost at the wide block's channels.
    plain = len(narrow.layers) * 9 * wide_channels**2
    comparison = (
        f"The {names[1]} block has {wide.cost.weights:,} weights for "
        f"{counted(wide_channels, 'channel')}, the {names[0]} one {narrow.cost.weights:,} for {narrow.channels[0]}. Two 3x3 convolutions of "
        f"{counted(wide_channels, 'channel')} would have 2 * 3 * 3 * {wide_channels} * "
        f"{wide_channels} = {plain:,}, {plain / wide.cost.weights:.1f} times the {names[1]}'s."
    )
    return Group(Text(draw_block(block)), Text(), Text("\n".join(lines)), Text(), Text(comparison))


def draw_block(block: BuildingBlock) -> str:
    """Returns a block as text, top to bottom, its skip connection at the side; ASCII only."""
    # Each step of the main path comes with the path that leads to it above.
    before, inside, after = (
        [line for step in steps for line in (_SPINE, *(f"{t:^{_WIDTH}}".rstrip() for t in step))]
        for steps in _steps(block)
    )
    # Nothing leads to the first step.
    del before[0]
    if block.skip is Skip.NONE:
        return "\n".join([*before, *inside, *after])
    # The rail is as long as the path beside it, and named in its middle.
    rail = [f"{line:{_WIDTH}}|" for line in (*inside, _SPINE)]
    rail[len(rail) // 2] += f" {_skip_label(block)}"
    gap = _WIDTH - _HALF
    fork = f"{'':{_HALF}}+{'':-<{gap - 1}}."
    add = f"{'':{_HALF - 1}}(+)<{'':-<{gap - 3}}'"
    return "\n".join([*before, _SPINE, fork, *rail, add, *after])


def run_name(run: tuple[BuildingBlock, ...]) -> str:
    """Returns `layer1.1-2` for the blocks `layer1.1` and `layer1.2`."""
    first, last = run[0].name, run[-1].name.rpartition(".")[2]
    return first if len(run) == 1 else f"{first}-{last}"


def in_units(count: float) -> str:
    """Returns three digits with k, M or G for thousands, millions or thousand millions."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        # From here on three digits of the smaller unit would round up to 1000.
        if count >= 0.9995 * size:
            return f"{_three_digits(count / size)} {unit}"
    return _three_digits(count)


def _three_digits(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    # Where rounding gives another digit before the point, one behind it goes.
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f}"


def _network_facts(network: Network) -> Iterator[tuple[str, str]]:
    cost = network.cost
    # Zagoruyko and Komodakis count a pre-activation network's projections, and no classifier.
    is_preactivation = network.spec.block is BlockKind.PREACTIVATION
    layers = (
        "all convolutions" if is_preactivation else "convolutions and classifier on the main path"
    )
    yield "network", f"{network.spec.name}, {counted(network.depth, 'layer')} deep ({layers})"
    yield "input", f"{_input(network)}, {counted(network.spec.num_classes, 'class')}"
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


def _layer_cells(layer: LayerShape) -> tuple[str, ...]:
    channels = f"{layer.in_channels}-{layer.out_channels}"
    return layer.name, str(layer.kernel), channels, str(layer.stride), "", str(layer.output_size)


def _totals(cost: Cost) -> tuple[str, str]:
    return in_units(cost.parameters), in_units(cost.macs)


Steps = tuple[tuple[str, ...], ...]
"""Lines of each step of the main path."""


def _steps(block: BuildingBlock) -> tuple[Steps, Steps, Steps]:
    """Returns what stands before the fork, between fork and Add, and behind the Add."""
    start = (f"x: {_map(block.channels[0], block.layers[0].input_size)}",)
    end = (_map(block.channels[-1], block.output_size),)
    convs: list[tuple[str, ...]] = []
    for layer in block.layers:
        first = f"{layer.kernel}x{layer.kernel} conv, {layer.in_channels} -> {layer.out_channels}"
        extra = [f"stride {layer.stride}"] if layer.stride > 1 else []
        extra += [f"{counted(layer.groups, 'group')}"] if layer.groups > 1 else []
        convs.append((first, ", ".join(extra)) if extra else (first,))
    if block.kind is not BlockKind.PREACTIVATION:
        inside = (*((*conv, "BN, ReLU") for conv in convs[:-1]), (*convs[-1], "BN"))
        return (start,), inside, (("ReLU",), end)
    rest = tuple(("BN, ReLU", *conv) for conv in convs[1:])
    # A projection takes the activated input, so the fork stands behind the first BN and ReLU.
    if block.skip is Skip.PROJECTION:
        return (start, ("BN, ReLU",)), (convs[0], *rest), (end,)
    return (start,), (("BN, ReLU", *convs[0]), *rest), (end,)


def _skip_label(block: BuildingBlock) -> str:
    if block.skip is Skip.IDENTITY:
        return "identity: x as it is"
    if block.skip is Skip.PADDING:
        added = block.channels[-1] - block.channels[0]
        return f"padding: pixels in steps of {block.stride}, {counted(added, 'zero channel')}"
    norm = "" if block.kind is BlockKind.PREACTIVATION else ", BN"
    strided = f", stride {block.stride}" if block.stride > 1 else ""
    return f"1x1 conv, {block.channels[0]} -> {block.channels[-1]}{strided}{norm}"


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.1f}"

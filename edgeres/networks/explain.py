"""What a network consists of and what it costs, laid out from its specification alone.

The same rules as in `resnet`, without torch, so that a board that only runs engines can tell
what is in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from edgeres.errors import ConfigError
from edgeres.names import Name
from edgeres.networks.network import BuildingBlock, LayerShape, Network, Skip, Stage
from edgeres.networks.registry import ARCHITECTURES, find_spec, is_factory, is_published
from edgeres.networks.specification import BlockKind, ModelSpec, Shortcut, Stem

_EXPANSION = {BlockKind.BASIC: 1, BlockKind.BOTTLENECK: 4, BlockKind.PREACTIVATION: 1}
"""Channels that leave a block, in planes. Source: He et al. 2016a, table 1."""

_WIDTH_UNIT = 64
"""Stem channels of the net for which `width_per_group` is stated. Source: Xie et al., table 1."""

_IMAGE_CHANNELS = 3


class Example(Name):
    """The two kinds of block of He et al. 2016a, figure 5, by what they are made of."""

    PLAIN = "plain"
    BOTTLENECK = "bottleneck"


def explain_architecture(
    name: str, *, input_size: int | None = None, num_classes: int | None = None
) -> Network:
    """Returns a registered network; None leaves its own input size or number of classes.

    Raises:
        ConfigError: no such architecture, a user's factory, published weights, or a size below 1.
    """
    spec = described_spec(name)
    size = spec.input_size if input_size is None else input_size
    classes = spec.num_classes if num_classes is None else num_classes
    return network_from_spec(replace(spec, input_size=size, num_classes=classes))


def described_spec(name: str) -> ModelSpec:
    """Returns the specification that a name stands for.

    Raises:
        ConfigError: no such architecture, a user's factory, or published weights.
    """
    if is_factory(name):
        raise ConfigError(
            f"{name} is a factory, which only its own code describes; explain counts from the "
            f"specification of a registered architecture. Available: {', '.join(ARCHITECTURES)}."
        )
    if is_published(name):
        architecture = name.partition(":")[2].partition(".")[0]
        raise ConfigError(
            f"{name} names published weights; explain describes an architecture. "
            f"Pass {architecture}."
        )
    return find_spec(name, factories=False)


def example_block(example: Example) -> BuildingBlock:
    """Returns the paper's example of a block: 64-64-64, or 256-64-64-256 channels.

    They are the second blocks of resnet34 and resnet50. Source: He et al. 2016a, figure 5.
    """
    name = "resnet34" if example is Example.PLAIN else "resnet50"
    return explain_architecture(name).stages[0].blocks[1]


def network_from_spec(spec: ModelSpec) -> Network:
    """Returns the network that a specification describes."""
    stem = _stem(spec)
    pool = _pool(spec, stem)
    channels, size = spec.base_width, (pool or stem).output_size
    stages = []
    for index in range(len(spec.layers)):
        stages.append(_stage(spec, index, channels, size))
        last = stages[-1].blocks[-1]
        channels, size = last.channels[-1], last.output_size
    before_blocks = spec.block is not BlockKind.PREACTIVATION
    return Network(
        spec=spec,
        stem=stem,
        pool=pool,
        stages=tuple(stages),
        classifier=LayerShape(
            name="fc",
            kernel=1,
            in_channels=channels,
            out_channels=spec.num_classes,
            input_size=1,
            bias=True,
        ),
        outer_norm_channels=spec.base_width if before_blocks else channels,
    )


def _stem(spec: ModelSpec) -> LayerShape:
    imagenet = spec.stem is Stem.IMAGENET
    return LayerShape(
        name="conv1",
        kernel=7 if imagenet else 3,
        in_channels=_IMAGE_CHANNELS,
        out_channels=spec.base_width,
        input_size=spec.input_size,
        stride=2 if imagenet else 1,
        bias=spec.conv_bias,
    )


def _pool(spec: ModelSpec, stem: LayerShape) -> LayerShape | None:
    if spec.stem is Stem.CIFAR:
        return None
    width = spec.base_width
    return LayerShape(
        name="maxpool",
        kernel=3,
        in_channels=width,
        out_channels=width,
        input_size=stem.output_size,
        stride=2,
        groups=width,
    )


def _stage(spec: ModelSpec, index: int, inside: int, size: int) -> Stage:
    """Returns a stage, counted from 0, that reads `inside` channels of `size` pixels a side."""
    name = f"layer{index + 1}"
    planes = spec.base_width * spec.widen_factor * 2**index
    first = _block(f"{name}.0", spec, (inside, planes), (size, 1 if index == 0 else 2))
    after = (first.channels[-1], planes), (first.output_size, 1)
    rest = (_block(f"{name}.{number}", spec, *after) for number in range(1, spec.layers[index]))
    return Stage(name=name, blocks=(first, *rest))


def _block(
    name: str, spec: ModelSpec, channels: tuple[int, int], shape: tuple[int, int]
) -> BuildingBlock:
    """Returns a block.

    Args:
        name: of the block in the state dict.
        spec: the network that it stands in.
        channels: that it reads, and planes: the channels of the stage before expansion.
        shape: height and width that it reads in pixels, and its stride.
    """
    inside, planes = channels
    size, stride = shape
    outside = planes * _EXPANSION[spec.block]
    skip = _skip(spec, inside == outside and stride == 1)
    projection = LayerShape(
        name=f"{name}.downsample.0",
        kernel=1,
        in_channels=inside,
        out_channels=outside,
        input_size=size,
        stride=stride,
        bias=spec.conv_bias,
    )
    layers = tuple(_main_path(name, spec, channels, shape))
    projects = skip is Skip.PROJECTION
    return BuildingBlock(
        name=name,
        kind=spec.block,
        layers=layers,
        skip=skip,
        projection=projection if projects else None,
        norm_channels=_norm_channels(spec.block, layers, projects),
    )


def _skip(spec: ModelSpec, same_shape: bool) -> Skip:
    if spec.shortcut is Shortcut.NONE:
        return Skip.NONE
    if same_shape:
        return Skip.IDENTITY
    return Skip.PADDING if spec.shortcut is Shortcut.A else Skip.PROJECTION


def _main_path(
    name: str, spec: ModelSpec, channels: tuple[int, int], shape: tuple[int, int]
) -> Iterator[LayerShape]:
    inside, planes = channels
    size, stride = shape
    for number, (kernel, outside, strided, groups) in enumerate(_shapes(spec, planes), start=1):
        layer = LayerShape(
            name=f"{name}.conv{number}",
            kernel=kernel,
            in_channels=inside,
            out_channels=outside,
            input_size=size,
            stride=stride if strided else 1,
            groups=groups,
            bias=spec.conv_bias,
        )
        yield layer
        inside, size = outside, layer.output_size


def _shapes(spec: ModelSpec, planes: int) -> tuple[tuple[int, int, bool, int], ...]:
    """Returns kernel, output channels, whether the block's stride stands there, and groups."""
    if spec.block is not BlockKind.BOTTLENECK:
        return ((3, planes, True, 1), (3, planes, False, 1))
    width = planes * spec.width_per_group // _WIDTH_UNIT * spec.groups
    outside = planes * _EXPANSION[spec.block]
    first = spec.stride_in_1x1
    return (
        (1, width, first, 1),
        (3, width, not first, spec.groups),
        (1, outside, False, 1),
    )


def _norm_channels(kind: BlockKind, layers: tuple[LayerShape, ...], projects: bool) -> int:
    """Returns the channels of a block's batch normalisations: before or behind each convolution."""
    if kind is BlockKind.PREACTIVATION:
        return sum(layer.in_channels for layer in layers)
    outputs = [layer.out_channels for layer in layers]
    return sum(outputs) + (outputs[-1] if projects else 0)

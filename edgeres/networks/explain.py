"""What a network consists of and what it costs, laid out from its specification alone.

The same rules as in `resnet`, without torch, so that a board that only runs engines can show
what is in them.
"""

from __future__ import annotations

from dataclasses import replace

from edgeres.errors import ConfigError
from edgeres.names import Name
from edgeres.networks.network import BuildingBlock, LayerShape, Network, Skip, Stage
from edgeres.networks.registry import ARCHITECTURES, find_spec, is_factory, is_published
from edgeres.networks.specification import BlockKind, ModelSpec, Shortcut, Stem


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
    imagenet = spec.stem is Stem.IMAGENET
    stem = LayerShape(
        name="conv1",
        kernel=spec.stem_kernel,
        in_channels=spec.image_channels,
        out_channels=spec.base_width,
        input_size=spec.input_size,
        stride=2 if imagenet else 1,
        bias=spec.conv_bias,
    )
    pool = None
    if imagenet:
        # One window a channel: a pool moves values as a depthwise convolution does.
        width = spec.base_width
        pool = LayerShape(
            name="maxpool",
            kernel=3,
            in_channels=width,
            out_channels=width,
            input_size=stem.output_size,
            stride=2,
            groups=width,
        )
    channels, size = spec.base_width, (pool or stem).output_size
    stages = []
    for index, count in enumerate(spec.layers):
        blocks = []
        for number in range(count):
            block = _block(
                f"layer{index + 1}.{number}",
                spec,
                inside=channels,
                planes=spec.planes(index),
                size=size,
                stride=spec.stride(index, number),
            )
            channels, size = block.channels[-1], block.output_size
            blocks.append(block)
        stages.append(Stage(name=f"layer{index + 1}", blocks=tuple(blocks)))
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
        # Pre-activation nets normalise behind their last block, the others behind the stem.
        outer_norm_channels=(
            channels if spec.block is BlockKind.PREACTIVATION else spec.base_width
        ),
    )


def _block(
    name: str, spec: ModelSpec, *, inside: int, planes: int, size: int, stride: int
) -> BuildingBlock:
    """Returns a block.

    Args:
        name: of the block in the state dict.
        spec: the network that it is part of.
        inside: channels that it reads.
        planes: channels of the stage before expansion.
        size: height and width that it reads, in pixels.
        stride: factor by which it reduces them.
    """
    outside = planes * spec.block.expansion
    # Kernel, output channels, stride and groups of each convolution of the main path.
    path = [(3, planes, stride, 1), (3, planes, 1, 1)]
    if spec.block is BlockKind.BOTTLENECK:
        width = spec.bottleneck_width(planes)
        first, second = (stride, 1) if spec.stride_in_1x1 else (1, stride)
        path = [(1, width, first, 1), (3, width, second, spec.groups), (1, outside, 1, 1)]
    layers: list[LayerShape] = []
    for number, (kernel, out_channels, step, groups) in enumerate(path, start=1):
        layers.append(
            LayerShape(
                name=f"{name}.conv{number}",
                kernel=kernel,
                in_channels=layers[-1].out_channels if layers else inside,
                out_channels=out_channels,
                input_size=layers[-1].output_size if layers else size,
                stride=step,
                groups=groups,
                bias=spec.conv_bias,
            )
        )
    skip, projection = Skip.IDENTITY, None
    if spec.shortcut is Shortcut.NONE:
        skip = Skip.NONE
    elif inside != outside or stride > 1:
        skip = Skip.PADDING if spec.shortcut is Shortcut.A else Skip.PROJECTION
    if skip is Skip.PROJECTION:
        projection = replace(
            layers[0], name=f"{name}.downsample.0", kernel=1, out_channels=outside, stride=stride
        )
    # A pre-activation block normalises before each convolution, and its projection not at all.
    norm_channels = sum(layer.in_channels for layer in layers)
    if spec.block is not BlockKind.PREACTIVATION:
        norm_channels = sum(each.out_channels for each in (*layers, projection) if each)
    return BuildingBlock(
        name=name,
        kind=spec.block,
        layers=tuple(layers),
        skip=skip,
        projection=projection,
        norm_channels=norm_channels,
    )

"""Every architecture that edgeres knows by name, as frozen specifications.

Without torch: depth, width and kind of block are plain numbers from the papers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgeres.errors import ConfigError
from edgeres.names import Name, nearest
from edgeres.networks.specification import BlockKind, ModelSpec, Shortcut, Stem

_IMAGENET: Mapping[int, ModelSpec] = {
    depth: ModelSpec(name=f"resnet{depth}", block=block, layers=layers)
    for depth, block, layers in (
        (18, BlockKind.BASIC, (2, 2, 2, 2)),
        (34, BlockKind.BASIC, (3, 4, 6, 3)),
        (50, BlockKind.BOTTLENECK, (3, 4, 6, 3)),
        (101, BlockKind.BOTTLENECK, (3, 4, 23, 3)),
        (152, BlockKind.BOTTLENECK, (3, 8, 36, 3)),
    )
}
"""Nets for ImageNet by depth. Source: He et al. 2016a (arXiv 1512.03385), table 1."""


def _resnext(depth: int, groups: int, width: int) -> ModelSpec:
    """Returns ResNeXt-depth (groups x width d). Source: Xie et al. 2017 (arXiv 1611.05431)."""
    name = f"resnext{depth}_{groups}x{width}d"
    return replace(_IMAGENET[depth], name=name, groups=groups, width_per_group=width)


def _cifar(name: str, blocks: int, shortcut: Shortcut) -> ModelSpec:
    """Returns the net for 32-pixel images, three stages of `blocks` basic blocks.

    Source: He et al. 2016a, section 4.2.
    """
    return ModelSpec(
        name=name,
        block=BlockKind.BASIC,
        layers=(blocks,) * 3,
        stem=Stem.CIFAR,
        base_width=16,
        shortcut=shortcut,
        num_classes=10,
        input_size=32,
    )


def _wrn(depth: int, widen_factor: int) -> ModelSpec:
    """Returns WRN-d-k. Source: Zagoruyko and Komodakis 2016 (arXiv 1605.07146), table 1."""
    # The paper counts three projections, and not the classifier: 6n + 4.
    basic = _cifar(f"wrn_{depth}_{widen_factor}", (depth - 4) // 6, Shortcut.B)
    return replace(basic, block=BlockKind.PREACTIVATION, widen_factor=widen_factor)


_SPECS = (
    *_IMAGENET.values(),
    # The 3x3 twice as wide. Source: Zagoruyko and Komodakis 2016, section 3.4.
    *(replace(_IMAGENET[d], name=f"wide_resnet{d}_2", width_per_group=128) for d in (50, 101)),
    *(_resnext(50, 32, 4), _resnext(101, 32, 8)),
    # He et al.'s own bottleneck, with the stride in the first 1x1; torchvision's is v1.5.
    *(replace(_IMAGENET[d], name=f"resnet{d}_v1", stride_in_1x1=True) for d in (50, 101, 152)),
    # Two convolutions a block, the stem and the classifier make 6n + 2 layers.
    *(_cifar(f"resnet{d}", (d - 2) // 6, Shortcut.A) for d in (20, 32, 44, 56, 110, 1202)),
    *(_wrn(16, 4), _wrn(28, 10), _wrn(40, 4)),
    # Without skip connections. Source: He et al. 2016a, figures 3 and 6.
    *(replace(_IMAGENET[d], name=f"plain{d}", shortcut=Shortcut.NONE) for d in (18, 34)),
    *(_cifar(f"plain{d}", (d - 2) // 6, Shortcut.NONE) for d in (20, 32, 44, 56, 110)),
)

ARCHITECTURES: Mapping[str, ModelSpec] = {spec.name: spec for spec in _SPECS}
"""Specification by name: ImageNet nets with 1000 classes at 224 pixels, CIFAR nets with 10 at 32."""


COMPARED = ("vgg16", "vgg19", "googlenet", "googlenet_bn")
"""Networks of other families that `explain --against` counts; see `edgeres.networks.compared`."""


class Publisher(Name):
    """Libraries through which published weights are fetched, by `publisher:architecture`."""

    TORCHVISION = "torchvision"
    TIMM = "timm"


PUBLISHED = tuple(
    name
    for name, spec in ARCHITECTURES.items()
    if spec.stem is Stem.IMAGENET and spec.shortcut is Shortcut.B and not spec.stride_in_1x1
)
"""Architectures whose weights both publishers have, under the same name as here."""


def equal_shapes(spec: ModelSpec) -> tuple[str, ...]:
    """Returns the other architectures with tensors of the same names and shapes.

    A stride has no weights (v1 and v1.5), and neither has option A or a plain net's missing
    shortcut: a checkpoint does not show which of them it was trained as. What it does show, such
    as its classes, is the same in all of them.
    """

    def layers(network: ModelSpec) -> tuple[object, ...]:
        without_weights = network.shortcut in (Shortcut.A, Shortcut.NONE)
        width = (network.base_width, network.groups, network.width_per_group, network.widen_factor)
        return network.stem, network.block, network.layers, width, without_weights

    own = layers(spec)
    return tuple(k for k, each in ARCHITECTURES.items() if k != spec.name and layers(each) == own)


def is_published(name: str) -> bool:
    """Whether a name stands for published weights, such as `timm:resnet50.a1_in1k`."""
    return any(name.startswith(f"{publisher}:") for publisher in Publisher)


def is_factory(name: str) -> bool:
    """Whether a name is `package.module:factory`, a user's own network."""
    return ":" in name and not is_published(name)


def find_spec(name: str, *, factories: bool = True) -> ModelSpec:
    """Returns the specification of a registered architecture.

    Args:
        name: in the registry.
        factories: whether the caller takes a user's factory too; a message then offers it.

    Raises:
        ConfigError: there is none of that name.
    """
    if name in COMPARED:
        raise ConfigError(
            f"{name} is known for comparison alone: edgeres explain resnet152 --against {name}. "
            f"Exporting, building and estimating it are not offered; they are for "
            f"{', '.join(ARCHITECTURES)}."
        )
    if name not in ARCHITECTURES:
        own = "; or package.module:factory for your own" if factories else ""
        raise ConfigError(
            f"No architecture '{name}'.{nearest(name, ARCHITECTURES)} "
            f"Available: {', '.join(ARCHITECTURES)}{own}."
        )
    return ARCHITECTURES[name]

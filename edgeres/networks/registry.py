"""Every architecture that edgeres knows by name, as frozen specifications.

Without torch: depth, width and kind of block are plain numbers from the papers.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgeres.errors import ConfigError
from edgeres.names import Name, nearest
from edgeres.networks.specification import BlockKind, ModelSpec, Shortcut, Stem

_IMAGENET: Mapping[int, tuple[BlockKind, tuple[int, ...]]] = {
    18: (BlockKind.BASIC, (2, 2, 2, 2)),
    34: (BlockKind.BASIC, (3, 4, 6, 3)),
    50: (BlockKind.BOTTLENECK, (3, 4, 6, 3)),
    101: (BlockKind.BOTTLENECK, (3, 4, 23, 3)),
    152: (BlockKind.BOTTLENECK, (3, 8, 36, 3)),
}
"""Block and blocks per stage by depth. Source: He et al. 2016a (arXiv 1512.03385), table 1."""

_CIFAR_CLASSES = 10
_CIFAR_SIZE = 32
_CIFAR_WIDTH = 16


def _v1(depth: int) -> ModelSpec:
    """Returns He et al.'s bottleneck net, with the stride in the first 1x1 convolution."""
    block, layers = _IMAGENET[depth]
    return ModelSpec(name=f"resnet{depth}_v1", block=block, layers=layers, stride_in_1x1=True)


def _wide(depth: int) -> ModelSpec:
    """Returns a bottleneck net with a 3x3 twice as wide.

    Source: Zagoruyko and Komodakis 2016 (arXiv 1605.07146), section 3.4.
    """
    block, layers = _IMAGENET[depth]
    return ModelSpec(name=f"wide_resnet{depth}_2", block=block, layers=layers, width_per_group=128)


def _resnext(depth: int, groups: int, width: int) -> ModelSpec:
    """Returns ResNeXt-depth (groups x width d). Source: Xie et al. 2017 (arXiv 1611.05431)."""
    block, layers = _IMAGENET[depth]
    return ModelSpec(
        name=f"resnext{depth}_{groups}x{width}d",
        block=block,
        layers=layers,
        groups=groups,
        width_per_group=width,
    )


def _cifar(name: str, depth: int, shortcut: Shortcut) -> ModelSpec:
    """Returns the 6n+2 net for 32-pixel images. Source: He et al. 2016a, section 4.2."""
    return ModelSpec(
        name=name,
        block=BlockKind.BASIC,
        # Three stages of n blocks of two convolutions, the stem and the classifier: 6n + 2.
        layers=((depth - 2) // 6,) * 3,
        stem=Stem.CIFAR,
        base_width=_CIFAR_WIDTH,
        shortcut=shortcut,
        num_classes=_CIFAR_CLASSES,
        input_size=_CIFAR_SIZE,
    )


def _wrn(depth: int, widen_factor: int) -> ModelSpec:
    """Returns WRN-d-k, 6n+4 layers deep. Source: Zagoruyko and Komodakis 2016, table 1."""
    return ModelSpec(
        name=f"wrn_{depth}_{widen_factor}",
        block=BlockKind.PREACTIVATION,
        # As the CIFAR net, counting three projections in place of the classifier: 6n + 4.
        layers=((depth - 4) // 6,) * 3,
        stem=Stem.CIFAR,
        base_width=_CIFAR_WIDTH,
        widen_factor=widen_factor,
        num_classes=_CIFAR_CLASSES,
        input_size=_CIFAR_SIZE,
    )


def _plain(depth: int) -> ModelSpec:
    """Returns the ImageNet net of that depth without skip connections (He et al., figure 3)."""
    block, layers = _IMAGENET[depth]
    return ModelSpec(name=f"plain{depth}", block=block, layers=layers, shortcut=Shortcut.NONE)


_SPECS = (
    *(ModelSpec(name=f"resnet{d}", block=b, layers=n) for d, (b, n) in _IMAGENET.items()),
    *(_wide(50), _wide(101), _resnext(50, 32, 4), _resnext(101, 32, 8)),
    *(_v1(50), _v1(101), _v1(152)),
    *(_cifar(f"resnet{d}", d, Shortcut.A) for d in (20, 32, 44, 56, 110, 1202)),
    *(_wrn(16, 4), _wrn(28, 10), _wrn(40, 4)),
    *(_plain(18), _plain(34)),
    *(_cifar(f"plain{d}", d, Shortcut.NONE) for d in (20, 32, 44, 56, 110)),
)

ARCHITECTURES: Mapping[str, ModelSpec] = {spec.name: spec for spec in _SPECS}
"""Specification by name: ImageNet nets with 1000 classes at 224 pixels, CIFAR nets with 10 at 32."""


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


def is_published(name: str) -> bool:
    """Whether a name asks for published weights, such as `timm:resnet50.a1_in1k`."""
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
    if name not in ARCHITECTURES:
        own = "; or package.module:factory for your own" if factories else ""
        raise ConfigError(
            f"No architecture '{name}'.{nearest(name, ARCHITECTURES)} "
            f"Available: {', '.join(ARCHITECTURES)}{own}."
        )
    return ARCHITECTURES[name]

"""What an architecture of the ResNet family is made of, independent of any framework."""

from __future__ import annotations

from dataclasses import dataclass

from edgeres.errors import ConfigError
from edgeres.names import Name


class BlockKind(Name):
    """Kind of residual block.

    Source: He et al. 2016a (basic, bottleneck, figure 5), He et al. 2016b and Zagoruyko and
    Komodakis 2016 (pre-activation).
    """

    BASIC = "basic"
    BOTTLENECK = "bottleneck"
    PREACTIVATION = "preactivation"

    @property
    def expansion(self) -> int:
        """Channels that leave a block, in planes. Source: He et al. 2016a, table 1."""
        return 4 if self is BlockKind.BOTTLENECK else 1


class Stem(Name):
    """First layers: 7x7 stride 2 and max pooling, or a single 3x3."""

    IMAGENET = "imagenet"
    CIFAR = "cifar"


class Shortcut(Name):
    """What joins a block's input to its output where the shape changes.

    Source: He et al. 2016a, section 3.3. `A` subsamples and pads channels with zeros, `B`
    projects with a 1x1 convolution, `NONE` has no skip connection at all (a plain net).
    """

    A = "A"
    B = "B"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Architecture of a ResNet, independent of any framework."""

    name: str
    """Registry name, such as `resnet50`."""
    block: BlockKind
    layers: tuple[int, ...]
    """Number of blocks in each stage."""
    stem: Stem = Stem.IMAGENET
    base_width: int = 64
    """Channels of the stem; each later stage doubles them."""
    groups: int = 1
    """Groups of the 3x3 convolution in a bottleneck (ResNeXt's cardinality)."""
    width_per_group: int = 64
    """Channels per group of that convolution in the first stage (128 in wide_resnet50_2)."""
    widen_factor: int = 1
    """Width k of WRN-d-k: a stage has k times the stem's channels."""
    stride_in_1x1: bool = False
    """True for v1 (He et al., Keras): a bottleneck's stride stands in its first 1x1, not in the 3x3."""
    shortcut: Shortcut = Shortcut.B
    num_classes: int = 1000
    bn_eps: float = 1e-5
    conv_bias: bool = False
    """Whether convolutions followed by batch normalisation carry a bias (Keras' do)."""
    input_size: int = 224
    """Height and width of the square input in pixels."""
    image_channels: int = 3
    """Of the input; 1 is gray."""

    @property
    def stem_kernel(self) -> int:
        """Height and width of the first convolution's kernel."""
        return 3 if self.stem is Stem.CIFAR else 7

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise ConfigError(
                f"num_classes is {self.num_classes}; a classifier needs at least 1 class."
            )
        if not 0 < self.bn_eps < 1:
            raise ConfigError(
                f"bn_eps is {self.bn_eps}; expected a small positive number such as 1e-5."
            )
        if self.input_size < 1:
            raise ConfigError(f"input_size is {self.input_size}; expected at least 1 pixel.")

    def planes(self, stage: int) -> int:
        """Returns the channels of a stage, counted from 0, before expansion."""
        return self.base_width * self.widen_factor * int(2**stage)

    def stride(self, stage: int, block: int) -> int:
        """Returns the stride of a block: the first of every stage but the first halves the size."""
        return 2 if stage > 0 and block == 0 else 1

    def bottleneck_width(self, planes: int) -> int:
        """Returns the channels of a bottleneck's 3x3 convolution, all groups together.

        `width_per_group` is stated for the first stage of a net of 64 channels. Source: Xie et
        al. 2017, table 1.
        """
        return planes * self.width_per_group // 64 * self.groups

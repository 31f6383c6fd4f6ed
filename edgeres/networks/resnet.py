"""The ResNet family as torch modules, built from a `ModelSpec`.

State-dict keys are torchvision's (`layer1.0.conv1.weight`, `layer2.0.downsample.0.weight`),
so that published checkpoints load as they are. Where a shortcut has no weights (identity or
zero padding) it is still a submodule, so that its ONNX nodes carry the block's name.

Papers: He et al. 2016a "Deep Residual Learning" (arXiv 1512.03385), He et al. 2016b
"Identity Mappings" (1603.05027), Xie et al. 2017 "ResNeXt" (1611.05431), Zagoruyko and
Komodakis 2016 "Wide Residual Networks" (1605.07146). Knows nothing of files or ONNX.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeres.networks.specification import BlockKind, ModelSpec, Shortcut, Stem


def build_model(spec: ModelSpec) -> nn.Module:
    """Returns the network with He-initialised weights, in training mode.

    It maps (N, C, H, W) float32 to logits, (N, spec.num_classes) float32.
    """
    model = ResNet(spec)
    for conv in (m for m in model.modules() if isinstance(m, nn.Conv2d)):
        # N(0, 2 / fan_out). Source: He et al. 2015 (arXiv 1502.01852), equation 14.
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
    return model


class PadShortcut(nn.Module):
    """Option A: takes every `stride`-th pixel and pads the channels with zeros on both sides.

    Source: He et al. 2016a, section 3.3. The split, half of the new channels before and half
    after, is that of akamaster/pytorch_resnet_cifar10, whose checkpoints depend on it.
    """

    def __init__(self, new_channels: int, stride: int) -> None:
        """Adds `new_channels` channels of zeros at a resolution reduced by `stride`."""
        super().__init__()
        self.before = new_channels // 2
        self.after = new_channels - self.before
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, C + new_channels, ceil(H / stride), ceil(W / stride))."""
        thinned = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(thinned, (0, 0, 0, 0, self.before, self.after))


def _shortcut(spec: ModelSpec, inside: int, outside: int, stride: int) -> nn.Module | None:
    """Returns what carries a block's input to its Add; None in a plain net, which has none."""
    if spec.shortcut is Shortcut.NONE:
        return None
    if inside == outside and stride == 1:
        return nn.Identity()
    if spec.shortcut is Shortcut.A:
        return PadShortcut(outside - inside, stride)
    conv = nn.Conv2d(inside, outside, 1, stride=stride, bias=spec.conv_bias)
    # What a pre-activation block reads is normalised before it gets here.
    if spec.block is BlockKind.PREACTIVATION:
        return nn.Sequential(conv)
    return nn.Sequential(conv, nn.BatchNorm2d(outside, eps=spec.bn_eps))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions. Source: He et al. 2016a, figure 5 left."""

    def __init__(self, spec: ModelSpec, inside: int, planes: int, stride: int) -> None:
        """Maps `inside` channels to `planes`."""
        super().__init__()
        conv = partial(nn.Conv2d, kernel_size=3, padding=1, bias=spec.conv_bias)
        norm = partial(nn.BatchNorm2d, eps=spec.bn_eps)
        self.conv1 = conv(inside, planes, stride=stride)
        self.bn1 = norm(planes)
        self.relu = nn.ReLU()
        self.conv2 = conv(planes, planes)
        self.bn2 = norm(planes)
        self.downsample = _shortcut(spec, inside, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Returns relu(residual(x) + shortcut(x)); without the shortcut in a plain net."""
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            out = out + self.downsample(x)
        joined: Tensor = self.relu(out)
        return joined


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, the last one four times as wide.

    v1.5 strides in the 3x3, as torchvision does; v1 in the first 1x1. `groups` and
    `width_per_group` make it ResNeXt's or Wide ResNet's.

    Source: He et al. 2016a, figure 5 (bottleneck); Xie et al. 2017, figure 3c.
    """

    def __init__(self, spec: ModelSpec, inside: int, planes: int, stride: int) -> None:
        """Maps `inside` channels to 4 * `planes`."""
        super().__init__()
        width = spec.bottleneck_width(planes)
        first, second = (stride, 1) if spec.stride_in_1x1 else (1, stride)
        conv = partial(nn.Conv2d, bias=spec.conv_bias)
        norm = partial(nn.BatchNorm2d, eps=spec.bn_eps)
        outside = planes * spec.block.expansion
        self.conv1 = conv(inside, width, 1, stride=first)
        self.bn1 = norm(width)
        self.conv2 = conv(width, width, 3, stride=second, padding=1, groups=spec.groups)
        self.bn2 = norm(width)
        self.conv3 = conv(width, outside, 1)
        self.bn3 = norm(outside)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(spec, inside, outside, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Returns relu(residual(x) + shortcut(x)); without the shortcut in a plain net."""
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            out = out + self.downsample(x)
        joined: Tensor = self.relu(out)
        return joined


class PreactivationBlock(nn.Module):
    """Normalisation and ReLU before each of two 3x3 convolutions; nothing after the Add.

    Source: He et al. 2016b, figure 4e; Zagoruyko and Komodakis 2016, figure 1c.
    """

    def __init__(self, spec: ModelSpec, inside: int, planes: int, stride: int) -> None:
        """Maps `inside` channels to `planes`."""
        super().__init__()
        conv = partial(nn.Conv2d, kernel_size=3, padding=1, bias=spec.conv_bias)
        norm = partial(nn.BatchNorm2d, eps=spec.bn_eps)
        self.bn1 = norm(inside)
        self.relu = nn.ReLU()
        self.conv1 = conv(inside, planes, stride=stride)
        self.bn2 = norm(planes)
        self.conv2 = conv(planes, planes)
        self.downsample = _shortcut(spec, inside, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Returns residual(x) + shortcut; a projection starts from the activated input."""
        active: Tensor = self.relu(self.bn1(x))
        out: Tensor = self.conv2(self.relu(self.bn2(self.conv1(active))))
        if self.downsample is not None:
            # The identity carries the block's input as it is, not activated.
            start = x if isinstance(self.downsample, nn.Identity) else active
            out = out + self.downsample(start)
        return out


_BLOCKS: dict[BlockKind, type[BasicBlock | Bottleneck | PreactivationBlock]] = {
    BlockKind.BASIC: BasicBlock,
    BlockKind.BOTTLENECK: Bottleneck,
    BlockKind.PREACTIVATION: PreactivationBlock,
}


class ResNet(nn.Module):
    """Stem, stages of blocks, global average pooling and a linear classifier."""

    def __init__(self, spec: ModelSpec) -> None:
        """Lays the layers out; torch's default initialisation stands until `build_model`'s."""
        super().__init__()
        self.preactivation = spec.block is BlockKind.PREACTIVATION
        self.maxpool: nn.Module
        stem = partial(nn.Conv2d, spec.image_channels, spec.base_width, bias=spec.conv_bias)
        if spec.stem is Stem.CIFAR:
            self.conv1, self.maxpool = stem(spec.stem_kernel, padding=1), nn.Identity()
        else:
            self.conv1 = stem(spec.stem_kernel, stride=2, padding=3)
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        if not self.preactivation:
            self.bn1 = nn.BatchNorm2d(spec.base_width, eps=spec.bn_eps)
        self.relu = nn.ReLU()
        self.stages = tuple(f"layer{number}" for number in range(1, len(spec.layers) + 1))
        channels = spec.base_width
        block = _BLOCKS[spec.block]
        for index, stage in enumerate(self.stages):
            planes = spec.planes(index)
            blocks = []
            for number in range(spec.layers[index]):
                blocks.append(block(spec, channels, planes, spec.stride(index, number)))
                channels = planes * spec.block.expansion
            self.add_module(stage, nn.Sequential(*blocks))
        # As wide as the last block's output, which nothing has normalised yet.
        if self.preactivation:
            self.bn1 = nn.BatchNorm2d(channels, eps=spec.bn_eps)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, spec.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits, (N, num_classes), of images, (N, C, H, W)."""
        x = self.conv1(x)
        if not self.preactivation:
            x = self.relu(self.bn1(x))
        x = self.maxpool(x)
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        if self.preactivation:
            x = self.relu(self.bn1(x))
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits

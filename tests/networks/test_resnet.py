"""The networks have the published sizes and compute what the papers draw."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from published import PARAMETERS
from torch import Tensor, nn
from torch.nn import functional

from edgeres.networks import find_spec
from edgeres.networks.resnet import (
    BasicBlock,
    Bottleneck,
    PadShortcut,
    PreactivationBlock,
    build_model,
)
from edgeres.networks.specification import Shortcut

MILLIONS = {
    "resnet20": 0.27,
    "resnet32": 0.46,
    "resnet44": 0.66,
    "resnet56": 0.85,
    "resnet110": 1.7,
    "resnet1202": 19.4,
    "wrn_16_4": 2.7,
    "wrn_28_10": 36.5,
    "wrn_40_4": 8.9,
}
"""Source: He et al. 2016a, table 6; Zagoruyko and Komodakis 2016, tables 4 and 5 and their code."""


def meta_model(name: str) -> nn.Module:
    """Returns a network without storage, for its shapes."""
    with torch.device("meta"):
        return build_model(find_spec(name))


def parameters(name: str) -> int:
    """Returns the number of trained values."""
    return sum(p.numel() for p in meta_model(name).parameters())


@pytest.mark.parametrize(("name", "expected"), PARAMETERS.items())
def test_parameters_are_torchvisions(name: str, expected: int) -> None:
    """To the last one."""
    assert parameters(name) == expected


@pytest.mark.parametrize(("name", "expected"), MILLIONS.items())
def test_parameters_are_the_papers(name: str, expected: float) -> None:
    """To the digits that the tables print."""
    assert parameters(name) / 1e6 == pytest.approx(expected, rel=0.025)


@pytest.mark.parametrize("depth", [50, 101, 152])
def test_v1_has_the_weights_of_v15(depth: int) -> None:
    """Only the place of the stride differs, so checkpoints of either have the same shapes."""
    v1, v15 = (
        meta_model(f"resnet{depth}_v1").state_dict(),
        meta_model(f"resnet{depth}").state_dict(),
    )
    assert {k: v.shape for k, v in v1.items()} == {k: v.shape for k, v in v15.items()}


@pytest.mark.parametrize("depth", [18, 34])
def test_a_plain_net_lacks_the_projections_alone(depth: int) -> None:
    """What resnet has and plain has not are the weights of `downsample`."""
    residual, plain = (set(meta_model(f"{n}{depth}").state_dict()) for n in ("resnet", "plain"))
    assert plain < residual
    assert all(".downsample." in key for key in residual - plain)


def test_keys_are_torchvisions() -> None:
    """resnet50 has torchvision's 320 entries under torchvision's names."""
    keys = list(meta_model("resnet50").state_dict())
    assert len(keys) == 320
    assert {
        "conv1.weight",
        "bn1.running_mean",
        "layer1.0.conv3.weight",
        "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.num_batches_tracked",
        "layer4.2.bn3.bias",
        "fc.bias",
    } <= set(keys)


@pytest.mark.parametrize(("name", "first", "second"), [("resnet50", 1, 2), ("resnet50_v1", 2, 1)])
def test_v1_strides_in_the_first_1x1(name: str, first: int, second: int) -> None:
    """v1.5 strides in the 3x3; both halve the resolution."""
    block = meta_model(name).get_submodule("layer2.0")
    assert isinstance(block, Bottleneck)
    assert (block.conv1.stride, block.conv2.stride) == ((first, first), (second, second))


def test_resnext_groups_its_3x3() -> None:
    """32 groups of 4 channels make the 128 of the first stage, table 1 of the paper."""
    block = meta_model("resnext50_32x4d").get_submodule("layer1.0")
    assert isinstance(block, Bottleneck)
    assert (block.conv2.groups, block.conv2.in_channels, block.conv2.out_channels) == (32, 128, 128)


@pytest.mark.parametrize(("size", "new"), [(8, 16), (7, 4), (5, 3)])
def test_option_a_subsamples_and_pads_both_sides(size: int, new: int) -> None:
    """Every second pixel stays; half of the new channels come before, the rest after."""
    x = torch.randn(2, 4, size, size)
    padded = PadShortcut(new, 2)(x)
    half = (size + 1) // 2
    expected = torch.zeros(2, 4 + new, half, half)
    for row in range(half):
        for column in range(half):
            expected[:, new // 2 : new // 2 + 4, row, column] = x[:, :, 2 * row, 2 * column]
    assert torch.equal(padded, expected)


def _norm(x: Tensor, bn: nn.Module) -> Tensor:
    """Returns batch normalisation by its definition."""
    assert isinstance(bn, nn.BatchNorm2d)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    mean, var, gamma, beta = (
        v.reshape(-1, 1, 1) for v in (bn.running_mean, bn.running_var, bn.weight, bn.bias)
    )
    return (x - mean) / torch.sqrt(var + bn.eps) * gamma + beta


def randomised(module: nn.Module) -> nn.Module:
    """Gives every batch normalisation statistics that are not the identity."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for values in (part.weight, part.running_var):
                assert values is not None
                nn.init.uniform_(values, 0.5, 1.5)
            for values in (part.bias, part.running_mean):
                assert values is not None
                nn.init.normal_(values)
    return module.eval()


@torch.inference_mode()
def test_a_basic_block_is_the_papers() -> None:
    """relu(bn(conv(relu(bn(conv(x))))) + x), written out."""
    block = randomised(BasicBlock(find_spec("resnet20"), 4, 4, 1))
    assert isinstance(block, BasicBlock)
    x = torch.randn(2, 4, 6, 6)
    inner = _norm(functional.conv2d(x, block.conv1.weight, padding=1), block.bn1).clamp(min=0)
    outer = _norm(functional.conv2d(inner, block.conv2.weight, padding=1), block.bn2)
    torch.testing.assert_close(block(x), (outer + x).clamp(min=0))


@torch.inference_mode()
def test_a_plain_block_is_a_basic_block_without_the_sum() -> None:
    """The same weights, and nothing added."""
    block = randomised(BasicBlock(find_spec("plain20"), 4, 4, 1))
    assert isinstance(block, BasicBlock)
    x = torch.randn(2, 4, 6, 6)
    inner = _norm(functional.conv2d(x, block.conv1.weight, padding=1), block.bn1).clamp(min=0)
    outer = _norm(functional.conv2d(inner, block.conv2.weight, padding=1), block.bn2)
    torch.testing.assert_close(block(x), outer.clamp(min=0))


@torch.inference_mode()
def test_a_bottleneck_projects_where_the_shape_changes() -> None:
    """1x1, strided 3x3 and 1x1, plus a strided 1x1 with its own normalisation."""
    block = randomised(Bottleneck(find_spec("resnet50"), 8, 4, 2))
    assert isinstance(block, Bottleneck)
    assert isinstance(block.downsample, nn.Sequential)
    x = torch.randn(2, 8, 6, 6)
    out = _norm(functional.conv2d(x, block.conv1.weight), block.bn1).clamp(min=0)
    out = functional.conv2d(out, block.conv2.weight, stride=2, padding=1)
    out = functional.conv2d(_norm(out, block.bn2).clamp(min=0), block.conv3.weight)
    projection, norm = block.downsample
    assert isinstance(projection, nn.Conv2d)
    shortcut = _norm(functional.conv2d(x, projection.weight, stride=2), norm)
    expected = (_norm(out, block.bn3) + shortcut).clamp(min=0)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("inside", [4, 8], ids=["projected", "identity"])
@torch.inference_mode()
def test_a_preactivation_block_projects_the_activated_input(inside: int) -> None:
    """The projection reads relu(bn(x)), the identity x itself; nothing follows the sum."""
    block = randomised(PreactivationBlock(find_spec("wrn_16_4"), inside, 8, 1))
    assert isinstance(block, PreactivationBlock)
    x = torch.randn(2, inside, 6, 6)
    active = _norm(x, block.bn1).clamp(min=0)
    out = _norm(functional.conv2d(active, block.conv1.weight, padding=1), block.bn2).clamp(min=0)
    out = functional.conv2d(out, block.conv2.weight, padding=1)
    shortcut = x
    if isinstance(block.downsample, nn.Sequential):
        projection = block.downsample[0]
        assert isinstance(projection, nn.Conv2d)
        shortcut = functional.conv2d(active, projection.weight)
    torch.testing.assert_close(block(x), out + shortcut)


def test_initial_weights_have_hes_deviation() -> None:
    """sqrt(2 / fan_out) for a 3x3 convolution to 256 channels; biases, where requested, are 0."""
    torch.manual_seed(0)
    conv = build_model(replace(find_spec("resnet18"), conv_bias=True)).get_submodule(
        "layer3.0.conv2"
    )
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    assert conv.weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)
    assert not conv.bias.any()


def test_the_specification_reaches_every_layer() -> None:
    """Epsilon, convolution biases and shortcut B are taken over."""
    spec = replace(find_spec("resnet20"), bn_eps=1e-3, conv_bias=True, shortcut=Shortcut.B)
    model = build_model(spec)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert {m.eps for m in norms} == {1e-3}
    assert all(m.bias is not None for m in convs)
    assert len(convs) == 21

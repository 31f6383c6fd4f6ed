"""What explain counts is what the torch modules have and do, and what the papers print."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import pytest
import torch
from published import PARAMETERS
from torch import Tensor, nn

from edgeres.core.precision import Precision
from edgeres.errors import ConfigError
from edgeres.networks import ARCHITECTURES, find_spec
from edgeres.networks.explain import (
    Example,
    example_block,
    explain_architecture,
    network_from_spec,
)
from edgeres.networks.network import Cost, LayerShape, Network, Skip, measures, ratios, runs
from edgeres.networks.resnet import PadShortcut, build_model
from edgeres.networks.specification import ModelSpec
from edgeres.serialization import to_json

GIGA_MACS = {
    "resnet18": 1.81,
    "resnet34": 3.66,
    "resnet50": 4.09,
    "resnet101": 7.80,
    "resnet152": 11.51,
    "resnext50_32x4d": 4.23,
    "resnext101_32x8d": 16.41,
    "wide_resnet50_2": 11.40,
    "wide_resnet101_2": 22.75,
}
"""Source: GFLOPS of the weights in torchvision's documentation, `meta["_ops"]` of version 0.28."""

PAPER_GIGA_MACS = {"resnet50_v1": 3.8, "resnet101_v1": 7.6, "resnet152_v1": 11.3}
"""Source: He et al. 2016a, table 1, row FLOPs; 3.858 stands there as 3.8."""

MEGA_ACTIVATIONS = {
    "resnet18": 2.5,
    "resnet34": 3.7,
    "resnet50": 11.1,
    "resnet101": 16.2,
    "resnet152": 22.6,
    "resnext50_32x4d": 14.4,
    "resnext101_32x8d": 31.2,
    "wide_resnet50_2": 14.4,
}
"""Source: timm's model cards, activations in millions at 224 pixels."""


@dataclass
class Trace:
    """What forward hooks see of one image that runs through a module on the meta device."""

    macs: int = 0
    written: int = 0
    """Values that convolutions and classifier write."""
    moved: int = 0
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Height that each convolution reads and writes, by name."""

    def count(self, name: str, module: nn.Module, x: Tensor, y: Tensor) -> None:
        """Counts what a module does; weights times positions for each of the two weighted kinds."""
        if isinstance(module, nn.Conv2d | nn.Linear):
            positions = y.shape[2] * y.shape[3] if y.ndim == 4 else 1
            self.macs += module.weight.numel() * positions
            self.written += y.numel()
        if isinstance(module, nn.Conv2d):
            self.sizes[name] = x.shape[2], y.shape[2]
            if module.kernel_size[0] < module.stride[0]:
                x = x[:, :, :: module.stride[0], :: module.stride[1]]
        if isinstance(module, nn.Conv2d | nn.Linear | nn.MaxPool2d | nn.AdaptiveAvgPool2d):
            self.moved += x.numel() + y.numel()
        if isinstance(module, PadShortcut):
            self.moved += x[:, :, :: module.stride, :: module.stride].numel()
        elif name.endswith("downsample"):
            self.moved += y.numel()


@cache
def meta_model(spec: ModelSpec) -> nn.Module:
    """Returns a network without storage."""
    with torch.device("meta"):
        return build_model(spec).eval()


def trace(spec: ModelSpec) -> Trace:
    """Returns what one image does in the torch module."""
    model, counted = meta_model(spec), Trace()
    hooks = []
    for name, module in model.named_modules():

        def hook(m: nn.Module, x: tuple[Tensor, ...], y: Tensor, name: str = name) -> None:
            counted.count(name, m, x[0], y)

        hooks.append(module.register_forward_hook(hook))
    with torch.no_grad():
        model(torch.empty(1, 3, spec.input_size, spec.input_size, device="meta"))
    for registered in hooks:
        registered.remove()
    return counted


@cache
def traced(name: str) -> Trace:
    """Returns the trace of a registered architecture as it is registered."""
    return trace(find_spec(name))


@cache
def explained(name: str) -> Network:
    """Returns a registered network."""
    return explain_architecture(name)


def sum_of(model: nn.Module, kind: type[nn.Module]) -> int:
    """Returns the number of trained values in modules of a kind."""
    found = (m for m in model.modules() if isinstance(m, kind))
    return sum(p.numel() for m in found for p in m.parameters())


def assert_parameters(network: Network) -> None:
    """Compares the three kinds of parameters with the torch module's."""
    model, cost = meta_model(network.spec), network.cost
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    assert cost.convolution_parameters == sum_of(model, nn.Conv2d)
    assert cost.norm_parameters == sum_of(model, nn.BatchNorm2d)
    assert cost.classifier_parameters == sum_of(model, nn.Linear)


def assert_layers(convolutions: Iterable[LayerShape], model: nn.Module, counted: Trace) -> None:
    """Compares every convolution with the module of its name."""
    by_name = {layer.name: layer for layer in convolutions}
    found = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    assert list(by_name) == list(found)
    for name, conv in found.items():
        layer = by_name[name]
        shape = (layer.in_channels, layer.out_channels, layer.groups, layer.bias)
        assert shape == (conv.in_channels, conv.out_channels, conv.groups, conv.bias is not None)
        assert ((layer.kernel,) * 2, (layer.stride,) * 2) == (conv.kernel_size, conv.stride)
        assert (layer.input_size, layer.output_size) == counted.sizes[name]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_are_those_of_the_torch_module(name: str) -> None:
    """Convolutions, batch normalisations and classifier each to the last value."""
    assert_parameters(explained(name))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_one_image_does_what_hooks_see(name: str) -> None:
    """MACs, activations and values moved, each counted from the tensors that pass."""
    cost, counted = explained(name).cost, traced(name)
    assert (cost.macs, cost.activations, cost.moved) == (
        counted.macs,
        counted.written,
        counted.moved,
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_convolution_is_the_module_of_its_name(name: str) -> None:
    """Names in order, channels, kernel, stride, groups, and the sizes of the maps."""
    assert_layers(explained(name).convolutions, meta_model(find_spec(name)), traced(name))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_skip_connection_is_the_module_of_its_block(name: str) -> None:
    """What the module adds, and how many channels it normalises."""
    model = meta_model(find_spec(name))
    kinds = {nn.Identity: Skip.IDENTITY, PadShortcut: Skip.PADDING, nn.Sequential: Skip.PROJECTION}
    for block in explained(name).blocks:
        module = model.get_submodule(block.name)
        assert block.skip is kinds.get(type(module.downsample), Skip.NONE)
        assert block.cost.norm_parameters == sum_of(module, nn.BatchNorm2d)
        assert block.cost.parameters == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    "changes",
    [
        {"input_size": 97, "num_classes": 7},
        {"input_size": 1},
        {"conv_bias": True},
        {"layers": (1, 1, 1, 1), "groups": 4, "width_per_group": 32},
    ],
)
@pytest.mark.parametrize("name", ["resnet50", "resnet50_v1", "resnet34"])
def test_any_size_number_of_classes_and_bias_is_counted(name: str, changes: dict[str, Any]) -> None:
    """Odd sizes and a single pixel round as torch does."""
    spec = replace(find_spec(name), **changes)
    network, counted = network_from_spec(spec), trace(spec)
    assert_parameters(network)
    assert_layers(network.convolutions, meta_model(spec), counted)
    assert (network.cost.macs, network.cost.moved) == (counted.macs, counted.moved)


def test_another_stride_is_not_taken_for_the_same() -> None:
    """v1 compared with v1.5's module fails: the comparison above shows where a stride stands."""
    counted, model = traced("resnet50"), meta_model(find_spec("resnet50"))
    with pytest.raises(AssertionError):
        assert_layers(explained("resnet50_v1").convolutions, model, counted)
    assert explained("resnet50_v1").cost.macs < counted.macs


@pytest.mark.parametrize(("name", "expected"), PARAMETERS.items())
def test_parameters_are_the_published_ones(name: str, expected: int) -> None:
    """To the last value."""
    assert explained(name).cost.parameters == expected


@pytest.mark.parametrize(("name", "expected"), GIGA_MACS.items())
def test_macs_are_the_published_ones(name: str, expected: float) -> None:
    """To the digits that torchvision prints."""
    assert explained(name).cost.macs / 1e9 == pytest.approx(expected, abs=0.00501)


@pytest.mark.parametrize(("name", "expected"), PAPER_GIGA_MACS.items())
def test_v1_has_the_macs_of_the_paper(name: str, expected: float) -> None:
    """To the digit that it prints, which it cuts rather than rounds."""
    assert explained(name).cost.macs / 1e9 == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize(("name", "expected"), MEGA_ACTIVATIONS.items())
def test_activations_are_the_published_ones(name: str, expected: float) -> None:
    """To the digit that timm prints."""
    assert explained(name).cost.activations / 1e6 == pytest.approx(expected, abs=0.0501)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_depth_is_the_number_in_the_name(name: str) -> None:
    """He et al. count the main path and the classifier, WRN all convolutions."""
    (number,) = re.findall(r"^\D+(\d+)", name.removeprefix("wide_"))
    assert explained(name).depth == int(number)


def test_the_paper_s_two_blocks() -> None:
    """73,728 weights in two 3x3 of 64 channels, 69,632 in 256-64-64-256."""
    plain, bottleneck = example_block(Example.PLAIN), example_block(Example.BOTTLENECK)
    assert (plain.kernels, plain.channels) == ((3, 3), (64, 64, 64))
    assert (bottleneck.kernels, bottleneck.channels) == ((1, 3, 1), (256, 64, 64, 256))
    assert (plain.cost.weights, bottleneck.cost.weights) == (73_728, 69_632)
    assert [layer.weights for layer in bottleneck.layers] == [16_384, 36_864, 16_384]


def test_bytes_by_hand() -> None:
    """2 to 4 channels, 3x3 on 8 pixels with stride 2: 72 weights, 128 values in, 64 out."""
    cost = LayerShape(
        name="conv", kernel=3, in_channels=2, out_channels=4, input_size=8, stride=2
    ).cost
    assert (cost.weights, cost.macs, cost.activations, cost.moved) == (72, 72 * 16, 64, 192)
    fp32, int8 = Precision.FP32, Precision.INT8
    assert (cost.weight_bytes(fp32), cost.activation_bytes(fp32)) == (4 * 76, 4 * 64)
    assert (cost.weight_bytes(int8), cost.activation_bytes(int8)) == (72 + 4 * 8, 64)
    assert cost.weight_bytes(Precision.FP16) == 2 * 76
    assert cost.intensity(fp32) == pytest.approx(1152 / (304 + 768))
    assert cost.intensity(int8) == pytest.approx(1152 / (104 + 192))


def test_weight_bytes_are_those_of_the_folded_module() -> None:
    """Every kernel, and a bias for each channel of a convolution or the classifier."""
    model = meta_model(find_spec("resnet50"))
    weighted = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    values = sum(m.weight.numel() + m.weight.shape[0] for m in weighted)
    assert explained("resnet50").cost.weight_bytes(Precision.FP32) == 4 * values


def test_costs_add_up() -> None:
    """The network's is the sum of its parts', a stage's the sum of its blocks'."""
    network = explained("wrn_16_4")
    assert sum((cost for _, cost in network.parts), Cost()) == network.cost
    names = [name for name, _ in network.parts]
    assert names == ["stem", "layer1", "layer2", "layer3", "head"]
    stage = network.stages[0]
    assert stage.cost == stage.blocks[0].cost + stage.blocks[1].cost


def test_blocks_of_one_shape_run_together() -> None:
    """The first of a stage stands alone where it changes the shape."""
    found = [[block.name for block in run] for run in runs(explained("resnet50").blocks)]
    assert [len(run) for run in found] == [1, 2, 1, 3, 1, 5, 1, 2]
    assert found[1] == ["layer1.1", "layer1.2"]
    assert [len(run) for run in runs(explained("resnet18").blocks)] == [2, 1, 1, 1, 1, 1, 1]


def test_ratios_are_figure_by_figure() -> None:
    """How many times the other's; 1 against itself."""
    wide, narrow = explained("wide_resnet50_2"), explained("resnet50")
    found = ratios(wide, narrow)
    assert found.keys() == measures(wide).keys()
    assert found["depth"] == 1
    assert found["parameters"] == pytest.approx(68_883_240 / 25_557_032)
    assert set(ratios(narrow, narrow).values()) == {1}


def test_the_json_form_has_each_layer_with_its_figures() -> None:
    """Blocks by stage; a projection only where there is one."""
    document = to_json(explained("resnet50"))
    assert (document["schema_version"], document["name"], document["depth"]) == (1, "resnet50", 50)
    assert document["cost"]["parameters"] == 25_557_032
    assert document["parts"]["head"]["parameters"] == 2_049_000
    first, second, _ = document["stages"][0]["blocks"]
    assert first["projection"]["name"] == "layer1.0.downsample.0"
    assert (second["projection"], second["skip"]) == (None, "identity")
    assert second["layers"][1] == {
        "name": "layer1.1.conv2",
        "kernel": 3,
        "in_channels": 64,
        "out_channels": 64,
        "input_size": 56,
        "stride": 1,
        "groups": 1,
        "bias": False,
        "output_size": 56,
        "weights": 36_864,
        "macs": 36_864 * 56 * 56,
    }


def test_an_unknown_name_gets_the_nearest() -> None:
    """With what is registered."""
    with pytest.raises(ConfigError, match=r"No architecture 'reznet50'\. Did you mean 'resnet50'"):
        explain_architecture("reznet50")


def test_a_factory_is_refused() -> None:
    """Only its code says what it builds; nothing of it is imported."""
    with pytest.raises(ConfigError, match=r"my\.nets:resnet is a factory, which only its own code"):
        explain_architecture("my.nets:resnet")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"input_size": 0}, "input_size is 0; expected at least 1 pixel"),
        ({"num_classes": 0}, "num_classes is 0; a classifier needs at least 1 class"),
    ],
)
def test_nothing_is_no_size(sizes: dict[str, int], message: str) -> None:
    """Zero is not taken for the default."""
    with pytest.raises(ConfigError, match=message):
        explain_architecture("resnet18", **sizes)


def test_torch_is_not_needed() -> None:
    """It runs on a board that only runs engines."""
    script = (
        "import sys; sys.modules.update(torch=None, numpy=None, onnx=None)\n"
        "from edgeres.networks.explain import explain_architecture\n"
        "print(explain_architecture('resnet152').depth)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "152\n"

"""Every architecture of the family is registered with the published numbers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from edgeres.errors import ConfigError
from edgeres.networks import ARCHITECTURES, equal_shapes, find_spec, is_factory
from edgeres.networks.resnet import ResNet
from edgeres.networks.specification import BlockKind, Shortcut, Stem

IMAGENET = [
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnet50_v1",
    "resnet101_v1",
    "resnet152_v1",
    "plain18",
    "plain34",
]
CIFAR = [
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "resnet1202",
    "wrn_16_4",
    "wrn_28_10",
    "wrn_40_4",
    "plain20",
    "plain32",
    "plain44",
    "plain56",
    "plain110",
]


def test_the_registry_has_the_whole_family_and_nothing_else() -> None:
    """Names are those of the command line, each under its own specification."""
    assert sorted(ARCHITECTURES) == sorted(IMAGENET + CIFAR)
    assert all(name == spec.name for name, spec in ARCHITECTURES.items())


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet_nets_take_224_pixels_to_1000_classes(name: str) -> None:
    """The defaults of the ImageNet nets are those they were published with."""
    spec = find_spec(name)
    assert (spec.stem, spec.input_size, spec.num_classes) == (Stem.IMAGENET, 224, 1000)


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_nets_are_as_deep_as_their_name_says(name: str) -> None:
    """2 convolutions a block plus stem and classifier; WRN counts its 3 projections too."""
    spec = find_spec(name)
    extra = 4 if spec.block is BlockKind.PREACTIVATION else 2
    depth = int(name.split("_")[1] if name.startswith("wrn") else name.lstrip("resntplai"))
    assert 2 * sum(spec.layers) + extra == depth
    assert (spec.stem, spec.input_size, spec.num_classes) == (Stem.CIFAR, 32, 10)


def test_plain_nets_differ_from_residual_ones_in_the_shortcut_alone() -> None:
    """plain34 is resnet34 without the skip connection."""
    plain, residual = find_spec("plain34"), find_spec("resnet34")
    assert plain.shortcut is Shortcut.NONE
    assert (plain.block, plain.layers) == (residual.block, residual.layers)


def test_architectures_of_equal_shapes_are_those_whose_tensors_are_equal() -> None:
    """Compared with the state dicts of all registered networks."""
    shapes = {}
    with torch.device("meta"):
        for name, spec in ARCHITECTURES.items():
            state = ResNet(spec).state_dict()
            shapes[name] = {key: value.shape for key, value in state.items()}
    for name in ARCHITECTURES:
        expected = [other for other in shapes if other != name and shapes[other] == shapes[name]]
        assert list(equal_shapes(find_spec(name))) == expected
    assert equal_shapes(find_spec("resnet50")) == ("resnet50_v1",)
    assert equal_shapes(find_spec("plain20")) == ("resnet20",)
    assert equal_shapes(find_spec("resnet18")) == ()


def test_shapes_are_those_of_the_network_not_of_its_name() -> None:
    """Option B has projections, and option A of an ImageNet net has none; classes do not count."""
    assert equal_shapes(replace(find_spec("resnet20"), shortcut=Shortcut.B)) == ()
    assert equal_shapes(replace(find_spec("resnet18"), shortcut=Shortcut.A)) == ("plain18",)
    assert equal_shapes(replace(find_spec("resnet50"), num_classes=5)) == ("resnet50_v1",)
    assert equal_shapes(replace(find_spec("plain20"), image_channels=1)) == ("resnet20",)


def test_an_unknown_architecture_is_refused_with_the_nearest_name() -> None:
    """The message says what was meant and what there is."""
    with pytest.raises(ConfigError) as refused:
        find_spec("resnet55")
    assert str(refused.value).startswith("No architecture 'resnet55'. Did you mean 'resnet5")
    assert "wide_resnet50_2" in str(refused.value)
    assert "package.module:factory" in str(refused.value)


def test_a_name_with_a_colon_is_a_factory() -> None:
    """Only `package.module:factory` is."""
    assert is_factory("my.nets:resnet")
    assert not is_factory("resnet50")


def test_the_registry_loads_without_torch() -> None:
    """A machine that only builds and measures engines needs no torch."""
    code = "import sys, edgeres.networks; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

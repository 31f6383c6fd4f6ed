"""Layers gathered into residual blocks, by their names alone."""

from __future__ import annotations

import pytest

from edgeres.core.artifacts import LayerPrecision
from edgeres.core.blocks import locate
from edgeres.core.precision import Precision
from edgeres.networks.explain import explain_architecture
from edgeres.networks.network import BuildingBlock
from edgeres.report.html.network import stages


def layer(name: str, op_type: str = "Conv") -> LayerPrecision:
    """Returns a layer in INT8."""
    return LayerPrecision(name=name, op_type=op_type, precision=Precision.INT8)


def short_name(one: LayerPrecision) -> str:
    """Returns what a page calls a layer in its block."""
    return locate(one.name, one.op_type).layer


def exported(architecture: str) -> tuple[LayerPrecision, ...]:
    """Returns the layers of a network by the names that the exporter of torch gives them."""
    network = explain_architecture(architecture)
    collected = [layer("/conv1/Conv"), layer("/maxpool/MaxPool", "MaxPool")]
    for stage in network.stages:
        for block in stage.blocks:
            collected += _exported_block(f"/{stage.name}/{block.name}", block)
    return (
        *collected,
        layer("/avgpool/GlobalAveragePool", "GlobalAveragePool"),
        layer("/fc/Gemm", "Gemm"),
    )


def _exported_block(path: str, block: BuildingBlock) -> list[LayerPrecision]:
    collected = [layer(f"{path}/{conv.name.split('.')[-1]}/Conv") for conv in block.layers]
    if block.projection is not None:
        collected.append(layer(f"{path}/downsample/downsample.0/Conv"))
    return [*collected, layer(f"{path}/Add", "Add")]


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50", "resnet152"])
def test_blocks_are_those_of_the_architecture(architecture: str) -> None:
    """Every stage and block by name, each with its convolutions and its Add."""
    network = explain_architecture(architecture)
    stem, *middle, head = stages(exported(architecture))
    assert [stage.name for stage in middle] == [stage.name for stage in network.stages]
    collected = [(block.name, len(block.layers)) for stage in middle for block in stage.blocks]
    assert collected == [(block.name, len(block.convolutions) + 1) for block in network.blocks]
    assert (stem.name, head.name) == ("stem", "head")
    assert [short_name(one) for one in stem.blocks[0].layers] == ["conv1", "maxpool"]
    assert [short_name(one) for one in head.blocks[0].layers] == ["avgpool", "fc"]


def test_layers_are_called_by_what_they_are_in_their_block() -> None:
    """Convolutions, projection and Add; torch's own names serve too, and so does a foreign one."""
    names = {
        layer("/layer1/layer1.0/conv2/Conv"): "conv2",
        layer("/layer2/layer2.0/downsample/downsample.0/Conv"): "downsample",
        layer("/layer1/layer1.0/Add", "Add"): "Add",
        layer("layer3.11.conv1"): "conv1",
        layer("fc", "Gemm"): "fc",
        layer("Conv", "Conv"): "Conv",
        layer(""): "Conv",
    }
    assert {one: short_name(one) for one in names} == names


def test_layers_out_of_order_stay_with_their_block() -> None:
    """A projection that comes after the next block's first layer is still its own block's."""
    (stage,) = stages(
        [layer("layer1.0.conv1"), layer("layer1.1.conv1"), layer("layer1.0.downsample.0")]
    )
    assert [len(block.layers) for block in stage.blocks] == [2, 1]


def test_a_network_of_foreign_names_is_one_group() -> None:
    """Nothing is lost and no block is invented."""
    (stage,) = stages([layer("a"), layer("b")])
    assert (stage.name, [block.name for block in stage.blocks]) == ("network", [""])
    assert len(stage.blocks[0].layers) == 2
    assert stages([]) == ()


def test_a_block_is_as_sensitive_as_was_measured() -> None:
    """By its own name first, else as its worst layer; unknown is not zero."""
    layers = [layer("layer1.0.conv1"), layer("layer1.0.conv2"), layer("layer1.1.conv1")]
    (by_layer,) = stages(layers, {"layer1.0.conv1": 0.1, "layer1.0.conv2": 0.3})
    (by_block,) = stages(layers, {"layer1.0.conv1": 0.9, "layer1.0": 0.2})
    assert [block.sensitivity for block in by_layer.blocks] == [0.3, None]
    assert [block.sensitivity for block in by_block.blocks] == [0.2, None]

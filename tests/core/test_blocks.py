"""Names of operators to stage, block and layer."""

from __future__ import annotations

import pytest

from edgeres.core.blocks import locate


@pytest.mark.parametrize(
    ("name", "op_type", "module", "stage", "block", "layer"),
    [
        ("/layer1/layer1.0/conv1/Conv", "Conv", "layer1.0.conv1", "layer1", "layer1.0", "conv1"),
        (
            "/layer2/layer2.0/downsample/downsample.0/Conv",
            "Conv",
            "layer2.0.downsample.0",
            "layer2",
            "layer2.0",
            "downsample",
        ),
        ("/layer3/layer3.11/Add", "Add", "layer3.11", "layer3", "layer3.11", "Add"),
        ("layer3.11.conv1", "Conv", "layer3.11.conv1", "layer3", "layer3.11", "conv1"),
        (
            "layer1.0.downsample.0",
            "Conv",
            "layer1.0.downsample.0",
            "layer1",
            "layer1.0",
            "downsample",
        ),
        ("/layer1.0/conv1/Conv", "Conv", "layer1.0.conv1", "layer1", "layer1.0", "conv1"),
        (
            "/net/layer1/layer1.0/conv1/Conv",
            "Conv",
            "net.layer1.0.conv1",
            "layer1",
            "layer1.0",
            "conv1",
        ),
        ("/blocks/blocks.3/se/fc1/Conv", "Conv", "blocks.3.se.fc1", "blocks", "blocks.3", "fc1"),
        (
            "/features/features.4/features.4.0/conv1/Conv",
            "Conv",
            "features.4.0.conv1",
            "features.4",
            "features.4.0",
            "conv1",
        ),
    ],
)
def test_a_block_is_found_in_either_form_of_a_name(
    name: str, op_type: str, module: str, stage: str, block: str, layer: str
) -> None:
    """The exporter's path, a state dict's, a wrapped network, unnamed stages."""
    place = locate(name, op_type)
    assert (place.module, place.stage, place.block, place.layer) == (module, stage, block, layer)


@pytest.mark.parametrize(
    ("name", "op_type", "module", "layer"),
    [
        ("/conv1/Conv", "Conv", "conv1", "conv1"),
        ("/fc/Gemm", "Gemm", "fc", "fc"),
        ("/head/pool/GlobalAveragePool", "GlobalAveragePool", "head.pool", "pool"),
        ("fc", "Gemm", "", "fc"),
        ("Conv_12", "Conv", "", "Conv_12"),
        ("Conv", "Conv", "", "Conv"),
        ("/Conv", "Conv", "", "Conv"),
        ("", "Conv", "", "Conv"),
    ],
)
def test_what_is_in_no_block_has_neither_block_nor_stage(
    name: str, op_type: str, module: str, layer: str
) -> None:
    """Stem and head, and names that are no paths."""
    place = locate(name, op_type)
    assert (place.module, place.stage, place.block, place.layer) == (module, "", "", layer)

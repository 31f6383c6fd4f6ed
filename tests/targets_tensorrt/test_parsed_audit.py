"""A parsed network is audited by who makes the operands, on NVIDIA's parser and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from digits import Digits
from fake_tensorrt import FakeTensorRT
from networks import NAMES, network
from qdq import unit_table, with_qdq, without_pair

from edgeres.core.artifacts import LayerPrecision
from edgeres.core.audit import Source
from edgeres.core.contract import Contract, preset
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.core.table import load_table
from edgeres.errors import CoverageError
from edgeres.onnx_file import LoweredNetwork, load_onnx
from edgeres.quantization.fp16.typed import to_fp16
from edgeres.quantization.graph import view
from edgeres.quantization.qdq.network import quantize_for_tensorrt
from edgeres.quantization.qdq.placement import place_for_tensorrt
from edgeres.targets.base import build_engine
from edgeres.targets.tensorrt.parsed_audit import NOTE, audit_of_network

RTX = BuildRequest(target="tensorrt-rtx", compute_capability="8.6", required_coverage=100.0)
INT8 = BuildRequest(target="tensorrt-rtx", precision=Precision.INT8)


def layers(**kinds: str) -> tuple[LayerPrecision, ...]:
    """Returns INT8 layers of these names and operators."""
    return tuple(
        LayerPrecision(name=name, op_type=kind, precision=Precision.INT8)
        for name, kind in kinds.items()
    )


class Network2:
    """An INetworkDefinition of one convolution, one addition and who feeds them."""

    def __init__(self, trt: FakeTensorRT, shortcut: str) -> None:
        """Makes it with the shortcut coming out of `shortcut`, a member of LayerType."""
        half = [trt.tensor(name, "HALF") for name in "xwmsy"]
        x, w, main, short, out = half
        self._layers = [
            trt.layer("DEQUANTIZE", "x/dq", [], [x]),
            trt.layer("DEQUANTIZE", "w/dq", [], [w]),
            trt.layer("CONVOLUTION", "conv", [x, w], [main]),
            trt.layer(shortcut, "shortcut", [], [short]),
            trt.layer("ELEMENTWISE", "add", [main, short], [out]),
        ]
        self.num_layers = len(self._layers)

    def get_layer(self, index: int) -> Any:
        """Returns one."""
        return self._layers[index]


@pytest.mark.parametrize(
    ("shortcut", "ran"),
    [
        ("DEQUANTIZE", Precision.INT8),
        ("ACTIVATION", Precision.FP16),
        ("CONVOLUTION", Precision.FP16),
    ],
)
def test_an_addition_is_integer_when_its_shortcut_is(shortcut: str, ran: Precision) -> None:
    """A float shortcut, or one that is not quantized behind its own convolution, is not."""
    trt = FakeTensorRT("rtx")
    named = layers(conv="Conv", add="Add")
    audit = audit_of_network(trt, Network2(trt, shortcut), named, Precision.INT8)
    assert [(node.name, node.ran) for node in audit.nodes] == [
        ("conv", Precision.INT8),
        ("add", ran),
    ]
    assert (audit.source, audit.note) == (Source.PARSED, NOTE)


def test_a_float_network_has_the_types_of_its_tensors() -> None:
    """Without Q/DQ there is no integer layer."""
    trt = FakeTensorRT("rtx")
    definition = Network2(trt, "ACTIVATION")
    definition._layers = [
        trt.layer("CONVOLUTION", "conv", [trt.tensor("x", "FLOAT")], [trt.tensor("y", "FLOAT")])
    ]
    definition.num_layers = 1
    (node,) = audit_of_network(trt, definition, layers(conv="Conv"), Precision.INT8).nodes
    assert node.ran is Precision.FP32


def lowered(name: str, folder: Path) -> LoweredNetwork:
    """Returns a tiny network with TensorRT's placement, FP16 between."""
    model = network(name)
    onnx.save(model, folder / "m.onnx")
    graph = view(model)
    return LoweredNetwork(
        model=to_fp16(with_qdq(model)),
        source=load_onnx(folder / "m.onnx").artifact,
        layers=place_for_tensorrt(graph).layers,
        table=unit_table(model),
    )


@pytest.mark.rtx
@pytest.mark.parametrize("name", NAMES)
def test_every_block_is_covered_on_nvidias_parser(name: str, tmp_path: Path) -> None:
    """Convolutions and additions of each kind of block, as NVIDIA's parser reads them."""
    engine = build_engine(
        lowered(name, tmp_path), RTX, Contract(height=16, width=16), output=tmp_path / "a.plan"
    )
    audit = engine.manifest.audit
    assert audit is not None
    assert audit.source is Source.PARSED
    assert {node.ran for node in audit.nodes} == {Precision.INT8}
    assert audit.coverage == 100


@pytest.mark.rtx
def test_a_shortcut_without_qdq_fails_the_required_coverage(digits: Digits, tmp_path: Path) -> None:
    """NVIDIA takes such a network; the addition would run in float, and no plan is written."""
    good = quantize_for_tensorrt(load_onnx(digits.model), load_table(digits.table))
    add = "/layer2/layer2.1/Add"
    seeded = LoweredNetwork(
        model=without_pair(good.model, add),
        source=good.source,
        layers=good.layers,
        table=good.table,
    )
    with pytest.raises(CoverageError) as refused:
        build_engine(seeded, RTX, preset("digits"), output=tmp_path / "a.plan")
    message = str(refused.value)
    assert message.startswith(
        "Precision coverage is 96.4 %, and --require-coverage is 100: 1 of 28 convolutions and "
        f"additions do not run in the requested precision (parsed network): Add {add} (ran in fp32)"
    )
    assert list(tmp_path.iterdir()) == []
    build_engine(good, RTX, preset("digits"), output=tmp_path / "a.plan")

"""What both placements share: refusals, reasons, one table of ranges."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from networks import NAMES, network, network_from_body
from placements import CASES, REST, edges_of, reasons_of

from edgeres.calibration.observe import calibrated_tensors
from edgeres.core.precision import Precision
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.placement import Placement, float_layers
from edgeres.quantization.qdq.placement import place_for_tensorrt
from edgeres.targets.onnxruntime.placement import place_for_cpu


def test_every_network_has_a_case() -> None:
    """No kind of block goes unchecked."""
    assert {case.name for case in CASES} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_float_layer_has_its_reason(name: str) -> None:
    """Both placements explain each layer that they leave, and no layer that they take."""
    graph = view(network(name))
    for placement in (place_for_tensorrt(graph), place_for_cpu(graph)):
        for layer in placement.layers:
            assert bool(layer.reason) == (layer.precision is not Precision.INT8)


REFUSED = {
    "conv with a computed weight": (
        "kernel = Relu(stem_w)\n feature = Conv(image, kernel)",
        "feature",
        "its weight or bias is not constant",
    ),
    "conv with a computed bias": (
        "offset = Relu(stem_b)\n feature = Conv(image, stem_w, offset)",
        "feature",
        "its weight or bias is not constant",
    ),
    "add of a constant": (
        "conv = Conv(image, stem_w, stem_b)\n feature = Add(conv, offset_w)",
        "feature",
        "it adds a constant, not a branch",
    ),
    "average pool": (
        "conv = Conv(image, stem_w, stem_b)\n feature = AveragePool<kernel_shape = [2, 2]>(conv)",
        "feature",
        "AveragePool has no integer kernel",
    ),
}


@pytest.mark.parametrize("place", [place_for_cpu, place_for_tensorrt])
@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_integer_is_refused_with_its_reason(
    case: tuple[str, str, str], place: Callable[[Graph], Placement]
) -> None:
    """A computed weight, a constant branch and an operator without kernel stay in float."""
    body, layer, reason = case
    graph = view(network_from_body(body + REST))
    placement = place(graph)
    assert reasons_of(graph, placement)[layer] == reason
    assert layer not in edges_of(graph, placement)


@pytest.mark.parametrize("name", NAMES)
def test_both_placements_find_their_ranges_in_one_table(name: str) -> None:
    """The root of every quantized tensor is calibrated."""
    graph = view(network(name))
    edges = (*place_for_tensorrt(graph).edges, *place_for_cpu(graph).edges)
    assert {graph.root(edge.tensor) for edge in edges} <= set(calibrated_tensors(graph))


def test_float_layers_take_the_requested_precision() -> None:
    """FP16 around INT8 renames what is float and nothing else."""
    graph = view(network("identity"))
    placement = place_for_tensorrt(graph).with_precisions(Precision.INT8, Precision.FP16)
    found = {layer.op_type: layer.precision for layer in placement.layers}
    assert found == {
        "Conv": Precision.INT8,
        "Add": Precision.INT8,
        "GlobalAveragePool": Precision.FP16,
        "Gemm": Precision.FP16,
    }


def test_a_float_network_lists_its_layers_without_reasons() -> None:
    """What nobody asked to quantize needs no excuse."""
    layers = float_layers(view(network("identity")), Precision.FP16)
    assert [layer.op_type for layer in layers] == ["Conv"] * 3 + [
        "Add",
        "GlobalAveragePool",
        "Gemm",
    ]
    assert {(layer.precision, layer.reason) for layer in layers} == {(Precision.FP16, "")}

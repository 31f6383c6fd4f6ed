"""The ONNX graph of an architecture without weights: the operators and shapes of a real export."""

from __future__ import annotations

import onnx
import pytest
from digits import Digits

from edgeres.estimation.kernels import fused_kernels
from edgeres.networks.explain import explain_architecture
from edgeres.networks.outline import outline
from edgeres.networks.registry import ARCHITECTURES
from edgeres.quantization.graph import Graph, view


def _shapes(graph: Graph) -> list[tuple[object, ...]]:
    """Returns what counts of each kernel: its work, not its name."""
    return sorted((k.kind, k.cost.macs, k.cost.inputs, k.pixels) for k in fused_kernels(graph))


def test_it_has_the_kernels_of_an_export(digits: Digits) -> None:
    """The demo's network, exported by torch, is the registered one with another classifier."""
    exported = view(onnx.load(digits.model))
    size = exported.shapes[exported.input][-1]
    classes = exported.shapes[exported.output][-1]
    found = onnx.load(digits.model)
    name = {p.key: p.value for p in found.metadata_props}["edgeres.architecture"].strip('"')
    described = explain_architecture(name, input_size=size, num_classes=classes)
    assert _shapes(view(outline(described))) == _shapes(exported)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "resnet1202"])
def test_every_architecture_has_its_macs_and_its_logits(name: str) -> None:
    """Counted from the graph's shapes as from the specification."""
    network = explain_architecture(name)
    graph = view(outline(network))
    kernels = fused_kernels(graph)
    assert sum(kernel.cost.macs for kernel in kernels) == network.cost.macs
    assert graph.shapes[graph.output] == (network.spec.num_classes,)
    for node in graph.nodes:
        assert node.output[0] in graph.shapes

"""What a builder fuses: counted by hand, and compared with NVIDIA's documented fusions."""

from __future__ import annotations

import onnx
import pytest

from edgeres.core.precision import Precision
from edgeres.estimation.kernels import KernelKind, fused_kernels
from edgeres.networks.explain import explain_architecture
from edgeres.networks.outline import outline
from edgeres.quantization.graph import Graph, view


def _graph(body: str, image: str = "N, 8, 6, 6") -> Graph:
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
g (float[{image}] image) => (float[N, a, b, c] out)
{{ {body} }}"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.add(name="w", dims=[8, 8, 3, 3], data_type=onnx.TensorProto.FLOAT)
    return view(model)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # Convolutions with their ReLUs and Adds, projections, max pool, global mean, classifier.
        ("resnet18", 17 + 3 + 3),
        ("resnet50", 49 + 4 + 3),
        ("resnet152", 151 + 4 + 3),
        # No pool of the stem; each shortcut of option A is a copy of its own.
        ("resnet20", 19 + 2 + 2),
        # The 9 blocks with an identity normalise what the Add next reads too, so no convolution
        # can take that along; the other 3 blocks and the head can.
        ("wrn_28_10", 28 + 9 + 2),
    ],
)
def test_a_network_has_the_kernels_that_are_counted_by_hand(name: str, count: int) -> None:
    """By depth, as the papers' tables have it."""
    kernels = fused_kernels(view(outline(explain_architecture(name))))
    assert len(kernels) == count


def test_an_add_is_computed_by_the_convolution_that_ends_last_and_reads_the_other_branch() -> None:
    """The residual is read once more: 8 * 6 * 6 values."""
    pad = "<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
    graph = _graph(
        f"a = Conv {pad} (image, w)  p = Conv {pad} (image, w)  r = Relu(a)"
        f"  b = Conv {pad} (r, w)  sum = Add(b, p)  out = Relu(sum)"
    )
    first, side, last = fused_kernels(graph)
    values = 8 * 6 * 6
    assert (first.cost.inputs, side.cost.inputs, last.cost.inputs) == (values, values, 2 * values)
    assert last.cost.outputs == values
    assert [k.reads_image for k in (first, side, last)] == [True, True, False]


def test_an_add_of_another_precision_is_a_kernel_of_its_own() -> None:
    """It reads both branches again, 2 * 8 * 6 * 6 values; of one precision it is fused."""
    graph = _graph(
        "a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (image, w)"
        "  sum = Add(a, image)  out = Relu(sum)"
    )
    conv, add, _ = (node.name for node in graph.nodes)
    int8, fp16 = Precision.INT8, Precision.FP16
    (fused,) = fused_kernels(graph, {conv: int8, add: int8})
    assert fused.precision is int8
    first, apart = fused_kernels(graph, {conv: int8, add: fp16})
    assert [first.kind, apart.kind] == [KernelKind.CONVOLUTION, KernelKind.POINTWISE]
    assert [first.precision, apart.precision] == [int8, fp16]
    assert (apart.cost.inputs, apart.cost.outputs) == (2 * 288, 288)


def test_a_tensor_that_others_read_too_ends_the_kernel() -> None:
    """The ReLU cannot run inside a convolution whose own output is needed elsewhere."""
    pad = "<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
    graph = _graph(f"a = Conv {pad} (image, w)  r = Relu(a)  out = Add(a, r)")
    assert next(k.kind for k in fused_kernels(graph)) is KernelKind.CONVOLUTION
    assert len(fused_kernels(graph)) == 2


def test_what_moves_no_value_is_no_kernel() -> None:
    """Identity, Flatten and the like."""
    graph = _graph("a = Identity(image)  b = Relu(a)  out = Identity(b)")
    (kernel,) = fused_kernels(graph)
    assert kernel.kind is KernelKind.POINTWISE


def test_a_grouped_convolution_has_its_own_depth_and_columns() -> None:
    """ResNeXt-50's 3x3 of 32 groups: 4 channels each, 36 products a value."""
    kernels = fused_kernels(view(outline(explain_architecture("resnext50_32x4d"))))
    grouped = next(kernel for kernel in kernels if kernel.groups == 32)
    assert (grouped.columns, grouped.depth) == (4, 36)

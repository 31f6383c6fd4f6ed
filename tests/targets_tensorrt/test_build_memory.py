"""What a build needs at the least, against counts by hand, and the workspace that is left."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest
from onnx import parser

from edgeres.core.builder_options import TensorRTOptions
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.errors import BuildError
from edgeres.machine.cuda import CudaDevice
from edgeres.quantization.graph import view
from edgeres.targets.tensorrt.build_memory import (
    WEIGHT_COPIES,
    BuildMemory,
    estimate_build_memory,
    workspace_limit_mib,
)

MIB = 1 << 20
BOARD = CudaDevice(
    name="Orin", compute_capability="8.7", memory_mib=7620, integrated=True, cuda="12.6"
)
DESKTOP = CudaDevice(
    name="RTX", compute_capability="8.6", memory_mib=8192, integrated=False, cuda="12.6"
)

CHAIN = """
<ir_version: 8, opset_import: ["" : 17]>
chain (float[N, 4, 8, 8] image) => (float[N, 4, 8, 8] out)
<float[8, 4, 1, 1] wide_w, float[4, 8, 1, 1] narrow_w>
{
  wide = Conv(image, wide_w)
  active = Relu(wide)
  narrow = Conv(active, narrow_w)
  out = Add(narrow, image)
}
"""
"""Widest while the image (kept for the Add), `wide` and `active` are alive: 4 + 8 + 8 channels."""


@pytest.fixture
def chain() -> onnx.ModelProto:
    """The network with its weights, 64 numbers."""
    model = parser.parse_model(CHAIN)
    for name, shape in {"wide_w": (8, 4, 1, 1), "narrow_w": (4, 8, 1, 1)}.items():
        tensor = onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, shape, [0.5] * 32)
        model.graph.initializer.append(tensor)
    return model


@pytest.mark.parametrize(("precision", "width"), [(Precision.FP32, 4), (Precision.FP16, 2)])
@pytest.mark.parametrize("batch", [1, 16])
def test_the_peak_is_that_of_the_widest_moment(
    batch: int, precision: Precision, width: int, chain: onnx.ModelProto
) -> None:
    """20 channels of 8 x 8 for each image, in the float precision; weights as the file has them."""
    memory = estimate_build_memory(view(chain), batch, precision)
    assert memory.activations_mib * MIB == batch * 20 * 64 * width
    assert memory.weights_mib * MIB == 64 * 4
    assert memory.total_mib == WEIGHT_COPIES * memory.weights_mib + memory.activations_mib


def test_weights_are_no_activations(chain: onnx.ModelProto) -> None:
    """One in 8 bits counts as those; its float values, long before they are used, as nothing."""
    narrow, body = chain.graph.initializer[1], chain.graph.node
    del chain.graph.initializer[1]
    chain.graph.initializer.extend(
        [
            onnx.helper.make_tensor("narrow_q", onnx.TensorProto.INT8, narrow.dims, [1] * 32),
            onnx.helper.make_tensor("narrow_s", onnx.TensorProto.FLOAT, (), [0.5]),
        ]
    )
    inside = onnx.helper.make_node("DequantizeLinear", ["narrow_q", "narrow_s"], ["narrow_w"])
    body.insert(0, inside)
    memory = estimate_build_memory(view(chain), 2, Precision.FP32)
    assert memory.activations_mib * MIB == 2 * 20 * 64 * 4
    assert memory.weights_mib * MIB == 32 + 4 + 32 * 4


NEEDS = BuildMemory(weights_mib=100, activations_mib=50)
"""350 MiB."""


def config(workspace: int | None) -> BuildRequest:
    """Returns a request with this workspace."""
    return BuildRequest(
        target="tensorrt",
        options=TensorRTOptions(workspace_mib=workspace),
    )


@pytest.mark.parametrize(
    ("device", "free", "requested", "limit"),
    [
        (BOARD, 1000, None, 650),
        (BOARD, 382, None, 32),
        (BOARD, 1000, 256, 256),
        (BOARD, None, None, None),
        (DESKTOP, 100, None, None),
        (DESKTOP, 100, 256, 256),
        (None, 100, 256, 256),
    ],
)
def test_the_workspace(
    device: CudaDevice | None, free: int | None, requested: int | None, limit: int | None
) -> None:
    """What is left on a board, what was asked everywhere, NVIDIA's own where memory is apart."""
    assert workspace_limit_mib(NEEDS, config(requested), device, free) == limit


@pytest.mark.parametrize(("free", "requested", "wanted"), [(381, None, 32), (605, 256, 256)])
def test_what_does_not_fit_is_a_sentence(free: int, requested: int | None, wanted: int) -> None:
    """One MiB less than the cases above, with all three figures and what to do."""
    with pytest.raises(BuildError) as refused:
        workspace_limit_mib(NEEDS, config(requested), BOARD, free)
    assert str(refused.value) == (
        f"The build needs at least 350 MiB and a workspace of {wanted} MiB, and {free} MiB are "
        "free on this board. Close what else runs (the desktop takes about a gigabyte: sudo init "
        "3), add swap, or pass a smaller --batch or --workspace (now 16 images at most)."
    )


@pytest.mark.parametrize(
    ("memory", "requested", "fits"),
    [(150, None, True), (149, None, False), (250, 100, True), (249, 100, False)],
)
def test_a_gpu_that_is_too_small_is_refused(memory: int, requested: int | None, fits: bool) -> None:
    """Its own memory holds one copy of the weights, the tensors and what a kernel was allowed."""
    device = replace(DESKTOP, memory_mib=memory)
    if fits:
        assert workspace_limit_mib(NEEDS, config(requested), device, 1) == requested
        return
    with pytest.raises(BuildError, match=rf"MiB on the GPU, and RTX has {memory}\. Pass a smaller"):
        workspace_limit_mib(NEEDS, config(requested), device, 1)

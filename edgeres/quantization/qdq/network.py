"""A calibrated model to the INT8 network with TensorRT's placement of Q/DQ."""

from __future__ import annotations

import onnx

from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.core.table import CalibrationTable
from edgeres.onnx_file import LoadedModel, LoweredNetwork
from edgeres.quantization.fp16 import to_fp16
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.lowering import ALL_INTEGER, Lowering, Mix, warn_of_unused_recovery
from edgeres.quantization.qdq.lowering import lower_for_tensorrt
from edgeres.quantization.qdq.placement import place_for_tensorrt
from edgeres.quantization.recovered import recovered


def _lowered(graph: Graph, table: CalibrationTable, method: Method) -> onnx.ModelProto:
    placement = place_for_tensorrt(graph)
    network = recovered(graph, table, placement, LOWERING.name, method)
    return lower_for_tensorrt(network, placement, table, method)


LOWERING = Lowering(
    "tensorrt", _lowered, place_for_tensorrt, has_cpu_kernels=False, has_unsigned_grid=False
)


def quantize_for_tensorrt(
    model: LoadedModel,
    table: CalibrationTable,
    method: Method | None = None,
    *,
    floats: Precision = Precision.FP32,
    mix: Mix = ALL_INTEGER,
) -> LoweredNetwork:
    """Returns the INT8 network with TensorRT's placement.

    Args:
        model: the FP32 file.
        table: its thresholds.
        method: which of them; None takes the table's.
        floats: precision of what is not INT8, FP32 or FP16. ONNX Runtime runs the FP32 form.
        mix: what to keep in float.

    Raises:
        ArtifactError: the table lacks a tensor, or its recovery does not fit the network.
        QuantizationError: a value overflows FP16.
    """
    graph = view(model.proto).keeping(mix.kept)
    warn_of_unused_recovery(table, method)
    placement = place_for_tensorrt(graph)
    graph = recovered(graph, table, placement, LOWERING.name, method)
    half = floats is Precision.FP16
    lowered = lower_for_tensorrt(graph, placement, table, method, fp16_scales=half)
    return LoweredNetwork(
        model=to_fp16(lowered) if half else lowered,
        source=model.artifact,
        layers=placement.with_floats(floats).layers,
        table=table,
        method=method or table.method,
        search=mix.search,
    )

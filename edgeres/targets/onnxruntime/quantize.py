"""A calibrated model to the INT8 network that ONNX Runtime's CPU kernels run."""

from __future__ import annotations

import onnx

from edgeres.byte_input import Reads
from edgeres.core.contract import InputType
from edgeres.core.methods import Method
from edgeres.core.table import CalibrationTable
from edgeres.onnx_file import LoadedModel, LoweredNetwork
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.lowering import ALL_INTEGER, Lowering, Mix, warn_of_unused_recovery
from edgeres.quantization.recovered import recovered
from edgeres.targets.onnxruntime.lowering import lower_for_cpu
from edgeres.targets.onnxruntime.pixels import pixel_grid, with_pixel_grid
from edgeres.targets.onnxruntime.placement import place_for_cpu


def _lowered(
    graph: Graph, table: CalibrationTable, method: Method, *, raw: bool = False
) -> onnx.ModelProto:
    # Which weights keep the grid that rounding was recovered on depends on the image's pixels.
    placement = with_pixel_grid(place_for_cpu(graph), pixel_grid(graph, table))
    network = recovered(graph, table, placement, LOWERING.name, method)
    return lower_for_cpu(network, table, method, raw=raw)


LOWERING = Lowering(
    "onnxruntime", _lowered, place_for_cpu, has_cpu_kernels=True, has_unsigned_grid=True
)


def quantize_for_cpu(
    model: LoadedModel,
    table: CalibrationTable,
    method: Method | None = None,
    *,
    mix: Mix = ALL_INTEGER,
) -> LoweredNetwork:
    """Returns the INT8 network for ONNX Runtime's CPU kernels.

    Args:
        model: the FP32 file.
        table: its thresholds.
        method: which of them; None takes the table's.
        mix: what to keep in float.

    Raises:
        ArtifactError: the table lacks a tensor, or its recovery does not fit the network.
    """
    graph = view(model.proto).keeping(mix.kept)
    warn_of_unused_recovery(table, method, LOWERING)
    method = method or table.method
    raw = table.contract.input is InputType.UINT8
    pixels = pixel_grid(graph, table)
    return LoweredNetwork(
        model=_lowered(graph, table, method, raw=raw),
        source=model.artifact,
        layers=place_for_cpu(graph).layers,
        table=table,
        method=method,
        search=mix.search,
        reads=Reads.NORMALIZED if pixels is None or not raw else Reads.BYTES,
    ).fed_as(planar=False)

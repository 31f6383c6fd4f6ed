"""A calibrated model to the INT8 network with TensorRT's placement of Q/DQ."""

from __future__ import annotations

from functools import cache, partial

import onnx

from edgeres.byte_input import Reads
from edgeres.core.artifacts import Fp16Layer
from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.core.table import CalibrationTable
from edgeres.onnx_file import LoadedModel, LoweredNetwork
from edgeres.quantization.fp16.fit import fit_fp16
from edgeres.quantization.fp16.typed import to_fp16
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.grids import E4M3, INT8, Grid
from edgeres.quantization.lowering import (
    ALL_INTEGER,
    Lowering,
    Mix,
    float_network,
    warn_of_unused_recovery,
)
from edgeres.quantization.qdq.equal_scales import with_equal_scales
from edgeres.quantization.qdq.exact_pixels import exact_pixels, with_exact_pixels
from edgeres.quantization.qdq.lowering import lower_for_tensorrt
from edgeres.quantization.qdq.placement import fp8_graph, place_for_tensorrt
from edgeres.quantization.recovered import recovered


def _lowered(graph: Graph, table: CalibrationTable, method: Method) -> onnx.ModelProto:
    graph = _covered(graph, table)
    placement = place_for_tensorrt(graph)
    pixels = exact_pixels(graph, table.contract)
    network = recovered(graph, table, with_exact_pixels(placement, pixels), LOWERING.name, method)
    return lower_for_tensorrt(network, placement, table, method, pixels=pixels)


def _covered(graph: Graph, table: CalibrationTable) -> Graph:
    """Returns the graph with what an imported table has no scale for kept in float.

    TensorRT's builder does the same with a tensor that a calibration cache lacks. A table of
    edgeres' own lacks none, so there it is an error.
    """
    if not table.is_imported:
        return graph
    missing = {
        edge.node: f"the imported calibration cache has no scale of {edge.tensor}"
        for edge in place_for_tensorrt(graph).edges
        if graph.root(edge.tensor) not in table.tensors
    }
    return graph.keeping({**missing, **graph.kept})


LOWERING = Lowering(
    "tensorrt", _lowered, place_for_tensorrt, has_cpu_kernels=False, has_unsigned_grid=False
)


def _lowered_to_fp8(
    graph: Graph, table: CalibrationTable, method: Method, *, float_stream: bool
) -> onnx.ModelProto:
    graph = fp8_graph(graph, float_stream=float_stream)
    placement = place_for_tensorrt(graph)
    name = fp8_lowering(float_stream=float_stream).name
    network = recovered(graph, table, placement, name, method, grid=E4M3)
    return lower_for_tensorrt(network, placement, table, method, grid=E4M3)


@cache
def fp8_lowering(*, float_stream: bool) -> Lowering:
    """Returns the way in which networks become FP8; it is none of those that method auto searches.

    Args:
        float_stream: whether what additions read of the residual stream stays in float.
    """
    return Lowering(
        f"{LOWERING.name}-fp8{'-float-stream' if float_stream else ''}",
        partial(_lowered_to_fp8, float_stream=float_stream),
        lambda graph: place_for_tensorrt(fp8_graph(graph, float_stream=float_stream)),
        has_cpu_kernels=False,
        has_unsigned_grid=False,
        precision=Precision.FP8,
    )


def quantize_for_tensorrt(
    model: LoadedModel,
    table: CalibrationTable,
    method: Method | None = None,
    *,
    grid: Grid = INT8,
    floats: Precision = Precision.FP32,
    typed: bool = True,
    mix: Mix = ALL_INTEGER,
    float_stream: bool = False,
) -> LoweredNetwork:
    """Returns the INT8 or FP8 network with TensorRT's placement.

    Args:
        model: the FP32 file.
        table: its thresholds.
        method: which of them; None takes the table's.
        grid: of what is quantized, INT8 or E4M3.
        floats: precision of the rest, FP32 or FP16.
        typed: whether the network's types are these; False leaves them FP32, for a builder that
            chooses FP16 itself.
        mix: what to keep in float.
        float_stream: whether FP8 keeps what additions read of the residual stream in float.

    Raises:
        ArtifactError: the table lacks a tensor, or its recovery does not fit the network.
        QuantizationError: FP16 cannot hold a value, or loses too much of a layer; FP8 for a
            grouped network.
    """
    graph = _covered(view(model.proto).keeping(mix.kept), table)
    lowering, pixels = LOWERING, None
    if grid is E4M3:
        lowering = fp8_lowering(float_stream=float_stream)
        graph = fp8_graph(graph, float_stream=float_stream)
    else:
        pixels = exact_pixels(graph, table.contract)
    warn_of_unused_recovery(table, method, lowering)
    placement = place_for_tensorrt(graph)
    corrected = with_exact_pixels(placement, pixels)
    graph = recovered(graph, table, corrected, lowering.name, method, grid=grid)
    scales = table
    losses: tuple[Fp16Layer, ...] = ()
    if floats is Precision.FP16:
        fitted = fit_fp16(
            graph, table, method, placement=placement, grid=grid, path=model.artifact.path
        )
        graph, scales, losses = fitted.graph, fitted.table or table, fitted.layers
    half = floats is Precision.FP16 and typed
    if half:
        equal = with_equal_scales(graph, scales, method, placement, grid)
        graph, scales = equal.graph, equal.table
    pixels = None if grid is E4M3 else exact_pixels(graph, table.contract)
    lowered = lower_for_tensorrt(
        graph, placement, scales, method, grid=grid, fp16_scales=half, pixels=pixels, raw=True
    )
    layers = placement.with_precisions(grid.precision, floats if typed else Precision.FP32).layers
    return LoweredNetwork(
        model=to_fp16(lowered) if half else lowered,
        source=model.artifact,
        layers=layers,
        table=table,
        method=method or table.method,
        search=mix.search,
        fp16=losses,
        reads=Reads.NORMALIZED if pixels is None else Reads.PIXELS,
    )


def requested_network(
    model: LoadedModel,
    request: BuildRequest,
    table: CalibrationTable | None,
    method: Method | None,
    mix: Mix,
    *,
    typed: bool = True,
) -> LoweredNetwork:
    """Returns the network of a request, quantized or not.

    Args:
        model: the FP32 file.
        request: precision, and that of the layers beside INT8.
        table: thresholds, for INT8; with FP16 they show what it would not hold.
        method: which of its thresholds; None takes the table's own.
        mix: operators to keep from INT8.
        typed: as in `quantize_for_tensorrt`.

    Raises:
        ArtifactError: the table lacks a tensor, or its recovery does not fit the network.
        QuantizationError: FP16 cannot hold a value, or loses too much of a layer.
    """
    floats = request.float_precision
    if table is None or not request.is_quantized:
        return float_network(model, floats, table, typed=typed).fed_as(planar=True)
    grid = E4M3 if request.precision is Precision.FP8 else INT8
    network = quantize_for_tensorrt(
        model,
        table,
        method,
        grid=grid,
        floats=floats,
        typed=typed,
        mix=mix,
        float_stream=request.float_stream,
    )
    return network.fed_as(planar=True)

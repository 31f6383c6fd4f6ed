"""Bias correction for FP8, whose rounding is relative and moves other means than INT8's.

One fit serves both forms of an FP8 network: what additions read of the residual stream is rounded
to nearest with or without them, so its mean hardly moves. Whether a form takes it, its own logits
decide.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeres.calibration.recovery.bias import fit_biases
from edgeres.calibration.recovery.layers import Fitted, layers_of
from edgeres.calibration.recovery.replay import ReplayPair, float_replay, quantized_replay
from edgeres.core.table import CalibrationTable
from edgeres.progress import Progress
from edgeres.quantization.graph import Graph
from edgeres.quantization.grids import E4M3
from edgeres.quantization.lowering import Lowering
from edgeres.quantization.parameters import Parameters, parameters_of, with_parameters
from edgeres.quantization.qdq.network import fp8_lowering
from edgeres.quantization.qdq.placement import fp8_graph, place_for_tensorrt
from edgeres.quantization.weights import by_channel, mse_weight_scales

Array = NDArray[np.float32]


def fp8_lowerings() -> tuple[Lowering, ...]:
    """Returns the forms of an FP8 network, the one that rounds the residual stream first."""
    return tuple(fp8_lowering(float_stream=float_stream) for float_stream in (False, True))


def fp8_fits(
    graph: Graph, table: CalibrationTable, images: Array, *, fitted: int, progress: Progress
) -> dict[str, Fitted]:
    """Returns each FP8 convolution with its bias corrected, by name.

    Args:
        graph: the FP32 graph.
        table: its thresholds.
        images: (N, 3, H, W), preprocessed.
        fitted: how many of them to fit on, from the first.
        progress: receives each layer that was corrected.

    Raises:
        QuantizationError: the network has grouped convolutions.
    """
    graph = fp8_graph(graph)
    placement = place_for_tensorrt(graph)
    trained = {n.name: parameters_of(graph, n) for n in graph.nodes if n.name in placement.weighted}
    rounded = {name: Parameters(_rounded(each.weight), each.bias) for name, each in trained.items()}
    # Convolutions may share a bias; each gets one of its own, since each is corrected alone.
    quantized = with_parameters(graph, rounded)
    replays = ReplayPair(
        float_replay(graph, images),
        quantized_replay(quantized, placement, table, images, grid=E4M3),
    )
    layers, stage = layers_of(quantized, placement), "Correcting FP8's biases"
    return fit_biases(layers, rounded, replays, fitted, stage, progress)


def _rounded(weight: Array) -> Array:
    """Returns a weight as FP8 has it, each channel by its own scale."""
    scales = by_channel(mse_weight_scales(weight, 0, E4M3), weight.ndim)
    restored: Array = E4M3.nearest(weight / scales) * scales
    return restored

"""Bias correction for the CPU's lowering, once rounding was settled on TensorRT's.

The CPU rounds other tensors, on finer grids where nothing is negative, so its means are off by
others: on ResNet-50 TensorRT's corrections cost it 2 dB of the logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgeres.calibration.recovery.bias import fit_biases
from edgeres.calibration.recovery.layers import (
    QuantizedConvolution,
    layers_of,
    nearest_rounding,
)
from edgeres.calibration.recovery.replay import ReplayPair, float_replay, quantized_replay
from edgeres.core.table import CalibrationTable
from edgeres.progress import Progress
from edgeres.quantization.graph import Graph
from edgeres.quantization.parameters import Parameters, parameters_of, with_parameters
from edgeres.quantization.recovered import with_weights
from edgeres.targets.onnxruntime.joint import Affine, rounded_parts
from edgeres.targets.onnxruntime.lowering import activation_grid
from edgeres.targets.onnxruntime.pixels import pixel_grid
from edgeres.targets.onnxruntime.placement import joined_convolutions, place_for_cpu, result_of

Array = NDArray[np.float32]


def cpu_biases(
    graph: Graph,
    table: CalibrationTable,
    images: Array,
    *,
    fitted: int,
    recovered: Mapping[str, Array],
    progress: Progress,
) -> dict[str, Array]:
    """Returns what to add to the bias of each convolution, (O,), by name.

    A joint convolution's correction goes to the last of those that it is made of.

    Args:
        graph: the FP32 graph, equalized.
        table: its thresholds.
        images: (N, 3, H, W), preprocessed.
        fitted: how many of them to fit on, from the first.
        recovered: weights, on the grid that each convolution has by itself.
        progress: receives each layer that was corrected.
    """
    placement = place_for_cpu(graph)
    names = placement.weighted | placement.joint
    clipped = with_weights(graph, table.weight_method, placement)
    trained = {n.name: parameters_of(clipped, n) for n in clipped.nodes if n.name in names}
    unshared = with_parameters(clipped, trained)
    rounded = {
        name: Parameters(recovered[name], trained[name].bias)
        if name in recovered
        else nearest_rounding(trained[name])
        for name in placement.weighted
    }
    rounded |= _jointly_rounded(unshared, table)
    pixels = pixel_grid(graph, table)
    if pixels is not None:
        stem = str(pixels.stem.name)
        weight = rounded[stem].weight if pixels.uniform else trained[stem].weight
        rounded[stem] = Parameters(pixels.rounded(weight), trained[stem].bias)
        # The image keeps its pixels exactly: nothing rounds it.
        edges = tuple(edge for edge in placement.edges if edge.node != stem)
        placement = replace(placement, edges=edges)
    quantized = with_parameters(unshared, rounded)
    replays = ReplayPair(
        float_replay(graph, images),
        quantized_replay(quantized, placement, table, images, unsigned=True),
    )
    layers = [*layers_of(unshared, placement), *_joint_layers(unshared)]
    layers.sort(key=lambda layer: unshared.positions[layer.node.output[0]])
    stage = "Correcting the CPU's biases"
    fits = fit_biases(layers, rounded, replays, fitted, stage, progress)
    return {name: fit.shift for name, fit in fits.items()}


def _jointly_rounded(graph: Graph, table: CalibrationTable) -> dict[str, Parameters]:
    """Returns the parameters of convolutions that are computed jointly, by name.

    They share one grid, with each source's scale in the weights, so no recovered rounding fits.
    """
    rounded = {}
    for convs in joined_convolutions(graph).values():
        trained = [parameters_of(graph, conv) for conv in convs]
        scales = [activation_grid(graph, table, conv.input[0]).scale for conv in convs]
        weights = rounded_parts([Affine(p.weight, None) for p in trained], scales)
        for conv, weight, parameters in zip(convs, weights, trained, strict=True):
            rounded[str(conv.name)] = Parameters(weight, parameters.bias)
    return rounded


def _joint_layers(graph: Graph) -> Iterator[QuantizedConvolution]:
    """Yields each joint convolution as the last of its parts, which ends at the Add."""
    joined = joined_convolutions(graph)
    for add in (node for node in graph.nodes if node.name in joined):
        last = max(joined[add.name], key=lambda conv: graph.positions[conv.output[0]])
        relu = result_of(graph, add) != add.output[0]
        yield QuantizedConvolution(last, last.input[0], add.output[0], None, relu)

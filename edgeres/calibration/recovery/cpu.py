"""Bias correction for the CPU's lowering, once rounding was settled on TensorRT's.

The CPU rounds other tensors, on finer grids where nothing is negative, so its means are off by
others: on ResNet-50 TensorRT's corrections cost it 2 dB of the logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgeres.calibration.recovery.bias import fit_bias
from edgeres.calibration.recovery.layers import Layer, layers_of
from edgeres.calibration.recovery.replay import float_replay, twin_replay
from edgeres.core.table import CalibrationTable
from edgeres.progress import Progress, tracked
from edgeres.quantization.graph import Graph
from edgeres.quantization.recovered import Parameters, parameters_of, with_parameters, with_weights
from edgeres.quantization.rounding import grid_scales, on_grid
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
    own = with_parameters(clipped, trained)
    rounded = {
        name: Parameters(_rounded(trained[name], recovered.get(name)), trained[name].bias)
        for name in placement.weighted
    }
    rounded |= _joint_parameters(graph, table, trained)
    pixels = pixel_grid(graph, table)
    if pixels is not None:
        stem = str(pixels.stem.name)
        weight = rounded[stem].weight if pixels.uniform else trained[stem].weight
        rounded[stem] = Parameters(pixels.rounded(weight), trained[stem].bias)
        edges = tuple(edge for edge in placement.edges if edge.node != stem)
        placement = replace(placement, edges=edges)
    exact = float_replay(graph, images)
    twin = twin_replay(with_parameters(own, rounded), placement, table, images, unsigned=True)
    layers = sorted(
        [*layers_of(own, placement), *_joint_layers(own)],
        key=lambda layer: own.positions[layer.node.output[0]],
    )
    found = {}
    for layer in tracked(layers, "Correcting the CPU's biases", progress):
        exact.advance(layer.node)
        twin.advance(layer.node)
        own_parameters = rounded[layer.node.name]
        shift = fit_bias(layer, own_parameters, (exact, twin), fitted).shift
        twin.settle(layer.node, Parameters(own_parameters.weight, own_parameters.bias + shift))
        found[str(layer.node.name)] = shift
    return found


def _rounded(trained: Parameters, recovered: Array | None) -> Array:
    if recovered is not None:
        return recovered
    return on_grid(trained.weight, grid_scales(trained.weight))


def _joint_parameters(
    graph: Graph, table: CalibrationTable, trained: Mapping[str, Parameters]
) -> dict[str, Parameters]:
    """Returns the parameters of the convolutions that are computed jointly, by name."""
    found = {}
    for convs in joined_convolutions(graph).values():
        parts = [Affine(trained[conv.name].weight, None) for conv in convs]
        scales = [activation_grid(graph, table, conv.input[0]).scale for conv in convs]
        for conv, weight in zip(convs, rounded_parts(parts, scales), strict=True):
            found[str(conv.name)] = Parameters(weight, trained[conv.name].bias)
    return found


def _joint_layers(graph: Graph) -> list[Layer]:
    adds = {node.name: node for node in graph.nodes if node.op_type == "Add"}
    found = []
    for name, convs in joined_convolutions(graph).items():
        last = max(convs, key=lambda conv: graph.positions[conv.output[0]])
        made = str(adds[name].output[0])
        relu = result_of(graph, adds[name]) != made
        found.append(Layer(last, last.input[0], made, None, relu))
    return found

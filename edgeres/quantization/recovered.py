"""The network that is quantized in the place of the trained one: other weights and biases.

Channels are equalized, weights clipped to the scales of their method, and what recovery fitted is
put in. Every lowering takes the resulting graph as it would take the trained one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeres.core.methods import Method, WeightMethod
from edgeres.core.recovery import Recovery
from edgeres.core.table import CalibrationTable
from edgeres.errors import ArtifactError
from edgeres.quantization.equalized import equalized_parameters
from edgeres.quantization.graph import Graph
from edgeres.quantization.grids import INT8, Grid
from edgeres.quantization.parameters import Parameters, parameters_of, with_parameters
from edgeres.quantization.placement import Placement
from edgeres.quantization.rounding import grid_scales, on_grid, unpack
from edgeres.quantization.weights import clipped


def recovered(
    graph: Graph,
    table: CalibrationTable,
    placement: Placement,
    lowering: str,
    method: Method | None = None,
    *,
    grid: Grid = INT8,
) -> Graph:
    """Returns the network that a lowering takes in the place of the trained one.

    Equalization changes every layer that it names, since it changes no result; bias correction
    belongs to a quantized layer, rounding to one that has a grid of its own, and both are left
    out of the others, and wholly where other thresholds are used than they were fitted to or the
    lowering gained nothing by them.

    Args:
        graph: the FP32 model that the table was made from.
        table: whose method for weights, and recovery, to apply.
        placement: which convolutions will be INT8.
        lowering: name of the lowering, whose corrections of biases are taken.
        method: the thresholds that the lowering takes; None stands for the table's.
        grid: of what is quantized; scales and rounding of weights are those of INT8 alone.

    Raises:
        ArtifactError: the recovery does not fit the network.
    """
    recovery = table.recovery
    weights = table.weight_method if grid is INT8 else WeightMethod.MAX
    if recovery is None:
        return with_weights(graph, weights, placement)
    equalized = with_parameters(graph, equalized_parameters(graph, recovery.equalization))
    weighted = with_weights(equalized, weights, placement)
    if (method or table.method) is not recovery.method or not recovery.applies_to(lowering):
        return weighted
    if grid is not INT8:
        recovery = replace(recovery, rounding={})
    return with_parameters(weighted, _corrected(weighted, recovery, placement, lowering))


def with_weights(graph: Graph, method: WeightMethod, placement: Placement) -> Graph:
    """Returns a graph whose quantized weights lie within the scales that a method gives them.

    The lowerings take each channel's largest magnitude for the end of its grid, so clipped
    weights have the grid of their method. Those that are left in float are left as they are.
    """
    if method is WeightMethod.MAX:
        return graph
    quantized = placement.weighted | placement.joint
    changed = {}
    for node in (n for n in graph.nodes if n.name in quantized):
        trained = parameters_of(graph, node)
        scales = graph.weights.mse_scales(node.name, trained.weight)
        changed[node.name] = Parameters(clipped(trained.weight, scales), trained.bias)
    return with_parameters(graph, changed)


def _corrected(
    graph: Graph, recovery: Recovery, placement: Placement, lowering: str
) -> dict[str, Parameters]:
    """Returns the convolutions with the recovered rounding and biases of one lowering."""
    nodes = {node.name: node for node in graph.nodes if node.op_type == "Conv"}
    every = recovery.biases(lowering)
    unknown = (recovery.rounding.keys() | every.keys()) - nodes.keys()
    if unknown:
        raise ArtifactError(
            f"The table's recovery names '{min(unknown)}', which is no convolution of the network. "
            "Run calibrate again."
        )
    rounding = {n: bits for n, bits in recovery.rounding.items() if n in placement.weighted}
    biases = {n: shift for n, shift in every.items() if n in placement.weighted | placement.joint}
    corrected = {}
    for name in (n for n in nodes if n in rounding or n in biases):
        trained = parameters_of(graph, nodes[name])
        weight, bias = trained.weight, trained.bias
        try:
            if name in rounding:
                up = unpack(rounding[name], weight.shape)
                weight = on_grid(weight, grid_scales(weight), up)
            if name in biases:
                # Reshaped, not broadcast: one value for all channels would be another table's.
                bias = bias + np.array(biases[name], np.float32).reshape(bias.shape)
        except ValueError as error:
            raise ArtifactError(
                f"The table's recovery does not fit the convolution '{name}' ({error}). "
                "Run calibrate again."
            ) from error
        corrected[name] = Parameters(weight, bias)
    return corrected

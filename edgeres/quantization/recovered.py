"""The network that is quantized in the place of the trained one: other weights and biases.

Channels are equalized, weights clipped to the scales of their method, and what recovery fitted is
put in. Every lowering takes the resulting graph as it would take the trained one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeres.core.methods import Method, WeightMethod
from edgeres.core.recovery import Recovery
from edgeres.core.table import CalibrationTable
from edgeres.errors import ArtifactError
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.placement import Placement
from edgeres.quantization.rounding import grid_scales, on_grid, unpack
from edgeres.quantization.weights import by_channel, clipped

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Parameters:
    """Weight and bias of one convolution."""

    weight: Array
    """(O, C / groups, kh, kw)."""
    bias: Array
    """(O,); zeros where the convolution has none."""


def recovered(
    graph: Graph,
    table: CalibrationTable,
    placement: Placement,
    lowering: str,
    method: Method | None = None,
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

    Raises:
        ArtifactError: the recovery does not fit the network.
    """
    recovery = table.recovery
    if recovery is None:
        return with_weights(graph, table.weight_method, placement)
    equalized = with_parameters(graph, equalized_parameters(graph, recovery.equalization))
    weighted = with_weights(equalized, table.weight_method, placement)
    if (method or table.method) is not recovery.method or not recovery.applies_to(lowering):
        return weighted
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


def parameters_of(graph: Graph, node: onnx.NodeProto) -> Parameters:
    """Returns a convolution's weight and bias as float32."""
    weight = np.asarray(graph.constant(node.input[1]), np.float32)
    bias = np.zeros(len(weight), np.float32)
    if len(node.input) > 2 and node.input[2]:
        bias = np.asarray(graph.constant(node.input[2]), np.float32)
    return Parameters(weight, bias)


def with_parameters(graph: Graph, parameters: Mapping[str, Parameters]) -> Graph:
    """Returns a graph whose named convolutions have these weights and biases, each its own."""
    if not parameters:
        return graph
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    values: dict[str, Array] = {}
    for node in model.graph.node:
        if node.name in parameters:
            # Names of its own: ONNX lets two convolutions share a weight.
            weight, bias = node.name + "/recovered_weight", node.name + "/recovered_bias"
            values[weight], values[bias] = parameters[node.name].weight, parameters[node.name].bias
            node.input[:] = [node.input[0], weight, bias]
    # A network may be changed twice: what it was changed to first is overwritten, and what
    # nothing reads any more leaves the file.
    read = {name for node in model.graph.node for name in node.input}
    old = [t for t in model.graph.initializer if t.name in read]
    new = {name: numpy_helper.from_array(value, name) for name, value in values.items()}
    del model.graph.initializer[:]
    model.graph.initializer.extend([new.pop(t.name, t) for t in old])
    model.graph.initializer.extend(new.values())
    return view(model).keeping(graph.kept)


def equalized_parameters(
    graph: Graph, equalization: Mapping[str, tuple[float, ...]]
) -> dict[str, Parameters]:
    """Returns the parameters of the convolutions around each equalized activation.

    The one before is divided by the factors, the one behind multiplied: positive factors pass
    through the ReLU between them. Source: Nagel et al. 2019, section 4.1.

    Raises:
        ArtifactError: an activation is not between two convolutions, or has other channels.
    """
    changed: dict[str, Parameters] = {}
    pairs = equalizable(graph) if equalization else {}
    for tensor, values in equalization.items():
        before, after = pairs.get(tensor, (None, None))
        factors = np.array(values, np.float32)
        if (
            before is None
            or after is None
            or len(factors) != graph.constants[before.input[1]].dims[0]
        ):
            raise ArtifactError(
                f"The table's recovery equalizes {len(factors)} channels of '{tensor}', which the "
                "network does not have between two convolutions. Run calibrate again."
            )
        # A convolution between two equalized activations is changed at both ends.
        first = changed.get(before.name) or parameters_of(graph, before)
        second = changed.get(after.name) or parameters_of(graph, after)
        changed[before.name] = Parameters(
            first.weight / by_channel(factors, 4), first.bias / factors
        )
        changed[after.name] = Parameters(scaled_inputs(second.weight, factors), second.bias)
    return changed


def equalizable(graph: Graph) -> dict[str, tuple[onnx.NodeProto, onnx.NodeProto]]:
    """Returns each activation between two convolutions and a ReLU, with the two convolutions."""
    pairs = {}
    for node in graph.nodes:
        relu = graph.only_consumer(node.output[0]) if node.op_type == "Conv" else None
        if relu is None or relu.op_type != "Relu" or not _constant(graph, node):
            continue
        reader = graph.only_consumer(relu.output[0])
        if reader is not None and reader.op_type == "Conv" and _constant(graph, reader):
            pairs[str(relu.output[0])] = (node, reader)
    return pairs


def scaled_inputs(weight: Array, factors: Array) -> Array:
    """Returns a weight, (O, C / groups, kh, kw), times a factor for each channel that it reads, (C,)."""
    # The filters of one group read the same channels.
    by_group = factors.reshape(-1, weight.shape[1])
    rows = np.repeat(by_group, len(weight) // len(by_group), axis=0)
    return weight * rows[:, :, None, None]


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


def _constant(graph: Graph, node: onnx.NodeProto) -> bool:
    return all(not name or name in graph.constants for name in node.input[1:])

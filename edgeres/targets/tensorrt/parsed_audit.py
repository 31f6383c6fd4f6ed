"""The audit of a network as NVIDIA's parser understood it, where no engine can be inspected.

TensorRT for RTX compiles its kernels where the plan is loaded, and without a GPU there is no
inspector at all. What can be compared with the request is what the builder was given: a
convolution is INT8 when both of its operands come out of DequantizeLinear, an addition when its
shortcut does and its other input is a convolution's, or dequantized too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from edgeres.core.artifacts import LayerPrecision
from edgeres.core.audit import Audit, EngineLayer, Source
from edgeres.core.precision import Precision
from edgeres.targets.coverage import audited_nodes

NOTE = (
    "TensorRT for RTX chooses its kernels where the plan is loaded, and its inspector needs a GPU: "
    "these are the parsed network's layers, before the builder fused any"
)

_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


def audit_of_network(
    trt: Any, network: Any, layers: Iterable[LayerPrecision], precision: Precision
) -> Audit:
    """Returns the audit of an INetworkDefinition.

    Args:
        trt: NVIDIA's module.
        network: as its parser left it.
        layers: the network's, as it was lowered.
        precision: that was requested of the engine.
    """
    lowered = tuple(layers)
    names = frozenset(layer.name for layer in lowered)
    parsed = [network.get_layer(index) for index in range(network.num_layers)]
    producers = {
        layer.get_output(index).name: layer
        for layer in parsed
        for index in range(layer.num_outputs)
    }
    by_node: dict[str, EngineLayer] = {}
    for layer in parsed:
        match = _ONNX_LAYER.search(layer.metadata)
        node = match[1] if match else layer.name
        # The parser makes several layers of some operators; the first is the one that computes.
        if node in names and node not in by_node:
            by_node[node] = EngineLayer(
                name=layer.name,
                kind=layer.type.name,
                precision=_precision(trt, layer, producers),
                nodes=(node,),
            )
    engine_layers = tuple(by_node.values())
    nodes = audited_nodes(lowered, engine_layers, precision)
    return Audit(source=Source.PARSED, layers=engine_layers, nodes=nodes, note=NOTE)


def _precision(trt: Any, layer: Any, producers: Mapping[str, Any]) -> Precision | None:
    """Returns what a layer computes in: INT8 by its operands' producers, else its output's type."""
    dequantize, convolution = trt.LayerType.DEQUANTIZE, trt.LayerType.CONVOLUTION
    tensors = [layer.get_input(index) for index in range(layer.num_inputs)]
    # None stands for an optional input that is absent; a network's input has no producer.
    operands = [t for t in tensors if t is not None][:2]
    sources = [producers[t.name].type if t.name in producers else None for t in operands]
    integer = {dequantize} if layer.type == convolution else {dequantize, convolution}
    if len(sources) == 2 and dequantize in sources and integer.issuperset(sources):
        pair = next(producers[t.name] for t in operands if producers[t.name].type == dequantize)
        stored = [pair.get_input(index).dtype for index in range(min(pair.num_inputs, 1))]
        is_fp8 = bool(stored) and stored[0] == getattr(trt.DataType, "FP8", None)
        return Precision.FP8 if is_fp8 else Precision.INT8
    floats = {trt.DataType.FLOAT: Precision.FP32, trt.DataType.HALF: Precision.FP16}
    return floats.get(layer.get_output(0).dtype)

"""The audit of a network as NVIDIA's parser understood it, where no engine can be inspected.

TensorRT for RTX compiles its kernels where the plan is loaded, and without a GPU there is no
inspector at all. What can be held against the request is what the builder was given: a
convolution is INT8 when both of its operands come out of DequantizeLinear, an addition when its
shortcut does and its other input is a convolution's, or dequantized too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
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
        precision: that the engine was asked for in.
    """
    lowered = tuple(layers)
    names = frozenset(layer.name for layer in lowered)
    parsed = [network.get_layer(index) for index in range(network.num_layers)]
    view = _View(trt, {t.name: layer for layer in parsed for t in _outputs(layer)})
    found = tuple(_layers(view, parsed, names))
    nodes = audited_nodes(lowered, found, precision)
    return Audit(source=Source.PARSED, layers=found, nodes=nodes, note=NOTE)


class _View:
    """What a precision is read from: types of tensors and who makes them."""

    def __init__(self, trt: Any, producers: Mapping[str, Any]) -> None:
        kinds, types = trt.LayerType, trt.DataType
        self._producers = producers
        self._dequantize, self._convolution = kinds.DEQUANTIZE, kinds.CONVOLUTION
        self._floats = {types.FLOAT: Precision.FP32, types.HALF: Precision.FP16}

    def precision(self, layer: Any) -> Precision | None:
        """Returns what a layer computes in."""
        sources = [self._source(tensor) for tensor in _inputs(layer)]
        if self._dequantize in sources[:2] and self._is_integer(layer, sources[:2]):
            return Precision.INT8
        return self._floats.get(next(_outputs(layer)).dtype)

    def _is_integer(self, layer: Any, sources: list[Any]) -> bool:
        """Whether two operands, one of them dequantized, make an integer kernel."""
        allowed = {self._dequantize}
        if layer.type != self._convolution:
            allowed.add(self._convolution)
        return len(sources) == 2 and all(source in allowed for source in sources)

    def _source(self, tensor: Any) -> Any:
        producer = self._producers.get(tensor.name)
        return None if producer is None else producer.type


def _layers(view: _View, parsed: Iterable[Any], names: frozenset[str]) -> Iterator[EngineLayer]:
    """Yields the layers that compute an operator of the network, the first of each."""
    seen = set()
    for layer in parsed:
        told = _ONNX_LAYER.search(layer.metadata)
        node = told[1] if told else layer.name
        if node in names and node not in seen:
            seen.add(node)
            yield EngineLayer(
                name=layer.name,
                kind=layer.type.name,
                precision=view.precision(layer),
                nodes=(node,),
            )


def _inputs(layer: Any) -> Iterator[Any]:
    for index in range(layer.num_inputs):
        tensor = layer.get_input(index)
        if tensor is not None:
            yield tensor


def _outputs(layer: Any) -> Iterator[Any]:
    return (layer.get_output(index) for index in range(layer.num_outputs))

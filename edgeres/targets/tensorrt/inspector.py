"""The JSON of TensorRT's engine inspector, of every version, to an audit.

Versions differ: 8.6 has no `Metadata`, 11 has `I/O Tensors` in the place of `Bindings` and splits
`Format/Datatype`, newer GPUs have Myelin's fusions in the place of CaskConvolution. What a layer
computes in is read, in this order, from the type of its weights, its kernel's name, and its first
input. Source: NVIDIA TensorRT documentation, "Engine Inspector" and "Migrating
IEngineInspector Usage from TensorRT 10.x to 11.x".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from edgeres.core.artifacts import LayerPrecision
from edgeres.core.audit import Audit, EngineLayer, Source
from edgeres.core.precision import Precision
from edgeres.errors import BuildError
from edgeres.serialization import parse_json
from edgeres.targets.coverage import audited_nodes

_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_JOINED = re.compile(r" \+ | \|\| ")
_TYPE_KEYS = ("Format/Datatype", "DataType", "Datatype", "Format")

_TYPES = (
    (re.compile(r"fp8|e4m3", re.IGNORECASE), Precision.FP8),
    (re.compile(r"int8", re.IGNORECASE), Precision.INT8),
    (re.compile(r"fp16|half", re.IGNORECASE), Precision.FP16),
    (re.compile(r"\b(fp32|float)\b", re.IGNORECASE), Precision.FP32),
)
"""How the inspector spells a type, in formats, in DataType and in Weights."""

_TACTICS = (
    (re.compile(r"e4m3|fp8"), Precision.FP8),
    (re.compile(r"i8i8|i8i32|int8|imma"), Precision.INT8),
    (re.compile(r"f16f16|h16816|h1688|h884|hmma"), Precision.FP16),
    (re.compile(r"f32f32|s1688|sgemm|scudnn"), Precision.FP32),
)
"""Types of the operands in the names of NVIDIA's kernels, such as `xmma_fprop_..._i8i8_i8i32_f32`."""


def audit_of_inspector(text: str, layers: Iterable[LayerPrecision], precision: Precision) -> Audit:
    """Returns the audit of an engine.

    Args:
        text: what `get_engine_information(JSON)` returned.
        layers: the network's, as it was lowered.
        precision: that was requested of the engine.

    Raises:
        BuildError: the text is not the inspector's JSON.
    """
    try:
        raw_layers = list(parse_json(text)["Layers"])
    except (ValueError, KeyError, TypeError) as error:
        raise BuildError(
            f"TensorRT's engine inspector returned no list of layers ({error!r}): {text[:80]!r}. "
            "Report the version of TensorRT with this message."
        ) from error
    lowered = tuple(layers)
    names = frozenset(layer.name for layer in lowered)
    engine_layers = []
    for raw in raw_layers:
        # An engine of lower verbosity gives a plain name in the place of an object.
        layer: Mapping[str, Any] = raw if isinstance(raw, Mapping) else {"Name": raw}
        name, kind = str(layer.get("Name", "")), str(layer.get("LayerType", ""))
        # Without metadata, the name joins those of the fused operators.
        operators = _ONNX_LAYER.findall(str(layer.get("Metadata", ""))) or _JOINED.split(name)
        engine_layers.append(
            EngineLayer(
                name=name,
                kind=kind,
                precision=_precision(layer),
                # Each once: a fusion may list an operator for each of its kernels.
                nodes=tuple(dict.fromkeys(node for node in operators if node in names)),
                tactic=str(layer.get("TacticName", "")),
                is_reformat=kind == "Reformat",
            )
        )
    nodes = audited_nodes(lowered, engine_layers, precision)
    unknown = any(layer.precision is None and layer.nodes for layer in engine_layers)
    note = "the inspector gives no precision of some layers" if unknown else ""
    return Audit(source=Source.INSPECTOR, layers=tuple(engine_layers), nodes=nodes, note=note)


def _precision(layer: Mapping[str, Any]) -> Precision | None:
    """Returns what a layer computes in, by its weights, its kernel's name or its first input."""
    weights = layer.get("Weights")
    kind = weights.get("Type", "") if isinstance(weights, Mapping) else ""
    first: Mapping[str, Any] = next(iter(layer.get("Inputs") or ()), {})
    type_of_input = next((first[key] for key in _TYPE_KEYS if key in first), "")
    # The order matters: an INT8 kernel may read FP32, and a kernel's name does not always have
    # its types.
    spellings = ((kind, _TYPES), (layer.get("TacticName", ""), _TACTICS), (type_of_input, _TYPES))
    return next(
        (
            precision
            for spelling, patterns in spellings
            for pattern, precision in patterns
            if pattern.search(str(spelling))
        ),
        None,
    )

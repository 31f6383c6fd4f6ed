"""The JSON of TensorRT's engine inspector, of every version, to an audit.

Versions differ: 8.6 has no `Metadata`, 11 has `I/O Tensors` in the place of `Bindings` and splits
`Format/Datatype`, newer GPUs have Myelin's fusions in the place of CaskConvolution. What a layer
computes in is told, in this order, by the type of its weights, by its kernel's name, and by its
first input. Source: NVIDIA TensorRT documentation, "Engine Inspector" and "Migrating
IEngineInspector Usage from TensorRT 10.x to 11.x".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from edgeres.core.artifacts import LayerPrecision
from edgeres.core.audit import Audit, EngineLayer, Source
from edgeres.core.precision import Precision
from edgeres.errors import BuildError
from edgeres.targets.coverage import audited_nodes

_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_JOINED = re.compile(r" \+ | \|\| ")
_TYPE_KEYS = ("Format/Datatype", "DataType", "Datatype", "Format")

_TYPES = (
    (re.compile(r"int8", re.IGNORECASE), Precision.INT8),
    (re.compile(r"fp16|half", re.IGNORECASE), Precision.FP16),
    (re.compile(r"\b(fp32|float)\b", re.IGNORECASE), Precision.FP32),
)
"""How the inspector spells a type, in formats, in DataType and in Weights."""

_TACTICS = (
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
        precision: that the engine was asked for in.

    Raises:
        BuildError: the text is not the inspector's JSON.
    """
    lowered = tuple(layers)
    names = frozenset(layer.name for layer in lowered)
    found = tuple(_layer(raw, names) for raw in _raw_layers(text))
    nodes = audited_nodes(lowered, found, precision)
    silent = any(layer.precision is None and layer.nodes for layer in found)
    note = "the inspector gives no precision of some layers" if silent else ""
    return Audit(source=Source.INSPECTOR, layers=found, nodes=nodes, note=note)


def _raw_layers(text: str) -> list[Any]:
    try:
        raw = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise BuildError(
            f"TensorRT's engine inspector returned no list of layers ({error!r}): {text[:80]!r}. "
            "Report the version of TensorRT with this message."
        ) from error
    return list(raw)


def _layer(raw: Any, names: frozenset[str]) -> EngineLayer:
    """Returns one layer; a plain name is all that an engine of lower verbosity has."""
    if not isinstance(raw, Mapping):
        return EngineLayer(
            name=str(raw), kind="", precision=None, nodes=_nodes({}, str(raw), names)
        )
    name, kind = str(raw.get("Name", "")), str(raw.get("LayerType", ""))
    return EngineLayer(
        name=name,
        kind=kind,
        precision=_precision(raw),
        nodes=_nodes(raw, name, names),
        tactic=str(raw.get("TacticName", "")),
        is_reformat=kind == "Reformat",
    )


def _nodes(raw: Mapping[str, Any], name: str, names: frozenset[str]) -> tuple[str, ...]:
    """Returns the network's operators in a layer, by its metadata or by its name."""
    told = _ONNX_LAYER.findall(str(raw.get("Metadata", ""))) or _JOINED.split(name)
    return tuple(dict.fromkeys(node for node in told if node in names))


def _precision(raw: Mapping[str, Any]) -> Precision | None:
    weights = raw.get("Weights")
    kind = weights.get("Type", "") if isinstance(weights, Mapping) else ""
    return (
        _spelled(str(kind), _TYPES)
        or _spelled(str(raw.get("TacticName", "")), _TACTICS)
        or _spelled(_first_type(raw), _TYPES)
    )


def _first_type(raw: Mapping[str, Any]) -> str:
    first: Mapping[str, Any] = next(iter(raw.get("Inputs") or ()), {})
    return next((str(first[key]) for key in _TYPE_KEYS if key in first), "")


def _spelled(
    text: str, patterns: tuple[tuple[re.Pattern[str], Precision], ...]
) -> Precision | None:
    return next((precision for pattern, precision in patterns if pattern.search(text)), None)

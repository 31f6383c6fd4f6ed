"""Engine inspector JSON as each version of TensorRT prints it, for a network that was parsed.

Nothing here was captured on a GPU. The forms are written from NVIDIA's documentation ("Engine
Inspector", "Migrating IEngineInspector Usage from TensorRT 10.x to 11.x") and from output that
users posted (github.com/NVIDIA/TensorRT issues 3737 and 4020).
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import onnx
from onnx import TensorProto

_SPELLED = {"int8": "Int8", "fp16": "Half", "fp32": "Float"}


def as_asked(model: bytes, flags: Collection[str] = ()) -> str:
    """Returns layers that run in what the network was typed or, on 8.6, the builder allowed."""
    return json.dumps({"Layers": [_fused(node, model_of(model), flags) for node in _layers(model)]})


def model_of(model: bytes) -> onnx.ModelProto:
    """Returns the parsed model."""
    return onnx.load_model_from_string(model)


def _layers(model: bytes) -> list[onnx.NodeProto]:
    return [n for n in model_of(model).graph.node if n.op_type in {"Conv", "Add", "Gemm"}]


def _fused(node: onnx.NodeProto, model: onnx.ModelProto, flags: Collection[str]) -> dict[str, Any]:
    return {
        "Name": node.name,
        "LayerType": "CaskConvolution",
        "Metadata": f"[ONNX Layer: {node.name}]",
        "Weights": {"Type": _SPELLED[precision_of(node, model, flags)], "Count": 1},
    }


def precision_of(node: onnx.NodeProto, model: onnx.ModelProto, flags: Collection[str]) -> str:
    """Returns what a layer of a typed network is built in."""
    dequantized = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    if dequantized & set(node.input):
        return "int8"
    halves = any(t.data_type == TensorProto.FLOAT16 for t in model.graph.initializer)
    return "fp16" if halves or "FP16" in flags else "fp32"

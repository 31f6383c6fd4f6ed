"""Engine inspector JSON as each version of TensorRT prints it.

Nothing here was captured on a GPU. The forms are written from NVIDIA's documentation ("Engine
Inspector" of 8.6 and 10.16, "Migrating IEngineInspector Usage from TensorRT 10.x to 11.x") and
from output that users posted (github.com/NVIDIA/TensorRT issues 3737 and 4020).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import onnx
from onnx import TensorProto

_SPELLED = {"int8": "Int8", "fp16": "Half", "fp32": "Float"}

Layer = dict[str, Any]


def as_requested(model: bytes, flags: Collection[str] = ()) -> str:
    """Returns layers that run in what the network was typed or, on 8.6, the builder allowed."""
    parsed = onnx.load_model_from_string(model)
    computing = [n for n in parsed.graph.node if n.op_type in {"Conv", "Add", "Gemm"}]
    return json.dumps({"Layers": [_alone(node, parsed, flags) for node in computing]})


def _alone(node: onnx.NodeProto, model: onnx.ModelProto, flags: Collection[str]) -> Layer:
    return {
        "Name": node.name,
        "LayerType": "CaskConvolution",
        "Metadata": f"[ONNX Layer: {node.name}]",
        "Weights": {"Type": _SPELLED[_precision_of(node, model, flags)], "Count": 1},
    }


def _precision_of(node: onnx.NodeProto, model: onnx.ModelProto, flags: Collection[str]) -> str:
    dequantized = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    if dequantized & set(node.input):
        return "int8"
    halves = any(t.data_type == TensorProto.FLOAT16 for t in model.graph.initializer)
    return "fp16" if halves or "FP16" in flags else "fp32"


KERNELS = {
    "int8": "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32kcrs",
    "fp16": "sm80_xmma_fprop_implicit_gemm_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize128x128x32",
    "fp32": "sm80_xmma_fprop_implicit_gemm_indexed_tf32f32_tf32f32_f32_nhwckrsc_nhwc",
}

FORMATS = {
    "int8": "Thirty-two wide channel vectorized row major Int8 format",
    "fp16": "Channel major FP16 format where channel % 8 == 0",
    "fp32": "Row major linear FP32",
}

_DYNAMIC = "N/A due to dynamic shapes"


def old(nodes: Mapping[str, str], *, formats: bool = True) -> str:
    """Returns the JSON of TensorRT 8.6: fused names, no metadata, Bindings.

    Args:
        nodes: precision by name of a layer; several operators of one are joined by ` + `.
        formats: whether a context gave the shapes; else every format is `_DYNAMIC`.
    """
    layers = [_reformat(formats)] + [
        _convolution(name, precision, formats=formats) for name, precision in nodes.items()
    ]
    return json.dumps({"Layers": layers, "Bindings": ["input", "logits"]})


def ten(nodes: Mapping[str, str]) -> str:
    """Returns the JSON of TensorRT 10: as 8.6, with metadata, its entries separated by byte 31."""
    layers = [_reformat(True)]
    for name, precision in nodes.items():
        layer = _convolution(f"fused {len(layers)}", precision)
        layer["Metadata"] = "\x1f".join(f"[ONNX Layer: {part}]" for part in name.split(" + "))
        layers.append(layer)
    return json.dumps({"Layers": layers, "Bindings": ["input", "logits"]})


def eleven(nodes: Mapping[str, str]) -> str:
    """Returns the JSON of TensorRT 11: formats and types apart, Myelin's fusions, I/O Tensors."""
    layers = [_split(_reformat(True))]
    for name, precision in nodes.items():
        entries = "\x1e".join(f"[ONNX Layer: {part}]" for part in name.split(" + "))
        layers.append(
            {
                "Name": f"__myl_ConvAddRelu_myl0_{len(layers)}",
                "LayerType": "fusion",
                "Inputs": [_typed(precision)],
                "Outputs": [_typed(precision)],
                "TacticName": KERNELS[precision],
                "Metadata": entries,
            }
        )
    images = {
        "Name": "input",
        "IOMode": "Input",
        "DataType": "Float",
        "Dimensions": [-1, 3, 32, 32],
    }
    return json.dumps({"Layers": layers, "I/O Tensors": [images]})


def names_only(names: Collection[str]) -> str:
    """Returns the JSON of an engine that was not built with detailed verbosity."""
    return json.dumps({"Layers": list(names), "Bindings": ["input", "logits"]})


def _convolution(name: str, precision: str, *, formats: bool = True) -> Layer:
    format_ = FORMATS[precision] if formats else _DYNAMIC
    return {
        "Name": name,
        "LayerType": "CaskConvolution",
        "Inputs": [{"Name": "in", "Dimensions": [-1, 64, 8, 8], "Format/Datatype": format_}],
        "Outputs": [{"Name": "out", "Dimensions": [-1, 64, 8, 8], "Format/Datatype": format_}],
        "ParameterType": "Convolution",
        "Kernel": [3, 3],
        "Weights": {"Type": _SPELLED[precision], "Count": 36864},
        "Bias": {"Type": "Float", "Count": 64},
        "HasReLU": 1,
        "TacticName": KERNELS[precision],
        "TacticValue": "0x11bde0e1d9f2f35d",
    }


def pointwise(name: str, precision: str, *, formats: bool = True) -> Layer:
    """Returns an addition that was not fused, as 8.6 prints it: no weights and no kernel's name."""
    layer = _convolution(name, precision, formats=formats)
    kept = ("Name", "Inputs", "Outputs")
    return {**{key: layer[key] for key in kept}, "LayerType": "PointWiseV2", "TacticValue": "0x1c"}


def _reformat(formats: bool) -> Layer:
    layer = _convolution("Reformatting CopyNode for Input Tensor 0 to /conv1/Conv", "fp32")
    kept = {key: layer[key] for key in ("Name", "Inputs", "Outputs")}
    return {**kept, "LayerType": "Reformat", "ParameterType": "Reformat", "Origin": "REFORMAT"}


def _split(layer: Layer) -> Layer:
    return {**layer, "Inputs": [_typed("fp32")], "Outputs": [_typed("int8")]}


def _typed(precision: str) -> Layer:
    return {
        "Name": "in",
        "Dimensions": [-1, 64, 8, 8],
        "Format": "kLINEAR" if precision == "fp32" else "kCHW32",
        "DataType": _SPELLED[precision],
    }

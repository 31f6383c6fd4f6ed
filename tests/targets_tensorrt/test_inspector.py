"""The engine inspector's JSON of every version says the same of the same engine."""

from __future__ import annotations

import json
from collections.abc import Callable

import inspected
import pytest

from edgeres.core.artifacts import LayerPrecision
from edgeres.core.audit import Audit, Source
from edgeres.core.precision import Precision
from edgeres.errors import BuildError
from edgeres.targets.tensorrt.inspector import audit_of_inspector

LAYERS = tuple(
    LayerPrecision(name=name, op_type=kind, precision=precision)
    for name, kind, precision in (
        ("/conv1/Conv", "Conv", Precision.INT8),
        ("/layer1/layer1.0/conv1/Conv", "Conv", Precision.INT8),
        ("/layer1/layer1.0/conv2/Conv", "Conv", Precision.INT8),
        ("/layer1/layer1.0/Add", "Add", Precision.INT8),
        ("/fc/Gemm", "Gemm", Precision.FP16),
    )
)

FUSED = {
    "/conv1/Conv + /relu/Relu": "int8",
    "/layer1/layer1.0/conv1/Conv + /layer1/layer1.0/relu/Relu": "int8",
    "/layer1/layer1.0/conv2/Conv + /layer1/layer1.0/Add + /layer1/layer1.0/relu_1/Relu": "int8",
    "/fc/Gemm": "fp16",
}
"""The engine that Q/DQ on the shortcut alone is meant to give."""

VERSIONS: dict[str, Callable[[dict[str, str]], str]] = {
    "8.6": inspected.old,
    "10": inspected.ten,
    "11": inspected.eleven,
}


def audit(text: str) -> Audit:
    """Returns the audit of the network above."""
    return audit_of_inspector(text, LAYERS, Precision.INT8)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_fused_engine_is_covered(version: str) -> None:
    """Three convolutions and the addition, which is in the last one's kernel."""
    result = audit(VERSIONS[version](FUSED))
    assert result.source is Source.INSPECTOR
    assert [(node.name, node.ran) for node in result.nodes] == [
        (layer.name, Precision.INT8) for layer in LAYERS[:4]
    ]
    assert (result.coverage, result.missed) == (100.0, ())
    assert result.nodes[2].layer == result.nodes[3].layer != ""
    assert (result.reformats, result.fused) == (1, 1)
    assert result.note == ""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("fell_to", ["fp16", "fp32"])
def test_a_layer_that_fell_back_is_reported(version: str, fell_to: str) -> None:
    """One kernel in another precision takes a convolution and its addition with it."""
    last = list(FUSED)[2]
    result = audit(VERSIONS[version]({**FUSED, last: fell_to}))
    assert [(node.op_type, node.ran) for node in result.missed] == [
        ("Conv", Precision(fell_to)),
        ("Add", Precision(fell_to)),
    ]
    assert result.coverage == 50.0


def test_an_addition_apart_from_its_convolution_is_reported() -> None:
    """Which is what Q/DQ between the last convolution and the Add leads to."""
    split = {name.replace(" + /layer1/layer1.0/Add", ""): p for name, p in FUSED.items()}
    raw = json.loads(inspected.old(split))
    raw["Layers"].append(inspected.pointwise("PWN(/layer1/layer1.0/Add)", "fp16"))
    raw["Layers"][-1]["Metadata"] = "[ONNX Layer: /layer1/layer1.0/Add]"
    result = audit(json.dumps(raw))
    (missed,) = result.missed
    assert (missed.name, missed.ran) == ("/layer1/layer1.0/Add", Precision.FP16)
    assert missed.layer == "PWN(/layer1/layer1.0/Add)"


def test_the_kernel_decides_where_the_input_says_less() -> None:
    """A convolution may read INT8 and compute in FP16: its weights and kernel tell."""
    raw = json.loads(inspected.old({"/conv1/Conv": "fp16"}))
    raw["Layers"][1]["Inputs"][0]["Format/Datatype"] = inspected.FORMATS["int8"]
    assert audit(json.dumps(raw)).nodes[0].ran is Precision.FP16
    del raw["Layers"][1]["Weights"]
    assert audit(json.dumps(raw)).nodes[0].ran is Precision.FP16
    del raw["Layers"][1]["TacticName"]
    assert audit(json.dumps(raw)).nodes[0].ran is Precision.INT8


@pytest.mark.parametrize(
    ("kernel", "precision"),
    [
        ("sm80_xmma_fprop_implicit_gemm_interleaved_i8f32_i8i32_f32_nchw_vect_c_32kcrs", "int8"),
        ("sm72_xmma_fprop_implicit_gemm_indexed_i8i8_i8i32_f32_tensor8x8x16", "int8"),
        ("sm80_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_nhwckrsc_nhwc", "fp16"),
        ("turing_h1688cudnn_256x64_sliced1x2_ldg8_relu_exp_small_nhwc_tn_v1", "fp16"),
        ("sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nchw", "fp32"),
        ("ampere_scudnn_128x64_relu_small_nn_v1", "fp32"),
        ("generatedNativePointwise", None),
    ],
)
def test_kernels_as_nvidia_names_them(kernel: str, precision: str | None) -> None:
    """By the types of their operands, whatever they write."""
    layer = {"Name": "/conv1/Conv", "LayerType": "fusion", "TacticName": kernel}
    ran = audit(json.dumps({"Layers": [layer]})).layers[0].precision
    assert ran == (None if precision is None else Precision(precision))


@pytest.mark.parametrize(
    ("spelled", "precision"),
    [
        ("Int8", Precision.INT8),
        ("Half", Precision.FP16),
        ("Float", Precision.FP32),
        ("Row major linear FP32", Precision.FP32),
        ("Channel major FP16 format where channel % 4 == 0", Precision.FP16),
        ("Thirty-two wide channel vectorized row major Int8 format.", Precision.INT8),
        ("N/A due to dynamic shapes", None),
        ("Int32", None),
        ("BFloat16", None),
    ],
)
def test_types_as_the_versions_spell_them(spelled: str, precision: Precision | None) -> None:
    """The abbreviated ones stand where no context tells the shapes."""
    layer = {
        "Name": "/conv1/Conv",
        "LayerType": "PointWise",
        "Inputs": [{"Name": "in", "Format/Datatype": spelled}],
    }
    result = audit(json.dumps({"Layers": [layer]}))
    assert result.layers[0].precision is precision


def test_what_the_inspector_does_not_tell_is_not_guessed() -> None:
    """A layer of unknown precision is missed, and the audit says that it was not told."""
    result = audit(inspected.names_only(FUSED))
    assert result.coverage == 0
    assert {node.ran for node in result.missed} == {None}
    assert result.note == "the inspector gives no precision of some layers"
    assert result.fused == 1


def test_an_operator_that_is_in_no_layer_is_missed() -> None:
    """Its layer is empty."""
    result = audit(inspected.ten({name: p for name, p in FUSED.items() if "conv2" not in name}))
    assert [(node.name, node.ran, node.layer) for node in result.missed] == [
        ("/layer1/layer1.0/conv2/Conv", None, ""),
        ("/layer1/layer1.0/Add", None, ""),
    ]


def test_fp16_is_compared_with_fp16() -> None:
    """Each layer by what it was lowered to."""
    layers = [LayerPrecision(name="/conv1/Conv", op_type="Conv", precision=Precision.FP16)]
    ran = {"fp16": 100.0, "fp32": 0.0}
    for precision, coverage in ran.items():
        text = inspected.ten({"/conv1/Conv": precision})
        assert audit_of_inspector(text, layers, Precision.FP16).coverage == coverage


@pytest.mark.parametrize("text", ["", "no JSON", "{}", "[]", "null"])
def test_what_is_no_inspector_json_is_refused(text: str) -> None:
    """With the beginning of what was there."""
    with pytest.raises(BuildError, match="engine inspector returned no list of layers"):
        audit(text)

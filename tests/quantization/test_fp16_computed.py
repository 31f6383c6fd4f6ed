"""An FP16 network computed in FP32 rounds where NumPy's float16 does, operator by operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import NAMES, images, network
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from tables import table_from_images

from edgeres.onnx_file import LoweredNetwork, load_onnx
from edgeres.quantization.fp16.computed import computed_in_fp32
from edgeres.quantization.fp16.typed import to_fp16
from edgeres.quantization.graph import view
from edgeres.quantization.qdq.lowering import lower_for_tensorrt
from edgeres.quantization.qdq.placement import place_for_tensorrt
from edgeres.session import open_session, run_session
from edgeres.targets.session_runner import network_runner

Array = NDArray[np.float32]


def typed_network(name: str, *, int8: bool) -> onnx.ModelProto:
    """Returns a tiny network in FP16, with TensorRT's placement of INT8 or without."""
    model = network(name)
    if int8:
        graph = view(model)
        table = table_from_images(graph, images(4))
        model = lower_for_tensorrt(graph, place_for_tensorrt(graph), table, fp16_scales=True)
    return to_fp16(model)


def logits(model: onnx.ModelProto, x: Array) -> Array:
    """Returns the logits by ONNX Runtime."""
    session = open_session(model.SerializeToString(), integer=False)
    return run_session(session, ["logits"], {"image": x})[0]


def rounded_by_numpy(typed: onnx.ModelProto, x: Array) -> Array:
    """Returns the logits of a typed network, each operator by itself in FP32, then in float16.

    What it dequantizes stays exact, as integer kernels have it.
    """
    values: dict[str, Any] = {"image": x}
    for tensor in typed.graph.initializer:
        stored = numpy_helper.to_array(tensor)
        values[tensor.name] = stored.astype(np.float32) if stored.dtype == np.float16 else stored
    for node in typed.graph.node:
        if node.op_type == "Cast":
            values[node.output[0]] = values[node.input[0]].astype(np.float16).astype(np.float32)
            continue
        names = [name for name in node.input if name]
        inputs = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(values[n].dtype), None)
            for n in names
        ]
        output = helper.make_empty_tensor_value_info(node.output[0])
        graph = helper.make_graph([node], "one", inputs, [output])
        alone = helper.make_model(graph, opset_imports=typed.opset_import)
        found: Any = ReferenceEvaluator(alone).run(None, {n: values[n] for n in names})
        (value,) = found
        if value.dtype == np.float32 and node.op_type != "DequantizeLinear":
            value = value.astype(np.float16).astype(np.float32)
        values[node.output[0]] = value
    logits: Array = values["logits"]
    return logits


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_it_rounds_what_float16_rounds(name: str, int8: bool) -> None:
    """Logits are on FP16's grid, within the rare step that another order of a sum decides."""
    typed, x = typed_network(name, int8=int8), images(4, 4)
    found, expected = logits(computed_in_fp32(typed), x), rounded_by_numpy(typed, x)
    assert (found.astype(np.float16) == found).all()
    largest = np.abs(expected).max()
    # A sum in another order may meet FP16's, and in INT8 a tensor's, next step.
    assert np.abs(found - expected).max() <= largest * (2.0**-7 if int8 else 2.0**-9)
    if not int8:
        unrounded = logits(network(name), x)
        assert np.abs(found - expected).mean() < np.abs(unrounded - expected).mean() / 2


def test_onnx_runtime_keeps_the_roundings(tmp_path: Path) -> None:
    """The graph that it runs has a pair of Casts for each float operator, behind fused ReLUs."""
    model = computed_in_fp32(typed_network("identity", int8=False))
    path = tmp_path / "optimized.onnx"
    open_session(model.SerializeToString(), optimized=path)
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    # Image, three convolutions, the sum, the mean and the logits.
    assert kinds.count("Cast") == 2 * 7
    assert "Relu" not in kinds or kinds.count("Relu") == 1


def test_its_own_types_would_not_do(tmp_path: Path) -> None:
    """Of the typed network itself ONNX Runtime leaves roundings out; else the FP32 form could go."""
    typed = typed_network("identity", int8=False)
    path = tmp_path / "optimized.onnx"
    open_session(typed.SerializeToString(), optimized=path)
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("Cast") < 2 * 7


def test_a_simulation_runs_that_form(tmp_path: Path) -> None:
    """Bit for bit, and the typed network itself would not give these logits."""
    typed, x = typed_network("bottleneck", int8=False), images(8, 4)
    onnx.save(network("bottleneck"), tmp_path / "m.onnx")
    source = load_onnx(tmp_path / "m.onnx").artifact
    with network_runner(LoweredNetwork(model=typed, source=source), "simulated") as runner:
        found = runner.infer(x)
    assert (found == logits(computed_in_fp32(typed), x)).all()
    assert (found != logits(typed, x)).any()


def test_a_network_without_fp16_stays_as_it_is() -> None:
    """The same object comes back."""
    model = network("identity")
    assert computed_in_fp32(model) is model


def test_values_beyond_fp16_become_infinite() -> None:
    """As they do in a plan, which is why they are refused before."""
    typed = typed_network("identity", int8=False)
    for tensor in typed.graph.initializer:
        if tensor.name in {"main1_w", "main2_w"}:
            loud = np.full(tensor.dims, 60000, np.float16)
            tensor.CopyFrom(numpy_helper.from_array(loud, tensor.name))
    assert not np.isfinite(logits(computed_in_fp32(typed), images(1))).all()


def test_shapes_that_are_computed_are_left_alone() -> None:
    """A Shape is an integer, which FP16 would round from 2,049 on."""
    model = network("identity")
    flat = next(node for node in model.graph.node if node.op_type == "Flatten")
    position = list(model.graph.node).index(flat)
    model.graph.node.remove(flat)
    model.graph.node.insert(position, helper.make_node("Shape", ["pooled"], ["size"], end=2))
    model.graph.node.insert(position + 1, helper.make_node("Reshape", ["pooled", "size"], ["flat"]))
    typed = to_fp16(model)
    found = logits(computed_in_fp32(typed), images(2, 4))
    expected = logits(computed_in_fp32(to_fp16(network("identity"))), images(2, 4))
    assert (found == expected).all()
    assert TensorProto.FLOAT16 not in {
        t.data_type for t in computed_in_fp32(typed).graph.initializer
    }

"""Networks with Q/DQ for the tests of the builders."""

from __future__ import annotations

import onnx

from edgeres.calibration.observe import calibrated_tensors
from edgeres.core.contract import Contract
from edgeres.core.methods import Method
from edgeres.core.table import CalibrationTable, DataLineage, TensorRange, Threshold
from edgeres.quantization.graph import view
from edgeres.quantization.qdq.lowering import lower_for_tensorrt
from edgeres.quantization.qdq.placement import place_for_tensorrt


def unit_table(model: onnx.ModelProto) -> CalibrationTable:
    """Returns a table in which every activation reaches 1."""
    one = TensorRange(amax=1.0, signed=False, thresholds={Method.MAX: Threshold(s8=1.0, u8=1.0)})
    return CalibrationTable(
        model_sha256="0" * 64,
        data=DataLineage.of("none", ()),
        contract=Contract(height=16, width=16),
        method=Method.MAX,
        percentile=100.0,
        samples=1,
        seed=0,
        edgeres_version="0",
        tensors=dict.fromkeys(calibrated_tensors(view(model)), one),
    )


def with_qdq(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with TensorRT's placement."""
    graph = view(model)
    return lower_for_tensorrt(graph, place_for_tensorrt(graph), unit_table(model))


def without_pair(model: onnx.ModelProto, reader: str) -> onnx.ModelProto:
    """Returns a copy in which an operator's dequantized operand is the float tensor itself."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    made = {out: node for node in changed.graph.node for out in node.output}
    node = next(n for n in changed.graph.node if n.name == reader)
    for index, name in enumerate(node.input):
        producer = made.get(name)
        if producer is not None and producer.op_type == "DequantizeLinear":
            node.input[index] = made[producer.input[0]].input[0]
            return changed
    raise AssertionError(f"{reader} has no dequantized operand")

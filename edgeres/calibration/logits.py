"""A model of probabilities as one of logits: what calibration compares is the same for both.

Softmax lets a confident answer hide any error of its logits, so methods and corrections that were
chosen by probabilities would be other ones than those of the same network without it.
"""

from __future__ import annotations

from dataclasses import replace

import onnx

from edgeres.core.artifacts import TensorSpec
from edgeres.onnx_file import LoadedModel

_ENDS = frozenset({"Softmax", "LogSoftmax", "Sigmoid"})


def ending_in_logits(model: LoadedModel) -> LoadedModel:
    """Returns a model without the activation that it ends in; one without any as it is.

    Its description keeps the file's hash: a table made from it is one of that file.
    """
    graph = model.proto.graph
    old = graph.output[0]
    last = next((node for node in graph.node if old.name in node.output), None)
    if last is None or last.op_type not in _ENDS:
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    proto.graph.node.remove(last)
    del proto.graph.value_info[:]
    proto.graph.output[0].name = last.input[0]
    output = TensorSpec(name=last.input[0], shape=model.artifact.output.shape)
    return replace(
        model,
        artifact=replace(model.artifact, output=output, activation=""),
        content=proto.SerializeToString(),
        proto=proto,
    )

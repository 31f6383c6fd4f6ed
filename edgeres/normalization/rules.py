"""What a network that is to be changed has to be, beyond a graph that a runtime takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import onnx

from edgeres.errors import ArtifactError
from edgeres.graph_structure import DAMAGED, MAX_ELEMENTS, with_weights_as_inputs
from edgeres.input_files import foreign_parser, reason_of

_TAKE_LISTS = frozenset(
    {"Expand", "Pad", "Reshape", "Resize", "Slice", "Split", "Tile", "Unsqueeze"}
)
"""Operators whose inputs behind the first are lists of numbers or one number."""

_LONGEST_LIST: Mapping[str, int] = {
    **dict.fromkeys(_TAKE_LISTS - {"Split"}, 8),
    **dict.fromkeys(("Pad", "Resize"), 16),
}
"""Numbers in such a list: one for each axis, of which TensorRT's tensors have 8, or two."""

_WEIGHT_AXES = {"Conv": 4, "Gemm": 2}
"""Axes of the weights of the operators that are quantized, of images."""


def check_rules(path: Path, model: onnx.ModelProto) -> None:
    """Checks a network that is to be changed by ONNX's own rules.

    One that is run as it is needs no such check: runtimes take more than ONNX's rules let pass.

    Raises:
        ArtifactError: an operator, attribute or type breaks them.
    """
    with foreign_parser(
        lambda error: ArtifactError(f"{path} breaks ONNX's rules: {reason_of(error)}. {DAMAGED}")
    ):
        onnx.checker.check_model(with_weights_as_inputs(model))
    dims = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    for node in (n for n in model.graph.node if n.op_type == "Constant"):
        for value in node.attribute:
            dims[node.output[0]] = list(value.t.dims) if value.HasField("t") else [len(value.ints)]
    for node in model.graph.node:
        read = [dims.get(name) for name in node.input]
        weight = read[1] if node.op_type in _WEIGHT_AXES and len(read) > 1 else None
        if weight is not None and (len(weight) != _WEIGHT_AXES[node.op_type] or 0 in weight):
            raise ArtifactError(
                f"{path} has the operator {node.op_type} '{node.name}' with weights of the sizes "
                f"{weight}; expected {_WEIGHT_AXES[node.op_type]} sizes of at least 1. {DAMAGED}"
            )
        if node.op_type not in _TAKE_LISTS:
            continue
        # NVIDIA's parser ends the process at some that have more axes, or are longer.
        most = _LONGEST_LIST.get(node.op_type, MAX_ELEMENTS)
        for sizes in (each for each in read[1:] if each is not None):
            if len(sizes) > 1 or math.prod(sizes) > most:
                raise ArtifactError(
                    f"{path} has the operator {node.op_type} '{node.name}' with numbers of the "
                    f"sizes {sizes}; expected a list of at most {most}. {DAMAGED}"
                )

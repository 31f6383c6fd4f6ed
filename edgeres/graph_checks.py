"""What an ONNX graph computes, as far as its operators show: one image's logits in FP32, or not.

Only operators that the output depends on count. Knows the ONNX format and no stage.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeres.errors import ArtifactError
from edgeres.graph_names import bodies, subgraphs
from edgeres.graph_values import roundings
from edgeres.weight_grids import are_rounded

_RANDOM = frozenset(
    [
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Bernoulli",
        "Multinomial",
        "BiasDropout",
        "BitmaskDropout",
        "BitmaskBiasDropout",
    ]
)
"""Operators whose result is not the same twice; the last three are ONNX Runtime's for training."""

_KEEPS_BATCH = frozenset(
    [
        "Abs",
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Cast",
        "Ceil",
        "Clip",
        "Concat",
        "Conv",
        "Div",
        "Dropout",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Flatten",
        "Gelu",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Gemm",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "InstanceNormalization",
        "LRN",
        "LeakyRelu",
        "Log",
        "MatMul",
        "Max",
        "MaxPool",
        "Min",
        "Mish",
        "Mul",
        "Neg",
        "PRelu",
        "Pad",
        "Pow",
        "Relu",
        "Round",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Sqrt",
        "Sub",
        "Sum",
        "Tanh",
        "Where",
    ]
)
"""Operators whose output has the batch of their input as its first axis (Concat and Flatten where
their axis is another one)."""

_DEFAULT_AXIS: Mapping[str, int] = {
    "ArgMax": 0,
    "ArgMin": 0,
    "Hardmax": -1,
    "LayerNormalization": -1,
    "LogSoftmax": -1,
    "LpNormalization": -1,
    "Softmax": -1,
    "TopK": -1,
    "Concat": 1,
    "Flatten": 1,
}
"""Axis that an operator works along where its attribute is not set. Source: ONNX operators."""

_HANDS_ON = frozenset(
    ["Cast", "Clip", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"]
)
"""Operators behind an activation function that leave probabilities what they are."""

_ONNX_DOMAINS = frozenset(["", "ai.onnx"])

_QUANTIZED = re.compile("[Qq]uant|QLinear|Integer|QGemm|QAttention|MatMulNBits")
"""Found in the names of quantized operators, those of ONNX Runtime's domain included."""

_LOW_PRECISION: Mapping[int, str] = {
    kind: name
    for name, kind in TensorProto.DataType.items()
    if name in {"FLOAT16", "BFLOAT16", "INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2"}
    or name.startswith(("FLOAT8", "FLOAT4"))
}
"""Types of weights that are no FP32 any more."""

_LOW_FLOATS = frozenset(k for k, name in _LOW_PRECISION.items() if "FLOAT" in name)


def check_one_image(path: Path, model: onnx.ModelProto) -> None:
    """Checks that the output for an image depends on nothing but the image.

    Raises:
        ArtifactError: an operator is in training mode, random, or works along the batch.
    """
    graph = model.graph
    constants = _Constants(graph)
    reasons: dict[str, list[str]] = {}
    for node in live_nodes(model):
        reason = _training_mode(node, constants)
        if node.op_type in _RANDOM:
            reason = f"{node.op_type}, which is random"
        elif node.op_type.startswith("Dynamic") and "Quant" in node.op_type:
            reason = f"{node.op_type}, whose scale is that of the whole batch"
        if reason:
            reasons.setdefault(reason, []).append(node.name)
    for reason, name in _along_batch(model, constants):
        reasons.setdefault(reason, []).append(name)
    if not reasons:
        return
    listed = ", ".join(
        f"{len(names)} {reason}" + (f" (first: '{names[0]}')" if names[0] else "")
        for reason, names in reasons.items()
    )
    raise ArtifactError(
        f"{path} has {listed}: what it gives for an image depends on the other images of the "
        "batch, or on chance. edgeres takes a network in inference mode. Call model.eval() on "
        "the module that is exported, wrapper included, take random and batch-wise operators "
        "out of its forward, and export it again."
    )


def check_operators(path: Path, model: onnx.ModelProto) -> None:
    """Checks that a source or a reference in FP32 has ONNX's own operators alone.

    Raises:
        ArtifactError: it has others, as a file has that ONNX Runtime optimized.
    """
    functions = {(f.domain, f.name) for f in model.functions}
    foreign = Counter(
        (node.op_type, node.domain)
        for node in live_nodes(model)
        if node.domain not in _ONNX_DOMAINS
        and (node.domain, node.op_type) not in functions
        # What quantizes is named with the rest of that.
        and not _QUANTIZED.search(node.op_type)
    )
    if foreign:
        listed = ", ".join(f"{n} {kind} of {domain}" for (kind, domain), n in foreign.items())
        raise ArtifactError(
            f"{path} has {listed}: operators of one runtime, such as ONNX Runtime writes when it "
            "optimizes a file; expected ONNX's own, which every target knows. Pass the file that "
            "it was made from, or export the model without them."
        )


def low_precision(model: onnx.ModelProto) -> str:
    """Returns what a model holds of quantization or of less than FP32, counted; empty for FP32.

    Weights that were rounded and are stored in FP32 count too, and operators that round what a
    layer computed: quantization that is written out.
    """
    counts: Counter[str] = Counter()
    stored: list[onnx.TensorProto] = []
    read: set[str] = set()
    for node in live_nodes(model):
        kind = node.op_type
        if _QUANTIZED.search(kind):
            counts[kind] += 1
        elif kind == "Cast" and (to := _attribute(node, "to")) in _LOW_FLOATS:
            counts[f"Cast to {_LOW_PRECISION[to]}"] += 1
        if kind == "Constant":
            stored += [attribute.t for attribute in node.attribute if attribute.HasField("t")]
        read.update(node.input)
    for body in subgraphs(model.graph):
        stored += [tensor for tensor in body.initializer if tensor.name in read]
    for tensor in stored:
        # Less than a matrix is a scale, a zero point or a limit, and no weight.
        if tensor.data_type in _LOW_PRECISION and len(tensor.dims) > 1:
            counts[f"{_LOW_PRECISION[tensor.data_type]} weights"] += 1
        elif tensor.data_type == TensorProto.FLOAT and are_rounded(numpy_helper.to_array(tensor)):
            counts["FP32 weights that were rounded to 10 bits or fewer"] += 1
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    counts.update(roundings(model.graph))
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def final_activation(model: onnx.ModelProto) -> str:
    """Returns `Softmax`, `LogSoftmax` or `Sigmoid` where a model ends in it; else empty.

    LogSoftmax also stands for Log of Softmax, Softmax also for exp(x) / sum(exp(x)).
    """
    producers = {out: node for node in model.graph.node for out in node.output}
    node = _behind(producers, model.graph.output[0].name)
    if node is None:
        return ""
    if node.op_type == "Log":
        inner = _behind(producers, node.input[0])
        return "LogSoftmax" if inner is not None and inner.op_type == "Softmax" else ""
    if node.op_type == "Div":
        exponential, total = (producers.get(name) for name in node.input)
        if exponential is None or total is None or exponential.op_type != "Exp":
            return ""
        summed = total.op_type == "ReduceSum" and total.input[0] == node.input[0]
        return "Softmax" if summed else ""
    return node.op_type if node.op_type in {"Softmax", "LogSoftmax", "Sigmoid"} else ""


def live_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Yields the operators that the outputs depend on, with those inside of them."""
    graph = model.graph
    functions = {(f.domain, f.name): f for f in model.functions}
    producers = {out: node for node in graph.node for out in node.output if out}
    pending = [value.name for value in graph.output]
    visited: set[str] = set()
    while pending:
        name = pending.pop()
        if name in visited or name not in producers:
            continue
        node = producers[name]
        visited.update(node.output)
        inner = list(_inside(node, functions, set()))
        # What the body of an If or Loop reads of the graph around it counts as an input.
        pending.extend(name for each in (node, *inner) for name in each.input)
        yield node
        yield from inner


def _inside(
    node: onnx.NodeProto,
    functions: Mapping[tuple[str, str], onnx.FunctionProto],
    entered: set[tuple[str, str]],
) -> Iterator[onnx.NodeProto]:
    """Yields the operators of a node's subgraphs and of the model's function that it calls."""
    within: list[onnx.GraphProto | onnx.FunctionProto] = [*bodies(node)]
    key = node.domain, node.op_type
    if key in functions and key not in entered:
        entered.add(key)
        within.append(functions[key])
    for body in within:
        for inner in body.node:
            yield inner
            yield from _inside(inner, functions, entered)


class _Constants:
    """Values that are in the file, also behind Identity and Cast."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._tensors: dict[str, onnx.TensorProto] = {}
        self._aliases: dict[str, str] = {}
        for body in subgraphs(graph):
            self._tensors.update((tensor.name, tensor) for tensor in body.initializer)
            for node in body.node:
                value = next((a.t for a in node.attribute if a.name == "value"), None)
                if node.op_type == "Constant" and value is not None:
                    self._tensors[node.output[0]] = value
                elif node.op_type in {"Identity", "Cast"}:
                    self._aliases[node.output[0]] = node.input[0]

    def value(self, name: str) -> NDArray[np.generic] | None:
        """Returns a constant; None for what is computed from the image."""
        visited: set[str] = set()
        # A damaged graph may have a cycle.
        while name in self._aliases and name not in visited:
            visited.add(name)
            name = self._aliases[name]
        tensor = self._tensors.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def input(self, node: onnx.NodeProto, index: int) -> NDArray[np.generic] | None:
        """Returns a constant input of an operator; None where it is none, or left out."""
        return self.value(node.input[index]) if _has_input(node, index) else None


def _training_mode(node: onnx.NodeProto, constants: _Constants) -> str:
    """Returns how an operator is in training mode; empty for inference."""
    if node.op_type == "BatchNormalization":
        # Before opset 14 the mode is in the number of outputs. Source: ONNX, BatchNormalization.
        if _attribute(node, "training_mode") or sum(map(bool, node.output)) > 1:
            return "BatchNormalization with training_mode=1"
    elif node.op_type == "Dropout" and _has_input(node, 2):
        mode, ratio = constants.input(node, 2), constants.input(node, 1)
        # Unknown until it runs is no promise of inference.
        drops = 0.5
        if _has_input(node, 1):
            drops = 1.0 if ratio is None or ratio.size != 1 else float(ratio.item())
        if drops > 0 and (mode is None or mode.any()):
            return "Dropout with training_mode=true"
    return ""


def _along_batch(model: onnx.ModelProto, constants: _Constants) -> Iterator[tuple[str, str]]:
    """Yields the operators that work along the first axis of a tensor that has the batch there."""
    graph = model.graph
    initializers = {tensor.name for tensor in graph.initializer}
    image = next(value for value in graph.input if value.name not in initializers)
    size = image.type.tensor_type.shape.dim
    if size and size[0].dim_value == 1:
        return  # a batch of one image has no other
    live = {name for node in live_nodes(model) for name in node.output}
    batched = {image.name}
    for node in graph.node:
        kind = node.op_type
        if not any(name in batched for name in node.input):
            continue
        axes = _axes(node, constants)
        along = axes is not None and (0 in axes or not axes)
        if along and kind not in {"Concat", "Flatten"} and node.output[0] in live:
            yield f"{kind} over the batch axis", node.name
        elif kind == "Reshape":
            shape = constants.input(node, 1)
            if shape is not None and shape.size and int(shape.flat[0]) == 0:
                batched.update(node.output[:1])
        elif kind == "Transpose":
            if (perm := _attribute(node, "perm")) and perm[0] == 0:
                batched.update(node.output[:1])
        elif (kind in _KEEPS_BATCH or axes is not None) and not along:
            batched.update(node.output[:1])


def _axes(node: onnx.NodeProto, constants: _Constants) -> tuple[int, ...] | None:
    """Returns the axes that an operator mixes values along, none for all; None if it mixes none."""
    kind = node.op_type
    if kind == "MeanVarianceNormalization":
        return tuple(_attribute(node, "axes") or (0, 2, 3))
    if kind.startswith("Reduce"):
        axes = _attribute(node, "axes")
        if axes is None and _has_input(node, 1):
            given = constants.input(node, 1)
            # Axes that are computed cannot be read here.
            return (1,) if given is None else tuple(int(axis) for axis in given.flat)
        # Without axes nothing is reduced where the attribute says so, and everything otherwise.
        return None if not axes and _attribute(node, "noop_with_empty_axes") else tuple(axes or ())
    if kind == "CumSum":
        given = constants.input(node, 1)
        return (1,) if given is None or given.size != 1 else (int(given.item()),)
    if kind in _DEFAULT_AXIS:
        axis = _attribute(node, "axis")
        return (_DEFAULT_AXIS[kind] if axis is None else int(axis),)
    return None


def _behind(producers: Mapping[str, onnx.NodeProto], name: str) -> onnx.NodeProto | None:
    """Returns what makes the values of a tensor, upstream of what only hands them on."""
    visited: set[str] = set()
    node = producers.get(name)
    while node is not None and node.op_type in _HANDS_ON and name not in visited:
        visited.add(name)
        name = node.input[0]
        node = producers.get(name)
    return node


def _has_input(node: onnx.NodeProto, index: int) -> bool:
    return len(node.input) > index and bool(node.input[index])


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    values = (a for a in node.attribute if a.name == name)
    return next((helper.get_attribute_value(value) for value in values), None)

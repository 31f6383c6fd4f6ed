"""What the values of a graph come from: constants and images, layers, or thresholds of layers.

A network that rounds what its layers compute is quantized, however that is written: as Round, as a
sum of steps, as Where between constants. A threshold alone is none: an activation function may
choose by one between two lines, or multiply with one. Knows the ONNX format and no stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import onnx
from onnx import TensorProto, helper

from edgeres.graph_names import bodies

K = TypeVar("K")

_GIVEN = 0
"""Kind of what no layer computed: constants, sizes, the image."""

_STEP = -1
"""Kind of what has a few values only: thresholds of layers, and what is made of these alone."""

_LINE = 1
"""Kind of what a layer computed; each flat piece that Where gives it makes it one more."""

_FLAT = 2
"""Flat pieces of an activation function, as of a clip; more are the levels of a rounding."""

_LAYERS = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul"])
_OF_SIZES = frozenset(["Shape", "Size"])
_ROUNDS = frozenset(["Ceil", "Floor", "Mod", "Round"])
_THRESHOLDS = frozenset(
    [
        "ArgMax",
        "ArgMin",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Hardmax",
        "IsInf",
        "IsNaN",
        "Less",
        "LessOrEqual",
        "Sign",
    ]
)
_SUMS = frozenset(["Add", "Concat", "Max", "Min", "Sub", "Sum"])
"""Operators in which a step beside a line is a step of the result. A product is none: zero times a
line is what Relu is."""

_INTEGERS = frozenset(
    kind for name, kind in TensorProto.DataType.items() if name.startswith(("INT", "UINT"))
)


def walked(
    body: onnx.GraphProto | onnx.FunctionProto,
    kinds: dict[str, K],
    default: K,
    rule: Callable[[onnx.NodeProto, list[K]], K],
) -> Iterator[tuple[onnx.NodeProto, list[K]]]:
    """Yields each operator, those inside of others first, and the kinds of what it reads.

    Args:
        body: whose operators stand in their order.
        kinds: of its inputs; filled with those of the tensors that operators make.
        default: kind of every other tensor.
        rule: returns the kind that an operator makes of those that it reads.
    """
    for node in body.node:
        read = list(node.input)
        for inner in bodies(node):
            yield from walked(inner, kinds, default, rule)
            read += [value.name for value in inner.output]
        given = [kinds.get(name, default) for name in read]
        yield node, given
        kinds.update(dict.fromkeys(node.output, rule(node, given)))


def roundings(graph: onnx.GraphProto) -> Iterator[str]:
    """Yields a phrase for each operator that leaves what a layer computed a few values.

    Args:
        graph: whose functions are inlined.
    """
    kinds: dict[str, int] = {}
    for node, given in walked(graph, kinds, _GIVEN, _kind):
        kind, has_step = node.op_type, _STEP in given
        has_line = any(each >= _LINE for each in given)
        if has_line and _is_rounding(node):
            yield f"{kind} of what a layer computed"
        # Steps may choose between lines, and multiply them.
        elif (
            (has_step and kind in _LAYERS)
            or (has_step and has_line and kind in _SUMS)
            or (kind == "Where" and _STEP in given[1:] and any(g >= _LINE for g in given[1:]))
            or _kind(node, given) > _LINE + _FLAT
        ):
            yield f"{kind} of thresholds of what a layer computed"
    if any(kinds.get(value.name) == _STEP for value in graph.output):
        yield "output of thresholds of what a layer computed"


def _kind(node: onnx.NodeProto, given: list[int]) -> int:
    """Returns the kind of what an operator makes."""
    kind = node.op_type
    if kind in _LAYERS:
        return _LINE
    if kind in _OF_SIZES or not any(given):
        return _GIVEN
    if kind == "Where":
        choices = given[1:]
        flat = _GIVEN in choices and given[0] == _STEP
        return max(choices) + flat if max(choices) >= _LINE else _STEP
    to_bool = kind == "Cast" and _cast_to(node) == TensorProto.BOOL
    # What a rounding makes is reported once, there, and counts as a line from there on.
    if max(given) < _LINE or kind in _THRESHOLDS or to_bool:
        return _STEP
    return max(given) if kind in {"Cast", "Identity"} else _LINE


def _is_rounding(node: onnx.NodeProto) -> bool:
    return node.op_type in _ROUNDS or (node.op_type == "Cast" and _cast_to(node) in _INTEGERS)


def _cast_to(node: onnx.NodeProto) -> Any:
    values = (a for a in node.attribute if a.name == "to")
    return next((helper.get_attribute_value(value) for value in values), None)
